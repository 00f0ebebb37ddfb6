"""From features to heads and back, with the first heads and their first features."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from oneshot.nn.linear import fan_in
from oneshot.nn.slices import first_of


class HeadProjection(nnx.Module):
    """A linear layer from features to heads.

    `kernel` is `[in, heads, head_size]`: a matrix whose columns are ordered by head.

    Args:
      in_features: the largest number of inputs.
      heads: the largest number of heads.
      head_size: the largest size of a head.
      bias: whether to add one.
      rngs: draws the weights.
    """

    def __init__(
        self,
        in_features: int,
        heads: int,
        head_size: int,
        *,
        bias: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        flat = fan_in(rngs.params(), (in_features, heads * head_size))
        self.kernel = nnx.Param(flat.reshape(in_features, heads, head_size))
        self.bias = nnx.Param(jnp.zeros((heads, head_size))) if bias else None

    def __call__(self, x: Array, heads: int, head_size: int) -> Array:
        """`[batch, tokens, in]` to `[batch, tokens, heads, head_size]`."""
        width, inner = x.shape[-1], heads * head_size
        w = first_of(self.kernel[...], width, heads, head_size).reshape(width, inner)
        y = x.reshape(-1, width) @ w
        if self.bias is not None:
            y = y + first_of(self.bias[...], heads, head_size).reshape(1, inner)
        return y.reshape(*x.shape[:-1], heads, head_size)


class HeadMerge(nnx.Module):
    """A linear layer from heads to features; `kernel` is `[heads, head_size, out]`.

    It starts from zeros, so that a residual layer starts as none: otherwise the first
    layers' noise would drown small embeddings.

    Args:
      heads: the largest number of heads.
      head_size: the largest size of a head.
      out_features: the largest number of outputs.
      bias: whether to add one.
      rngs: not used; taken so that all modules are built alike.
    """

    def __init__(
        self,
        heads: int,
        head_size: int,
        out_features: int,
        *,
        bias: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        del rngs
        self.kernel = nnx.Param(jnp.zeros((heads, head_size, out_features)))
        self.bias = nnx.Param(jnp.zeros((out_features,))) if bias else None

    def __call__(self, x: Array, features: int) -> Array:
        """`[batch, tokens, heads, head_size]` to `[batch, tokens, features]`."""
        heads, size = x.shape[-2:]
        w = first_of(self.kernel[...], heads, size, features)
        y = x.reshape(-1, heads * size) @ w.reshape(heads * size, features)
        if self.bias is not None:
            y = y + first_of(self.bias[...], features)[None]
        return y.reshape(*x.shape[:-2], features)
