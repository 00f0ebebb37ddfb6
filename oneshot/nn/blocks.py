"""Convolution with norm, and the inverted residual of MobileNetV2, plain and elastic.

The inverted residual is NAS-Bench-Macro's: conv 1x1, norm, ReLU, depthwise
convolution, norm, ReLU, conv 1x1, norm; plus the input where stride is 1 and the
widths are equal; no biases, no squeeze-and-excitation.

References: Sandler et al., MobileNetV2, arXiv:1801.04381; Su et al., Prioritized
Architecture Sampling with Monte-Carlo Tree Search, arXiv:2103.11922 (the benchmark).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from oneshot.nn.backend import resolve
from oneshot.nn.calibrate import calibrated_inverted_residual, calibrates
from oneshot.nn.channels import ChannelGroup
from oneshot.nn.conv import Conv, he_normal
from oneshot.nn.frozen import folds, frozen_conv, frozen_inverted_residual
from oneshot.nn.fused import norm_conv
from oneshot.nn.inverted import inverted_residual_train
from oneshot.nn.norm import BatchNorm
from oneshot.nn.pointwise import pointwise_conv
from oneshot.nn.slab_weights import Weights, slabs_pay


class ConvBN(nnx.Module):
    """Convolution, norm and, if asked for, ReLU.

    Args:
      in_features: number of input channels.
      out_features: number of output channels.
      kernel: odd size of the kernel.
      stride: step in both directions.
      relu: whether a ReLU follows.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: int = 3,
        stride: int = 1,
        relu: bool = True,
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        self.conv = Conv(
            in_features, out_features, kernel, stride, rngs=rngs, impl=impl
        )
        self.norm = BatchNorm(out_features, relu=relu)

    def __call__(self, x: Array) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., out]`."""
        w, stride, impl = self.conv.kernel[...], self.conv.stride, self.conv.impl
        if folds(impl, (self.norm,), x, w):
            return frozen_conv(self.norm, x, w, stride, impl)
        return self.norm(self.conv(x))


class InvertedResidual(nnx.Module):
    """Inverted residual of a fixed size.

    Args:
      in_features: number of input channels.
      out_features: number of output channels.
      expand: hidden channels are `in_features * expand`.
      kernel: odd size of the depthwise kernel.
      stride: of the depthwise convolution.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.
    """

    expand_kernel: nnx.Param
    expand_norm: BatchNorm
    depthwise_kernel: nnx.Param
    depthwise_norm: BatchNorm
    project_kernel: nnx.Param
    project_norm: BatchNorm

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        expand: int,
        kernel: int,
        stride: int = 1,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        _build(self, in_features, out_features, expand, kernel, rngs)
        self.stride = stride
        self.impl = impl

    def __call__(self, x: Array) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., out]`."""
        return _apply(
            self,
            x,
            self.expand_kernel[...],
            self.depthwise_kernel[...],
            self.project_kernel[...],
        )


class ElasticInvertedResidual(nnx.Module):
    """Inverted residual whose expansion and kernel size are chosen at each call.

    One set of weights at the largest sizes: a narrower block uses the first hidden
    channels, a smaller kernel the centre of the largest.

    Args:
      in_features: number of input channels.
      out_features: number of output channels.
      expand: the expansions on offer; hidden channels are `in_features * expand`.
      kernel: the odd kernel sizes on offer.
      stride: of the depthwise convolution.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.
    """

    expand_kernel: nnx.Param
    expand_norm: BatchNorm
    depthwise_kernel: nnx.Param
    depthwise_norm: BatchNorm
    project_kernel: nnx.Param
    project_norm: BatchNorm

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        expand: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: int = 1,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        _build(self, in_features, out_features, max(expand), max(kernel), rngs)
        self.expands = tuple(expand)
        self.kernels = tuple(kernel)
        self.stride = stride
        self.impl = impl

    def __call__(self, x: Array, *, expand: int, kernel: int) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., out]`.

        Args:
          x: images.
          expand: one of the expansions on offer, a plain int.
          kernel: one of the kernel sizes on offer, a plain int.

        Raises:
          ValueError: if either is not on offer.
        """
        if expand not in self.expands or kernel not in self.kernels:
            raise ValueError(
                f"This block offers expand in {self.expands} and kernel in "
                f"{self.kernels}, but was called with expand={expand!r} and "
                f"kernel={kernel!r}."
            )
        # `lax.slice` puts one `slice` on the parameter itself (and none where the
        # size is the largest); `w[:, :n]` may lower to a gather.
        hidden = x.shape[-1] * expand
        first = (self.depthwise_kernel.shape[0] - kernel) // 2
        last = first + kernel
        return _apply(
            self,
            x,
            lax.slice(self.expand_kernel[...], (0, 0), (x.shape[-1], hidden)),
            lax.slice(
                self.depthwise_kernel[...], (first, first, 0), (last, last, hidden)
            ),
            lax.slice(
                self.project_kernel[...], (0, 0), (hidden, self.project_kernel.shape[1])
            ),
        )

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Return the hidden channels, which may change places."""
        norms = tuple(
            (f"{norm}.{part}", 0)
            for norm in ("expand_norm", "depthwise_norm")
            for part in ("scale", "bias", "mean", "var")
        )
        reader = ("project_kernel", 0)
        kernels = ("expand_kernel", 1), ("depthwise_kernel", 2), reader
        return (ChannelGroup(reader, (*kernels, *norms)),)


def _build(
    block: InvertedResidual | ElasticInvertedResidual,
    in_features: int,
    out_features: int,
    expand: int,
    kernel: int,
    rngs: nnx.Rngs,
) -> None:
    if kernel % 2 == 0:
        raise ValueError(f"Inverted residuals take odd kernels, but one is {kernel}.")
    hidden = in_features * expand
    block.expand_kernel = nnx.Param(he_normal(rngs.params(), (in_features, hidden)))
    block.expand_norm = BatchNorm(hidden, relu=True)
    # The fan-out of a depthwise kernel is its area: one channel in, one out.
    std = 2**0.5 / kernel
    block.depthwise_kernel = nnx.Param(
        std * jax.random.normal(rngs.params(), (kernel, kernel, hidden))
    )
    block.depthwise_norm = BatchNorm(hidden, relu=True)
    block.project_kernel = nnx.Param(he_normal(rngs.params(), (hidden, out_features)))
    block.project_norm = BatchNorm(out_features)


def _apply(
    block: InvertedResidual | ElasticInvertedResidual,
    x: Array,
    expand_w: Array,
    depthwise_w: Array,
    project_w: Array,
) -> Array:
    norms = (block.expand_norm, block.depthwise_norm, block.project_norm)
    kernels = (expand_w, depthwise_w, project_w)
    return inverted_residual(norms, x, kernels, block.stride, block.impl)


def inverted_residual(
    norms: tuple[BatchNorm, BatchNorm, BatchNorm],
    x: Array,
    kernels: tuple[Array, Array, Array],
    stride: int,
    impl: str,
) -> Array:
    """Apply an inverted residual in the way that suits the norms' mode and the backend.

    Args:
      norms: after the expansion and the depthwise convolution, with a ReLU each, and
        after the projection, without.
      x: images, `[n, height, width, in]`.
      kernels: `[in, hidden]`, `[kernel, kernel, hidden]`, `[hidden, out]`.
      stride: of the depthwise convolution.
      impl: see `oneshot.nn.backend.resolve`.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out]`, plus the input where it
      is of that shape.
    """
    expand_w, depthwise_w, project_w = kernels
    if calibrates(impl, norms, x, *kernels):
        return calibrated_inverted_residual(norms, x, kernels, stride)
    batch_statistics = not norms[0].use_running_average
    single = x.dtype == expand_w.dtype == jnp.float32
    if folds(impl, norms, x, *kernels):
        y = frozen_inverted_residual(norms, x, kernels, stride, impl)
    elif (
        resolve(impl) == "shift"
        and batch_statistics
        and single
        and slabs_pay(depthwise_w.shape, x.shape)
    ):
        y = _by_slabs(norms, x, kernels, stride)
    else:
        y = pointwise_conv(x, expand_w, impl=impl)
        y = norm_conv(norms[0], y, depthwise_w, stride, impl)
        y = norm_conv(norms[1], y, project_w, impl=impl)
        y = norms[2](y)
    return y + x if y.shape == x.shape else y


def _by_slabs(
    norms: tuple[BatchNorm, BatchNorm, BatchNorm],
    x: Array,
    kernels: tuple[Array, Array, Array],
    stride: int,
) -> Array:
    expand_w, depthwise_w, project_w = kernels
    (scale1, bias1), (scale2, bias2), (scale3, bias3) = (
        norm.affine(w.shape[-1]) for norm, w in zip(norms, kernels, strict=True)
    )
    weights = Weights(
        expand_w, scale1, bias1, depthwise_w, scale2, bias2, project_w, scale3, bias3
    )
    epsilons = tuple(norm.epsilon for norm in norms)
    result: tuple = inverted_residual_train(x, weights, (stride, epsilons))
    y, stats = result
    for norm, found in zip(norms, stats, strict=True):
        norm.update(*found)
    return y
