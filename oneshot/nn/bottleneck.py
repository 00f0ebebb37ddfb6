"""ResNet's bottleneck, elastic: conv 1x1, 3x3, 1x1, each with a norm, plus a shortcut.

He et al., arXiv:1512.03385, with the shortcut of ResNet-D (He et al., Bag of Tricks,
arXiv:1812.01187): average pooling, conv 1x1, norm, where the block halves the image or
changes the width. Elastic as in Once-for-All's ResNet-50 (Cai et al.,
arXiv:1908.09791).
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from oneshot.nn.channels import ChannelGroup
from oneshot.nn.conv import convolve, he_normal
from oneshot.nn.divisible import make_divisible
from oneshot.nn.elastic_conv import ElasticConvBN, Sizes
from oneshot.nn.elastic_norm import ElasticNorm, Norms
from oneshot.nn.fused import norm_conv
from oneshot.nn.offers import offered, pick
from oneshot.nn.pointwise import pointwise_conv


@dataclasses.dataclass(frozen=True)
class BottleneckForm:
    """What a bottleneck is, but for its channels.

    Attributes:
      expand: The ratios on offer; hidden channels are `out * expand`, rounded by
        `make_divisible`.
      stride: Of the 3x3 convolution and of the shortcut's pooling.
      norms: "shared", or "per_width" for one norm for each number of channels.
      divisor: What hidden channels are multiples of.
    """

    expand: tuple[float, ...] = (0.2, 0.25, 0.35)
    stride: int = 1
    norms: Norms = "shared"
    divisor: int = 8


class ElasticBottleneck(nnx.Module):
    """Bottleneck whose ratio and output width a call chooses.

    Where stride is 1 and the widths on offer at input and output are equal the
    shortcut is the input itself, so that the two have to be tied.

    Args:
      in_features: the numbers of input channels on offer.
      out_features: the numbers of output channels on offer.
      form: all else.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.

    Example:
      >>> block = ElasticBottleneck(64, (168, 256), BottleneckForm(), rngs=nnx.Rngs(0))
      >>> block(jnp.ones((1, 8, 8, 64)), expand=0.25, width=168).shape
      (1, 8, 8, 168)
    """

    def __init__(
        self,
        in_features: Sizes,
        out_features: Sizes,
        form: BottleneckForm,
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        inputs, self.widths = offered(in_features), offered(out_features)
        self.form, self.impl, norms = form, impl, form.norms
        self.expands = offered(form.expand)
        largest = inputs[-1]
        hidden = offered([self.hidden(w, e) for w in self.widths for e in self.expands])

        def kernel(*shape: int) -> nnx.Param:
            return nnx.Param(he_normal(rngs.params(), shape))

        self.reduce_kernel = kernel(largest, hidden[-1])
        self.reduce_norm = ElasticNorm(hidden, norms=norms, relu=True)
        self.middle_kernel = kernel(3, 3, hidden[-1], hidden[-1])
        self.middle_norm = ElasticNorm(hidden, norms=norms, relu=True)
        self.expand_kernel = kernel(hidden[-1], self.widths[-1])
        self.expand_norm = ElasticNorm(self.widths, norms=norms)
        projects = form.stride > 1 or inputs != self.widths
        self.shortcut = (
            ElasticConvBN(
                inputs, self.widths, 1, 1, "none", norms, rngs=rngs, impl=impl
            )
            if projects
            else None
        )

    def hidden(self, width: int, expand: float) -> int:
        """Return the hidden channels for an output of `width`."""
        return make_divisible(round(width * expand), self.form.divisor)

    def __call__(self, x: Array, *, expand: float, width: int | None = None) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., out]`.

        Args:
          x: images, with any number of channels up to the largest.
          expand: one of the ratios on offer.
          width: number of output channels; may be left out where one is on offer.

        Raises:
          ValueError: if one of them is not on offer, or a block that adds its input is
            asked for another width than its input's.
        """
        expand = pick("expand", expand, self.expands)
        width = pick("width", width, self.widths)
        if self.shortcut is None and width != x.shape[-1]:
            raise ValueError(
                f"This block adds its input, which has {x.shape[-1]} channels, to its "
                f"output, for which width={width} was asked. Tie the two widths."
            )
        hidden, impl, stride = self.hidden(width, expand), self.impl, self.form.stride
        reduce_w = lax.slice(self.reduce_kernel[...], (0, 0), (x.shape[-1], hidden))
        y = self.reduce_norm.at(hidden)(pointwise_conv(x, reduce_w, impl=impl))
        middle_w = lax.slice(
            self.middle_kernel[...], (0, 0, 0, 0), (3, 3, hidden, hidden)
        )
        y = convolve(y, middle_w, stride, impl)
        expand_w = lax.slice(self.expand_kernel[...], (0, 0), (hidden, width))
        y = norm_conv(self.middle_norm.at(hidden), y, expand_w, impl=impl)
        y = self.expand_norm.at(width)(y)
        if self.shortcut is not None:
            x = self.shortcut(average_pool(x, stride), width=width)
        return jnp.maximum(y + x, 0)

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Return the hidden channels after the first and after the second conv."""

        def group(writer, norm, name, reader) -> ChannelGroup:
            axes = (writer, *norm.arrays(name), reader)
            return ChannelGroup(reader, axes, norm.copies(name))

        reduce, read = ("reduce_kernel", 1), ("middle_kernel", 2)
        middle, expand = ("middle_kernel", 3), ("expand_kernel", 0)
        return (
            group(middle, self.middle_norm, "middle_norm", expand),
            group(reduce, self.reduce_norm, "reduce_norm", read),
        )


def average_pool(x: Array, size: int) -> Array:
    """Mean over windows of `size` by `size` pixels, smaller ones at the far edges.

    Args:
      x: images, `[n, height, width, channels]`.
      size: of a window, and the step between windows.

    Returns:
      `[n, ceil(height / size), ceil(width / size), channels]`.
    """
    if size == 1:
        return x
    n, height, width, channels = x.shape
    rows, columns = -(-height // size), -(-width // size)
    if (rows * size, columns * size) != (height, width):
        rest = (0, rows * size - height), (0, columns * size - width)
        x = jnp.pad(x, ((0, 0), *rest, (0, 0)))
    sums = x.reshape(n, rows, size, columns, size, channels).sum((2, 4))
    counts = np.outer(_counts(height, size), _counts(width, size))
    return sums * (1 / counts[None, :, :, None]).astype(x.dtype)


def _counts(length: int, size: int) -> np.ndarray:
    starts = np.arange(0, length, size)
    return np.minimum(size, length - starts)
