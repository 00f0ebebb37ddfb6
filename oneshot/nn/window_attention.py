"""Sliding-window attention: a token sees itself and a few tokens before."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn.attention import attention


def window_attention(q: Array, k: Array, v: Array, window: int) -> Array:
    """Causal softmax attention over the last `window` tokens.

    Where the tokens are a multiple of the window, each window of queries meets its own
    and the previous window of keys, so that the cost grows with `tokens * window`;
    else all products are taken and masked.

    Args:
      q: queries, `[batch, tokens, heads, head_size]`.
      k: keys, `[batch, tokens, key_heads, head_size]`.
      v: values, in the shape of `k`.
      window: how many tokens a token sees, itself among them, at least 1.

    Returns:
      `[batch, tokens, heads, head_size]`.

    Example:
      >>> window_attention(q, k, v, window=64)
    """
    tokens = q.shape[1]
    if window < 1:
        raise ValueError(f"A window holds at least 1 token, but got {window}.")
    if tokens <= window:
        return attention(q, k, v)
    if tokens % window:
        return attention(q, k, v, True, window)
    first = attention(*(_tokens(a, 0, window) for a in (q, k, v)))
    own = [_windows(_tokens(a, window, tokens), window) for a in (q, k, v)]
    before = [_windows(_tokens(a, 0, tokens - window), window) for a in (k, v)]
    both = [jnp.concatenate([a, b], 1) for a, b in zip(before, own[1:], strict=True)]
    rest = attention(own[0], *both, True, window)
    rest = rest.reshape(len(q), tokens - window, *q.shape[2:])
    return jnp.concatenate([first, rest], 1)


def _tokens(a: Array, start: int, stop: int) -> Array:
    return lax.slice_in_dim(a, start, stop, axis=1)


def _windows(a: Array, window: int) -> Array:
    """`[batch, tokens, ...]` to `[batch * windows, window, ...]`."""
    return a.reshape(-1, window, *a.shape[2:])
