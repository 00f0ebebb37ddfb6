"""Softmax attention that keeps its inputs and the probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def attention(
    q: Array, k: Array, v: Array, causal: bool = True, window: int | None = None
) -> Array:
    """Attention with softmax over `q k / sqrt(head_size)`.

    Args:
      q: queries, `[batch, tokens, heads, head_size]`.
      k: keys, `[batch, keys, key_heads, head_size]`; `key_heads` divides `heads`, and
        consecutive heads share one (grouped queries, arXiv:2305.13245).
      v: values, in the shape of `k`.
      causal: whether a token sees only itself and those before; of more keys than
        queries, the last ones are the queries' own.
      window: how many tokens a token sees at most, itself among them; None for all
        before. Needs `causal`.

    Returns:
      `[batch, tokens, heads, head_size]`.

    Raises:
      ValueError: if the heads do not divide, or a window is not causal.
    """
    heads, shared = q.shape[2], k.shape[2]
    if heads % shared or (window is not None and not causal):
        raise ValueError(
            "Attention takes a multiple of the keys' heads as queries' heads, and a "
            f"window only if causal, but got {heads} and {shared} heads, "
            f"causal={causal} and window={window}."
        )
    group = heads // shared
    mask = _mask(q.shape[1], k.shape[1], window) if causal else None
    if group == 1:
        return _attend(q, k, v, mask)
    # The heads that share keys become more queries of one head.
    folded = q.reshape(*q.shape[:2], shared, group, -1).transpose(0, 3, 1, 2, 4)
    folded = folded.reshape(len(q), group * q.shape[1], shared, -1)
    y: Array = _attend(
        folded, k, v, None if mask is None else jnp.tile(mask, (group, 1))
    )
    y = y.reshape(len(q), group, q.shape[1], shared, -1).transpose(0, 2, 3, 1, 4)
    return y.reshape(q.shape)


def _mask(tokens: int, keys: int, window: int | None) -> Array:
    """Which keys [tokens, keys] a token sees."""
    own = keys - tokens
    seen = jnp.tril(jnp.ones((tokens, keys), bool), own)
    if window is not None:
        seen &= jnp.triu(jnp.ones((tokens, keys), bool), own - window + 1)
    return seen


@jax.custom_vjp
def _attend(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    return _forward(q, k, v, mask)[0]


def _forward(q, k, v, mask):
    logits_BxHxLxM = jnp.einsum("blhd,bmhd->bhlm", q * q.shape[-1] ** -0.5, k)
    if mask is not None:
        logits_BxHxLxM = jnp.where(mask[None, None], logits_BxHxLxM, -jnp.inf)
    probs = jax.nn.softmax(logits_BxHxLxM.astype(jnp.float32)).astype(q.dtype)
    y = jnp.einsum("bhlm,bmhd->blhd", probs, v)
    return y, (q, k, v, probs)


def _backward(residuals, g):
    # Masked probabilities are zero, and so is what flows through them.
    q, k, v, probs = residuals
    scale = q.shape[-1] ** -0.5
    grad_v = jnp.einsum("bhlm,blhd->bmhd", probs, g)
    grad_probs = jnp.einsum("blhd,bmhd->bhlm", g, v)
    inner = (grad_probs * probs).sum(-1, keepdims=True)
    grad_logits = (grad_probs - inner) * (probs * scale)
    grad_q = jnp.einsum("bhlm,bmhd->blhd", grad_logits, k)
    grad_k = jnp.einsum("bhlm,blhd->bmhd", grad_logits, q)
    return grad_q, grad_k, grad_v, None


_attend.defvjp(_forward, _backward)
