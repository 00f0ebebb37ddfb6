"""Convolution without a bias."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from oneshot.nn.backend import resolve
from oneshot.nn.pointwise import pointwise_conv

# Up to so many input channels, a CPU is faster with the patches as rows of a matrix:
# 64 images of 32x32x3 to 32 channels take 2.2 ms and 2.6 for the gradients, where
# XLA's convolution takes 4.9 and 10.6. From 16 channels on it is the other way round.
_FEW = 4

# He's normal initialisation by fan-out, as torchvision's ResNet and MobileNet use:
# it keeps the variance of the gradients, and every convolution here precedes a norm,
# which takes care of that of the activations.
he_normal = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nnx.Module):
    """Convolution without a bias, padded by `kernel // 2` zeros.

    Args:
      in_features: number of input channels.
      out_features: number of output channels.
      kernel: odd size of the kernel.
      stride: step in both directions.
      rngs: its `params` stream draws the weights: `[in, out]` for kernel 1,
        `[kernel, kernel, in, out]` otherwise.
      impl: see `oneshot.nn.backend.resolve`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: int,
        stride: int = 1,
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        if kernel % 2 == 0:
            raise ValueError(f"Conv takes an odd kernel size, but it is {kernel}.")
        shape = (in_features, out_features)
        if kernel > 1:
            shape = (kernel, kernel, *shape)
        self.kernel = nnx.Param(he_normal(rngs.params(), shape))
        self.stride = stride
        self.impl = impl

    def __call__(self, x: Array) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., out]`."""
        return convolve(x, self.kernel[...], self.stride, self.impl)


def convolve(x: Array, w: Array, stride: int = 1, impl: str = "auto") -> Array:
    """Convolution without a bias, padded by `kernel // 2` zeros.

    Args:
      x: images, `[n, height, width, in]`.
      w: `[in, out]`, or `[kernel, kernel, in, out]` with an odd kernel.
      stride: step in both directions.
      impl: see `oneshot.nn.backend.resolve`.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out]`.
    """
    if w.ndim == 2:
        return pointwise_conv(x, w, stride, impl)
    if resolve(impl) == "shift" and w.shape[2] <= _FEW:
        return _patches_conv(x, w, stride)
    pad = w.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        [(pad, pad), (pad, pad)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _patches_conv(x: Array, w: Array, stride: int) -> Array:
    return _patches_forward(x, w, stride)


def _patches_forward(x: Array, w: Array, stride: int) -> Array:
    kernel = w.shape[0]
    pad = kernel // 2
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    bottom, right = (height - 1) * stride + 1, (width - 1) * stride + 1
    patches = jnp.concatenate(
        [
            padded[:, i : i + bottom : stride, j : j + right : stride]
            for i in range(kernel)
            for j in range(kernel)
        ],
        axis=-1,
    )
    rows = patches.reshape(-1, patches.shape[-1]) @ w.reshape(-1, w.shape[-1])
    return rows.reshape(x.shape[0], height, width, w.shape[-1])


def _keep_arguments(
    x: Array, w: Array, stride: int
) -> tuple[Array, tuple[Array, Array]]:
    # Not the patches, which are kernel**2 times as large as the image.
    return _patches_forward(x, w, stride), (x, w)


def _patches_backward(
    stride: int, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    _, vjp = jax.vjp(partial(_patches_forward, stride=stride), *residuals)
    return vjp(g)


_patches_conv.defvjp(_keep_arguments, _patches_backward)
