"""Squeeze-and-excitation: each channel times a number that all pixels decide.

Hu et al., arXiv:1709.01507, in the form of MobileNetV3 (arXiv:1905.02244): a quarter of
the channels between, ReLU, hard sigmoid.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from oneshot.nn.channels import Axis, ChannelGroup
from oneshot.nn.conv import he_normal
from oneshot.nn.divisible import make_divisible

_REDUCTION = 4


class SqueezeExcite(nnx.Module):
    """Squeeze-and-excitation for any number of channels up to the largest.

    Args:
      channels: the largest number of channels.
      divisor: the hidden channels are `make_divisible(channels // 4, divisor)`, of the
        channels of the input.
      rngs: draws the weights; biases start at 0.

    Example:
      >>> squeeze = SqueezeExcite(96, rngs=nnx.Rngs(0))
      >>> squeeze(jnp.ones((8, 7, 7, 64))).shape
      (8, 7, 7, 64)
    """

    def __init__(self, channels: int, divisor: int = 8, *, rngs: nnx.Rngs) -> None:
        hidden = make_divisible(channels // _REDUCTION, divisor)
        self.reduce_kernel = nnx.Param(he_normal(rngs.params(), (channels, hidden)))
        self.reduce_bias = nnx.Param(jnp.zeros((hidden,)))
        self.expand_kernel = nnx.Param(he_normal(rngs.params(), (hidden, channels)))
        self.expand_bias = nnx.Param(jnp.zeros((channels,)))
        self.channels, self.divisor = channels, divisor

    def __call__(self, x: Array) -> Array:
        """`[n, height, width, channels]` to the same.

        Raises:
          ValueError: if there are more channels than the module was built for.
        """
        channels = x.shape[-1]
        if channels > self.channels:
            raise ValueError(
                f"This module was built for at most {self.channels} channels, but its "
                f"input has {channels}. Build it with the largest width."
            )
        hidden = make_divisible(channels // _REDUCTION, self.divisor)
        y = x.mean((1, 2)) @ _first(self.reduce_kernel, channels, hidden)
        y = jnp.maximum(y + _first(self.reduce_bias, hidden)[None], 0)
        y = y @ _first(self.expand_kernel, hidden, channels)
        gate = jax.nn.hard_sigmoid(y + _first(self.expand_bias, channels)[None])
        return x * gate[:, None, None]

    def outer(self, prefix: str) -> tuple[Axis, ...]:
        """Return where the channels of the input lie, by `prefix`."""
        reduce, expand = f"{prefix}.reduce_kernel", f"{prefix}.expand_kernel"
        return (reduce, 0), (expand, 1), (f"{prefix}.expand_bias", 0)

    def inner(self, prefix: str) -> ChannelGroup:
        """Return the hidden channels, by `prefix`."""
        reader = (f"{prefix}.expand_kernel", 0)
        written = (f"{prefix}.reduce_kernel", 1), (f"{prefix}.reduce_bias", 0)
        return ChannelGroup(reader, (*written, reader))


def _first(param: nnx.Param, *sizes: int) -> Array:
    return lax.slice(param[...], (0,) * len(sizes), sizes)
