"""A linear layer whose input and output width are those of the call."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from oneshot.nn.slices import first_of

fan_in = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class ElasticLinear(nnx.Module):
    """A linear layer of which any first inputs and outputs can be used.

    One set of weights at the largest sizes; `kernel` is `[in, out]`.

    Args:
      in_features: the largest number of inputs.
      out_features: the largest number of outputs.
      bias: whether to add one.
      init: draws the kernel from (key, shape).
      rngs: draws the weights.

    Example:
      >>> linear = ElasticLinear(64, 128, rngs=nnx.Rngs(0))
      >>> linear(jnp.ones((2, 48)), 96).shape
      (2, 96)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        init: Callable = fan_in,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernel = nnx.Param(init(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jnp.zeros((out_features,))) if bias else None

    def __call__(self, x: Array, features: int | None = None) -> Array:
        """`[..., in]` to `[..., features]`.

        Args:
          x: as many inputs as are used, at most the largest number.
          features: how many outputs, a plain int; None for all.

        Raises:
          ValueError: if there are not so many inputs or outputs.
        """
        w = self.weight(x.shape[-1], features)
        # Two axes: XLA:CPU is fastest at products of matrices.
        y = x.reshape(-1, x.shape[-1]) @ w
        if self.bias is not None:
            y = y + first_of(self.bias[...], w.shape[1])[None]
        return y.reshape(*x.shape[:-1], w.shape[1])

    def weight(self, inputs: int, features: int | None = None) -> Array:
        """The kernel's first part, `[inputs, features]`."""
        features = self.kernel.shape[1] if features is None else features
        return first_of(self.kernel[...], inputs, features)
