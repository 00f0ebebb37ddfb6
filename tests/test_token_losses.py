"""Losses of tokens against an independent implementation, and targets refused."""

import jax
import numpy as np
import pytest

from oneshot.losses import check_labels
from oneshot.token_losses import SmoothedNextToken, bits, next_token, token_accuracy


def sequences():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 7)).astype(np.float32)
    targets = rng.integers(0, 7, (3, 5))
    targets[0, 3:], targets[2] = -1, -100
    return logits, targets


def test_token_losses_against_torch():
    torch = pytest.importorskip("torch")
    logits, targets = sequences()
    for metric, amount in ((next_token, 0.0), (SmoothedNextToken(0.2), 0.2)):
        found = metric(logits, targets)
        assert found.shape == (3,) and found[2] == 0
        for i in (0, 1):
            want = torch.nn.functional.cross_entropy(
                torch.tensor(logits[i]),
                torch.tensor(np.where(targets[i] < 0, -1, targets[i])),
                ignore_index=-1,
                label_smoothing=amount,
            )
            np.testing.assert_allclose(found[i], want, rtol=1e-5)
    np.testing.assert_allclose(
        bits(logits, targets), next_token(logits, targets) / np.log(2), rtol=1e-6
    )
    right = (logits[1].argmax(-1) == targets[1]).mean()
    assert token_accuracy(logits, targets)[1] == pytest.approx(right)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (np.zeros(3, int), "For a label an example use cross_entropy"),
        (np.zeros((3, 4), int), "shape"),
        (np.zeros((3, 5)), "Tokens are integers"),
        (np.full((3, 5), 7), "largest target token is 7"),
        (np.full((3, 5), -1), "largest target token is -1"),
    ],
)
def test_targets_that_are_no_tokens_are_refused(targets, expected):
    outputs = jax.ShapeDtypeStruct((3, 5, 7), np.float32)
    with pytest.raises(ValueError, match=expected):
        check_labels(outputs, targets, next_token)
