"""Convolutions whose kernel, input and output widths are chosen at each call.

One set of weights at the largest sizes: fewer channels are the first ones, a smaller
kernel the centre. Cai et al., Once-for-All, ICLR 2020, arXiv:1908.09791.
"""

from __future__ import annotations

from flax import nnx
from jax import Array

from oneshot.nn.activations import Activation, activate
from oneshot.nn.conv import convolve
from oneshot.nn.depthwise import depthwise_conv
from oneshot.nn.elastic_kernel import ElasticKernel
from oneshot.nn.elastic_norm import ElasticNorm, Norms
from oneshot.nn.frozen import folds, frozen_conv
from oneshot.nn.offers import offered, pick

Sizes = int | tuple[int, ...]


class ElasticConv(nnx.Module):
    """Convolution without a bias, padded by `kernel // 2` zeros.

    Args:
      in_features: the largest number of input channels, or all on offer.
      out_features: the numbers of output channels on offer.
      kernel: the odd sizes of the kernel on offer.
      stride: step in both directions.
      transforms: whether kernel sizes are joined by learned matrices, see
        `ElasticKernel`.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.

    Example:
      >>> conv = ElasticConv(16, (24, 32), (3, 5), rngs=nnx.Rngs(0))
      >>> conv(jnp.ones((1, 8, 8, 16)), kernel=3, width=24).shape
      (1, 8, 8, 24)
    """

    def __init__(
        self,
        in_features: Sizes,
        out_features: Sizes,
        kernel: Sizes,
        stride: int = 1,
        *,
        transforms: bool = False,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        self.widths = offered(out_features)
        channels = offered(in_features)[-1], self.widths[-1]
        fan_out = offered(kernel)[-1] ** 2 * channels[1]
        self.kernel = ElasticKernel(
            kernel, channels, transforms=transforms, fan_out=fan_out, rngs=rngs
        )
        self.stride, self.impl = stride, impl

    def __call__(
        self, x: Array, *, kernel: int | None = None, width: int | None = None
    ) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., out]`.

        Args:
          x: images; `in` may be any number up to the largest.
          kernel: size of the kernel; may be left out where one is on offer.
          width: number of output channels; may be left out where one is on offer.

        Raises:
          ValueError: if one of them is not on offer.
        """
        w = self.weights(x.shape[-1], kernel=kernel, width=width)
        return convolve(x, w, self.stride, self.impl)

    def weights(
        self, channels: int, *, kernel: int | None = None, width: int | None = None
    ) -> Array:
        """Return the weights for an input of `channels`, as `convolve` takes them."""
        width = pick("width", width, self.widths)
        return self.kernel(kernel, (channels, width))


class ElasticConvBN(nnx.Module):
    """Elastic convolution, norm and activation.

    Args:
      in_features: the largest number of input channels, or all on offer.
      out_features: the numbers of output channels on offer.
      kernel: odd size of the kernel.
      stride: step in both directions.
      activation: "relu", "hard_swish" or "none".
      norms: "shared" or "per_width", see `ElasticNorm`.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.

    Example:
      >>> stem = ElasticConvBN(3, (24, 32), 3, 2, rngs=nnx.Rngs(0))
      >>> stem(jnp.ones((1, 8, 8, 3)), width=24).shape
      (1, 4, 4, 24)
    """

    def __init__(
        self,
        in_features: Sizes,
        out_features: Sizes,
        kernel: int = 3,
        stride: int = 1,
        activation: Activation = "relu",
        norms: Norms = "shared",
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        self.conv = ElasticConv(
            in_features, out_features, kernel, stride, rngs=rngs, impl=impl
        )
        self.norm = ElasticNorm(out_features, norms=norms, relu=activation == "relu")
        self.activation: Activation = activation

    def __call__(self, x: Array, *, width: int | None = None) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., out]`.

        Args:
          x: images.
          width: number of output channels; may be left out where one is on offer.

        Raises:
          ValueError: if it is not on offer.
        """
        w, conv = self.conv.weights(x.shape[-1], width=width), self.conv
        norm = self.norm.at(w.shape[-1])
        if folds(conv.impl, (norm,), x, w):
            y = frozen_conv(norm, x, w, conv.stride, conv.impl)
        else:
            y = norm(convolve(x, w, conv.stride, conv.impl))
        return y if norm.relu else activate(self.activation, y)


class ElasticDepthwise(nnx.Module):
    """Depthwise convolution, padded by `kernel // 2` zeros.

    Args:
      features: the largest number of channels.
      kernel: the odd sizes of the kernel on offer.
      stride: step in both directions.
      transforms: whether kernel sizes are joined by learned matrices, see
        `ElasticKernel`.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.

    Example:
      >>> conv = ElasticDepthwise(32, (3, 5, 7), rngs=nnx.Rngs(0))
      >>> conv(jnp.ones((1, 8, 8, 24)), kernel=5).shape
      (1, 8, 8, 24)
    """

    def __init__(
        self,
        features: int,
        kernel: Sizes,
        stride: int = 1,
        *,
        transforms: bool = False,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        fan_out = offered(kernel)[-1] ** 2
        self.kernel = ElasticKernel(
            kernel, (features,), transforms=transforms, fan_out=fan_out, rngs=rngs
        )
        self.stride, self.impl = stride, impl

    def __call__(self, x: Array, *, kernel: int | None = None) -> Array:
        """`[n, height, width, c]` to `[n, ceil(height / stride), ..., c]`.

        Args:
          x: images, with any number of channels up to the largest.
          kernel: size of the kernel; may be left out where one is on offer.

        Raises:
          ValueError: if it is not on offer.
        """
        w = self.kernel(kernel, (x.shape[-1],))
        if w.ndim == 1:
            w = w[None, None]
        return depthwise_conv(x, w, self.stride, self.impl)
