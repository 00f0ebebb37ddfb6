"""Softmax attention that keeps its inputs and the probabilities."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def attention(q: Array, k: Array, v: Array, causal: bool = True) -> Array:
    """Attention with softmax over `q k / sqrt(head_size)`.

    Args:
      q: queries, `[batch, tokens, heads, head_size]`.
      k: keys, in the same shape.
      v: values, in the same shape.
      causal: whether a token sees only itself and those before.

    Returns:
      `[batch, tokens, heads, head_size]`.
    """
    return _forward(q, k, v, causal)[0]


def _forward(q, k, v, causal):
    logits_BxHxLxM = jnp.einsum("blhd,bmhd->bhlm", q * q.shape[-1] ** -0.5, k)
    if causal:
        mask = jnp.tril(jnp.ones(logits_BxHxLxM.shape[-2:], bool))
        logits_BxHxLxM = jnp.where(mask[None, None], logits_BxHxLxM, -jnp.inf)
    probs = jax.nn.softmax(logits_BxHxLxM.astype(jnp.float32)).astype(q.dtype)
    y = jnp.einsum("bhlm,bmhd->blhd", probs, v)
    return y, (q, k, v, probs)


def _backward(causal, residuals, g):
    del causal  # masked probabilities are zero, and so is what flows through them
    q, k, v, probs = residuals
    scale = q.shape[-1] ** -0.5
    grad_v = jnp.einsum("bhlm,blhd->bmhd", probs, g)
    grad_probs = jnp.einsum("blhd,bmhd->bhlm", g, v)
    inner = (grad_probs * probs).sum(-1, keepdims=True)
    grad_logits = (grad_probs - inner) * (probs * scale)
    grad_q = jnp.einsum("bhlm,bmhd->blhd", grad_logits, k)
    grad_k = jnp.einsum("bhlm,blhd->bmhd", grad_logits, q)
    return grad_q, grad_k, grad_v


attention.defvjp(_forward, _backward)
