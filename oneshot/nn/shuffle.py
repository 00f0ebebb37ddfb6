"""ShuffleNetV2's block and the Xception-like one of Single Path One-Shot.

References: Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN
Architecture Design, arXiv:1807.11164; Guo et al., Single Path One-Shot Neural
Architecture Search with Uniform Sampling, arXiv:1904.00420.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from oneshot.nn.conv import he_normal
from oneshot.nn.depthwise import depthwise_conv
from oneshot.nn.frozen import folds, frozen_affine
from oneshot.nn.fused import norm_conv
from oneshot.nn.norm import BatchNorm, along_channels
from oneshot.nn.pointwise import pointwise_conv


class ConvChain(nnx.Module):
    """Pointwise and depthwise convolutions in a row, each followed by a norm.

    A ReLU follows the norms of the pointwise ones only.

    Args:
      in_features: number of input channels.
      kernels: for each convolution its odd depthwise kernel, or 0 for a pointwise one.
      widths: output channels of each; a depthwise one keeps its input's.
      stride: of the first depthwise convolution; the others have 1.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.

    Raises:
      ValueError: if a kernel is even, or a depthwise convolution changes the width.
    """

    def __init__(
        self,
        in_features: int,
        kernels: tuple[int, ...],
        widths: tuple[int, ...],
        stride: int = 1,
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        weights, norms, strides, before = [], [], [], in_features
        for kernel, width in zip(kernels, widths, strict=True):
            if kernel and (kernel % 2 == 0 or width != before):
                raise ValueError(
                    "A depthwise convolution has an odd kernel and as many outputs as "
                    f"inputs, but got kernel {kernel} from {before} to {width} "
                    "channels."
                )
            if kernel:
                # The fan-out of a depthwise kernel is its area.
                shape = (kernel, kernel, width)
                weight = 2**0.5 / kernel * jax.random.normal(rngs.params(), shape)
            else:
                weight = he_normal(rngs.params(), (before, width))
            strides.append(stride if kernel else 1)
            stride = 1 if kernel else stride
            weights.append(nnx.Param(weight))
            norms.append(BatchNorm(width, relu=not kernel))
            before = width
        self.weights, self.norms = nnx.List(weights), nnx.List(norms)
        self.strides, self.impl = tuple(strides), impl

    def __call__(self, x: Array) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., last width]`."""
        norms, weights = list(self.norms), [w[...] for w in self.weights]
        if folds(self.impl, tuple(norms), x, *weights):
            return self._frozen(x, norms, weights)
        y = _convolve(x, weights[0], self.strides[0], self.impl)
        rest = zip(norms, weights[1:], self.strides[1:], strict=False)
        for norm, weight, stride in rest:
            y = norm_conv(norm, y, weight, stride, self.impl)
        return norms[-1](y)

    def _frozen(self, y: Array, norms: list[BatchNorm], weights: list[Array]) -> Array:
        for norm, weight, stride in zip(norms, weights, self.strides, strict=True):
            slope, shift = frozen_affine(norm, weight.shape[-1])
            scaled = weight * along_channels(slope, weight)
            y = _convolve(y, scaled, stride, self.impl)
            y = y + along_channels(shift, y)
            y = jnp.maximum(y, 0) if norm.relu else y
        return y


def _convolve(x: Array, w: Array, stride: int, impl: str) -> Array:
    conv = pointwise_conv if w.ndim == 2 else depthwise_conv
    return conv(x, w, stride, impl)


class ShuffleBlock(nnx.Module):
    """Split the channels in two, convolve one half and join; the halves are shuffled.

    With stride 1, even channels pass unchanged and odd ones go through the main branch:
    taking every other channel is the shuffle. With stride 2 all channels go through
    both branches. The results of the two are joined, the unchanged ones first.

    With one kernel the main branch is conv 1x1, depthwise, conv 1x1; with several it is
    Xception's, each depthwise convolution before a conv 1x1. The other branch, where
    there is one, is depthwise with the first kernel and conv 1x1.

    Args:
      in_features: number of input channels; with stride 1 that of the output.
      out_features: number of output channels, even, more than `in_features` with
        stride 2; half of them is the width inside the main branch.
      kernels: one odd kernel, or several.
      stride: 1 or 2.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.

    Raises:
      ValueError: if the widths do not fit the stride.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernels: tuple[int, ...] = (3,),
        stride: int = 1,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        _check(in_features, out_features, stride)
        half = out_features // 2
        before = half if stride == 1 else in_features
        last = out_features - before
        if len(kernels) == 1:
            order, widths = (0, kernels[0], 0), (half, half, last)
        else:
            inner = (half,) * (2 * len(kernels) - 2)
            order = tuple(k for kernel in kernels for k in (kernel, 0))
            widths = (before, *inner, last)
        options = {"stride": stride, "rngs": rngs, "impl": impl}
        self.main = ConvChain(before, order, widths, **options)
        if stride > 1:
            pair = (before, before)
            self.other = ConvChain(before, (kernels[0], 0), pair, **options)
        else:
            self.other = None

    def __call__(self, x: Array) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., out]`."""
        if self.other is None:
            kept, x = every_other(x)
        else:
            kept = self.other(x)
        return jnp.concatenate([kept, self.main(x)], axis=-1)


def every_other(x: Array) -> tuple[Array, Array]:
    """Return the even and the odd channels of `x`, `[..., channels]`, each half."""
    halves = []
    for first in (0, 1):
        start = (0,) * (x.ndim - 1) + (first,)
        strides = (1,) * (x.ndim - 1) + (2,)
        halves.append(lax.slice(x, start, x.shape, strides))
    return halves[0], halves[1]


def _check(in_features: int, out_features: int, stride: int) -> None:
    if stride == 1 and (in_features != out_features or in_features % 2):
        raise ValueError(
            "With stride 1 a shuffle block has equal, even numbers of input and output "
            f"channels, but got {in_features} and {out_features}. Use stride 2, or "
            "equal widths."
        )
    if stride > 1 and (out_features <= in_features or out_features % 2):
        raise ValueError(
            "With a stride a shuffle block has an even number of output channels, more "
            f"than it has inputs, but got {out_features} from {in_features}."
        )
