"""CTC against a sum over all alignments, decoding, and edits against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneshot.ctc import (
    CTC,
    ctc,
    edit_distance,
    greedy_decode,
    sequence_accuracy,
    token_error_rate,
)
from oneshot.losses import check_labels

TARGETS = ([0, 1], [1, 1], [0], [], [1, 0, 1])


def collapse(path, blank):
    merged = [token for token, _ in itertools.groupby(path)]
    return [token for token in merged if token != blank]


def padded(sequences, longest):
    rows = [[*s, *[-1] * (longest - len(s))] for s in sequences]
    return np.array(rows, np.int32)


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
        row = new
    return row[-1]


def test_the_loss_sums_over_all_alignments():
    logits = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    probs = np.asarray(jax.nn.softmax(logits))
    want = []
    for p, target in zip(probs, TARGETS, strict=True):
        paths = itertools.product(range(3), repeat=4)
        fitting = [path for path in paths if collapse(path, 2) == target]
        want.append(-np.log(sum(np.prod(p[range(4), path]) for path in fitting)))
    loss = jax.jit(ctc)(logits, padded(TARGETS, 3))
    np.testing.assert_allclose(loss, want, rtol=1e-4)


def test_its_gradient_is_that_of_differences():
    logits = np.random.default_rng(1).normal(size=(1, 4, 3)).astype(np.float32)
    target = padded([[0, 1]], 3)
    loss = jax.jit(lambda z: ctc(z, target).sum())
    gradient = jax.jit(jax.grad(loss))(logits)
    assert abs(float(gradient.sum())) < 1e-5
    direction = np.random.default_rng(2).normal(size=logits.shape).astype(np.float32)
    ends = [loss(logits + s * 0.05 * direction) for s in (1, -1)]
    slope = float(ends[0] - ends[1]) / 0.1
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=2e-2)


def test_greedy_decoding_merges_repeats_and_leaves_out_blanks():
    rng = np.random.default_rng(3)
    paths = rng.integers(0, 4, (50, 9))
    decoded = jax.jit(greedy_decode)(jax.nn.one_hot(paths, 4))
    np.testing.assert_array_equal(decoded, padded([collapse(p, 3) for p in paths], 9))


def test_edits_are_levenshtein_s():
    rng = np.random.default_rng(4)
    found, targets = (
        [rng.integers(0, 3, rng.integers(0, n + 1)).tolist() for _ in range(60)]
        for n in (7, 5)
    )
    edits = jax.jit(edit_distance)(
        jnp.asarray(padded(found, 7)), jnp.asarray(padded(targets, 5))
    )
    want = [levenshtein(a, b) for a, b in zip(found, targets, strict=True)]
    np.testing.assert_array_equal(edits, want)


def test_metrics_are_one_number_a_sequence():
    paths = jnp.array([[0, 0, 2, 1], [2, 2, 2, 2]])
    logits, targets = jax.nn.one_hot(paths, 3), padded([[0, 1], [0, 1]], 3)
    np.testing.assert_array_equal(jax.jit(token_error_rate)(logits, targets), [0, 1])
    np.testing.assert_array_equal(jax.jit(sequence_accuracy)(logits, targets), [1, 0])
    assert set(CTC) == {"loss", "accuracy", "token_error_rate"}


def test_targets_that_cannot_be_are_refused():
    outputs = jax.ShapeDtypeStruct((2, 4, 3), jnp.float32)
    check_labels(outputs, padded([[0, 1], [1, 1]], 3), ctc)
    wrong = [
        (padded([[0, 2]], 3), "number tokens 0 to 1"),
        (np.array([[0, -1, 1]]), "filling belongs at the end"),
        (padded([[1, 1, 1]], 3), "needs 5 steps"),
        (np.zeros(2, int), "integer targets"),
    ]
    for targets, words in wrong:
        with pytest.raises(ValueError, match=words):
            check_labels(outputs, targets, ctc)
    with pytest.raises(ValueError, match="CTC takes logits"):
        ctc(jnp.zeros((2, 3)), jnp.zeros((2, 3), int))
