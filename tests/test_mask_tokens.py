"""Hidden tokens, and a loss that sees only those."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneshot.losses import next_token, token_accuracy
from oneshot.mask_tokens import mask_tokens

TOKENS = np.random.default_rng(0).integers(0, 20, (200, 100)).astype(np.int32)


def hidden(**options):
    augment = jax.jit(mask_tokens(20, 20, **options))
    return tuple(np.asarray(a) for a in augment(jax.random.key(0), TOKENS, TOKENS))


def test_the_shares_are_those_asked_for():
    x, y = hidden(share=0.3, kept=0.2, replaced=0.1)
    chosen = y >= 0
    np.testing.assert_array_equal(y[chosen], TOKENS[chosen])
    np.testing.assert_array_equal(x[~chosen], TOKENS[~chosen])
    assert chosen.mean() == pytest.approx(0.3, abs=0.02)
    masked, kept = x[chosen] == 20, x[chosen] == TOKENS[chosen]
    assert masked.mean() == pytest.approx(0.7, abs=0.03)
    assert kept.mean() == pytest.approx(0.2 + 0.1 / 20, abs=0.03)
    assert x.dtype == y.dtype == np.int32


def test_all_or_nothing():
    x, y = hidden(share=1.0, kept=0.0, replaced=0.0)
    assert (x == 20).all() and (y == TOKENS).all()
    x, y = hidden(share=0.0)
    assert (x == TOKENS).all() and (y == -1).all()


def test_the_loss_is_of_hidden_tokens_only():
    _, y = hidden()
    logits = np.random.default_rng(1).normal(size=(200, 100, 21)).astype(np.float32)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    want = [
        -np.mean([log_p[i, t, y[i, t]] for t in np.flatnonzero(y[i] >= 0)])
        for i in range(20)
    ]
    got = next_token(jnp.asarray(logits), jnp.asarray(y))
    np.testing.assert_allclose(got[:20], want, rtol=1e-5)
    right = np.where(y >= 0, y, 0)
    perfect = jax.nn.one_hot(right, 21)
    np.testing.assert_allclose(token_accuracy(perfect, jnp.asarray(y)), 1.0)


def test_narrow_tokens_have_wide_targets():
    _, y = mask_tokens(20, 20)(jax.random.key(0), jnp.asarray(TOKENS, jnp.uint8), None)
    assert y.dtype == jnp.int32 and int(y.min()) == -1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="kept=0.6"):
        mask_tokens(20, 20, kept=0.6, replaced=0.6)
    with pytest.raises(ValueError, match=r"float32\[2, 3\]"):
        mask_tokens(20, 20)(jax.random.key(0), jnp.zeros((2, 3)), None)
    with pytest.raises(ValueError, match="uint8 cannot hold the mask 300"):
        mask_tokens(256, 300)(jax.random.key(0), jnp.zeros((2, 3), jnp.uint8), None)
