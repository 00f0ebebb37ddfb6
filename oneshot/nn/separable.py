"""Depthwise-separable convolution with elastic kernel and width.

Howard et al. 2017, MobileNets, arXiv:1704.04861; for keywords Zhang et al. 2017, Hello
Edge, arXiv:1711.07128.
"""

from __future__ import annotations

import jax
from flax import nnx
from jax import Array, lax

from oneshot.nn.conv import convolve, he_normal
from oneshot.nn.depthwise import depthwise_conv
from oneshot.nn.fused import norm_conv
from oneshot.nn.norm import BatchNorm


class ElasticConvBN(nnx.Module):
    """Convolution without a bias, norm, ReLU; its output is really `width` wide.

    Args:
      in_features: the largest number of input channels; fewer use the first rows.
      width: the numbers of output channels on offer.
      kernel: odd size of the kernel, 3 or more.
      stride: step in both directions.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.
    """

    def __init__(
        self,
        in_features: int,
        width: tuple[int, ...],
        kernel: int = 3,
        stride: int = 1,
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        shape = (kernel, kernel, in_features, max(width))
        self.kernel = nnx.Param(he_normal(rngs.params(), shape))
        self.norm = BatchNorm(max(width), relu=True)
        self.widths, self.stride, self.impl = tuple(width), stride, impl

    def __call__(self, x: Array, *, width: int) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., width]`.

        Raises:
          ValueError: if the width is not on offer.
        """
        _check("width", width, self.widths)
        size = *self.kernel.shape[:2], x.shape[-1], width
        w = lax.slice(self.kernel[...], (0, 0, 0, 0), size)
        return self.norm(convolve(x, w, self.stride, self.impl))


class ElasticSeparable(nnx.Module):
    """Depthwise convolution, norm, ReLU, pointwise convolution, norm, ReLU.

    One set of weights at the largest sizes: a narrower block uses the first channels, a
    smaller kernel the centre of the largest. Where stride is 1 and the widths are equal
    the input is added, which the papers' blocks lack: with it a network without its
    last blocks computes nearly the same, so that depths can share weights.

    Args:
      width: the numbers of output channels on offer; inputs have one of them, too.
      kernel: the odd kernel sizes on offer.
      stride: of the depthwise convolution.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.
    """

    def __init__(
        self,
        *,
        width: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: int = 1,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        if any(k % 2 == 0 for k in kernel):
            raise ValueError(f"Depthwise kernels have odd sizes, but got {kernel}.")
        features, largest = max(width), max(kernel)
        # The fan-out of a depthwise kernel is its area: one channel in, one out.
        self.depthwise_kernel = nnx.Param(
            2**0.5
            / largest
            * jax.random.normal(rngs.params(), (largest, largest, features))
        )
        self.depthwise_norm = BatchNorm(features, relu=True)
        self.pointwise_kernel = nnx.Param(
            he_normal(rngs.params(), (features, features))
        )
        self.pointwise_norm = BatchNorm(features, relu=True)
        self.widths, self.kernels = tuple(width), tuple(kernel)
        self.stride, self.impl = stride, impl

    def __call__(self, x: Array, *, width: int, kernel: int) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., width]`.

        Raises:
          ValueError: if the width or the kernel is not on offer.
        """
        _check("width", width, self.widths)
        _check("kernel", kernel, self.kernels)
        first, channels = (self.depthwise_kernel.shape[0] - kernel) // 2, x.shape[-1]
        last = first + kernel
        depthwise = lax.slice(
            self.depthwise_kernel[...], (first, first, 0), (last, last, channels)
        )
        pointwise = lax.slice(self.pointwise_kernel[...], (0, 0), (channels, width))
        y = depthwise_conv(x, depthwise, self.stride, self.impl)
        y = norm_conv(self.depthwise_norm, y, pointwise, impl=self.impl)
        y = self.pointwise_norm(y)
        return y + x if y.shape == x.shape else y


def _check(name: str, value: int, offered: tuple[int, ...]) -> None:
    if value not in offered:
        raise ValueError(
            f"This block offers {name} in {offered}, but was called with "
            f"{name}={value!r}."
        )
