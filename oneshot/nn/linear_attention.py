"""Causal attention at a cost linear in the number of tokens.

Katharopoulos et al., Transformers are RNNs, arXiv:2006.16236: `exp(q k)` becomes
`phi(q) phi(k)` with `phi(x) = elu(x) + 1`, so that sums over the past can be kept.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def linear_attention(q: Array, k: Array, v: Array, chunk: int = 64) -> Array:
    """Causal attention with weights proportional to `phi(q) phi(k)`.

    Tokens are taken in chunks: inside one, as products of a masked matrix; of all
    chunks before, as one sum of `phi(k) v` a head.

    Args:
      q: queries, `[batch, tokens, heads, head_size]`.
      k: keys, `[batch, tokens, key_heads, head_size]`; `key_heads` divides `heads`.
      v: values, in the shape of `k`.
      chunk: tokens of a chunk; changes the cost, not the result.

    Returns:
      `[batch, tokens, heads, head_size]`.

    Example:
      >>> linear_attention(q, k, v)
    """
    batch, tokens, heads, size = q.shape
    shared, length = k.shape[2], min(chunk, tokens)
    # The column of ones carries the sum of the weights along with the values.
    v = jnp.concatenate([v, jnp.ones((*v.shape[:3], 1), v.dtype)], -1)
    q = _chunks(jax.nn.elu(q) + 1, length).reshape(
        batch, -1, length, shared, heads // shared, size
    )
    k, v = _chunks(jax.nn.elu(k) + 1, length), _chunks(v, length)
    inside = jnp.einsum("bnlhgd,bnmhd->bnhglm", q, k)
    inside = (
        inside * jnp.tril(jnp.ones((length, length), q.dtype))[None, None, None, None]
    )
    sums = jnp.einsum("bnmhd,bnmhe->bnhde", k, v)
    none = jnp.zeros_like(sums[:, :1])
    past = jnp.cumsum(jnp.concatenate([none, sums[:, :-1]], 1), 1)
    y = jnp.einsum("bnhglm,bnmhe->bnlhge", inside, v)
    y = y + jnp.einsum("bnlhgd,bnhde->bnlhge", q, past)
    y = y.reshape(batch, -1, heads, size + 1)[:, :tokens]
    return y[..., :size] / (y[..., size:] + 1e-6)


def _chunks(a: Array, length: int) -> Array:
    """`[batch, tokens, ...]` to `[batch, chunks, length, ...]`, zeros at the end."""
    short = -a.shape[1] % length
    a = jnp.pad(a, ((0, 0), (0, short), (0, 0), (0, 0)))
    return a.reshape(len(a), -1, length, *a.shape[2:])
