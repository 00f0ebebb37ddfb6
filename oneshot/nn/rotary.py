"""Rotary position: queries and keys turned by an angle that grows with position.

Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding,
arXiv:2104.09864; features are paired as in Llama, i with i + head_size / 2.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def rotary(x: Array, base: float = 10000.0) -> Array:
    """Turn the pairs of features of each token by its position.

    Angles are those of the head size that is there, so that a narrower head is an
    ordinary one.

    Args:
      x: `[batch, tokens, heads, head_size]`, of even head size.
      base: the pair i turns by `base ** (-2 i / head_size)` a token.

    Returns:
      The same shape and dtype.

    Raises:
      ValueError: if the head size is odd.

    Example:
      >>> rotary(jnp.ones((1, 16, 4, 32))).shape
      (1, 16, 4, 32)
    """
    tokens, size = x.shape[1], x.shape[3]
    if size % 2:
        raise ValueError(
            f"Rotary position turns pairs of features, but a head has {size}. Give it "
            "an even size."
        )
    rate = 1 / base ** (jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    angle = jnp.arange(tokens, dtype=jnp.float32)[:, None] * rate[None]
    cos, sin = (f(angle)[None, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    one, two = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], -1)
