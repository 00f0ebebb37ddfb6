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
    q1, k1, v1 = (_tokens(a, 0, window) for a in (q, k, v))
    first = attention(q1, k1, v1)
    queries = _windows(_tokens(q, window, tokens), window)
    keys, values = (
        jnp.concatenate(
            [
                _windows(_tokens(a, 0, tokens - window), window),
                _windows(_tokens(a, window, tokens), window),
            ],
            axis=1,
        )
        for a in (k, v)
    )
    rest = attention(queries, keys, values, True, window)
    rest = rest.reshape(len(q), tokens - window, *q.shape[2:])
    return jnp.concatenate([first, rest], 1)


def _tokens(a: Array, start: int, stop: int) -> Array:
    return lax.slice_in_dim(a, start, stop, axis=1)


def _windows(a: Array, window: int) -> Array:
    """`[batch, tokens, ...]` to `[batch * windows, window, ...]`."""
    return a.reshape(-1, window, *a.shape[2:])
