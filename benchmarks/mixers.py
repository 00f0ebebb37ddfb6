"""A space of small language models whose blocks differ in kind rather than in size.

Six residual blocks in a row, each one of five: a causal convolution of two taps that
lie 1, 2 or 4 characters apart, attention to all characters before, or a gated MLP,
which mixes no characters. What lies near is worth most, and together the blocks see
further: order and company matter, nothing is skipped, and three of the five cost the
same, so that neither cost nor depth shall say much. 15,625 networks, all distinct.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.text_data import text_parts
from oneshot.data import Data, Split
from oneshot.layers import OneOf
from oneshot.nn import AttentionOffer, CausalAttention, GatedMlp, RMSNorm
from oneshot.supernet import Supernet

LAYERS, WIDTH, CONTEXT, VOCABULARY = 6, 48, 64, 65
HEADS = 3
# So wide that neither parameters nor multiply-adds rank the kinds as losses do: with
# equal numbers of either the other one did.
CONVOLVED, HIDDEN = 80, 96
SCORED = 48_000  # characters of either part that scores


class Convolution(nnx.Module):
    """A gated causal convolution of two taps, each feature on its own, between two
    linear maps."""

    def __init__(self, apart: int, *, rngs: nnx.Rngs):
        self.apart = apart
        options: dict[str, Any] = {"use_bias": False, "rngs": rngs}
        self.open = nnx.Linear(WIDTH, 2 * CONVOLVED, **options)
        self.taps = nnx.Param(rngs.params.normal((2, CONVOLVED)) / 2**0.5)
        self.close = nnx.Linear(CONVOLVED, WIDTH, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, tokens, width] to the same."""
        values, gates = jnp.split(self.open(x), 2, axis=-1)
        before = jnp.pad(values, ((0, 0), (self.apart, 0), (0, 0)))[:, : x.shape[1]]
        taps = self.taps[...][:, None, None]
        mixed = before * taps[0] + values * taps[1]
        return self.close(mixed * nnx.silu(gates))


class Block(nnx.Module):
    """x + mix(norm(x))."""

    def __init__(self, make: Callable[..., nnx.Module], *, rngs: nnx.Rngs):
        self.norm = RMSNorm(WIDTH)
        self.mix: Any = make(rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, tokens, width] to the same."""
        return x + self.mix(self.norm(x))


class Stem(nnx.Module):
    """A vector for each character."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Integers [n, tokens] to [n, tokens, width]."""
        return self.embed(tokens)


class Head(nnx.Module):
    """Logits of the next character."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.norm = RMSNorm(WIDTH)
        self.out = nnx.Linear(WIDTH, VOCABULARY, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, tokens, width] to [n, tokens, vocabulary]."""
        return self.out(self.norm(x))


class Attention(nnx.Module):
    """Attention to all characters before, all its heads."""

    def __init__(self, *, rngs: nnx.Rngs):
        offer = AttentionOffer((HEADS,), (WIDTH // HEADS,))
        self.attention = CausalAttention(WIDTH, offer, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, tokens, width] to the same."""
        return self.attention(x, heads=HEADS)


class Mlp(nnx.Module):
    """A gated MLP."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.mlp = GatedMlp(WIDTH, (HIDDEN,), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, tokens, width] to the same."""
        return self.mlp(x, hidden=HIDDEN)


def _attention(*, rngs: nnx.Rngs) -> nnx.Module:
    return Attention(rngs=rngs)


def _mlp(*, rngs: nnx.Rngs) -> nnx.Module:
    return Mlp(rngs=rngs)


def _convolution(apart: int, *, rngs: nnx.Rngs) -> nnx.Module:
    return Convolution(apart, rngs=rngs)


MIXERS: dict[str, Callable[..., nnx.Module]] = {
    "near": functools.partial(_convolution, 1),
    "second": functools.partial(_convolution, 2),
    "fourth": functools.partial(_convolution, 4),
    "attention": _attention,
    "mlp": _mlp,
}


def mixers() -> Supernet:
    """Return the supernet."""
    blocks = {name: functools.partial(_block, make) for name, make in MIXERS.items()}
    return Supernet(_stem, [OneOf(**blocks) for _ in range(LAYERS)], _head)


def _block(make: Callable[..., nnx.Module], *, rngs: nnx.Rngs) -> nnx.Module:
    return Block(make, rngs=rngs)


def _stem(*, rngs: nnx.Rngs) -> nnx.Module:
    return Stem(rngs=rngs)


def _head(*, rngs: nnx.Rngs) -> nnx.Module:
    return Head(rngs=rngs)


def mixers_data() -> Data:
    """Return windows of Shakespeare's characters, and others that score.

    Of a window that scores, the second half is scored, so that no character is without
    context.
    """
    train, validate, _ = text_parts()
    return Data.from_arrays(
        _windows(train, CONTEXT // 2), validate=_scored(validate), calibrate=64
    )


def mixers_tested() -> Split:
    """Return windows of another part of the text, for the truth."""
    return Split(*_scored(text_parts()[2]))


def _scored(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _windows(numbers[: SCORED + 1], CONTEXT // 2)
    y[:, : CONTEXT // 2] = -1
    return x, y


def _windows(numbers: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    views = np.lib.stride_tricks.sliding_window_view(numbers, CONTEXT + 1)[::stride]
    return views[:, :-1].copy(), views[:, 1:].copy()
