"""Pointwise (1x1) convolution as one matrix product."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn.backend import resolve


def pointwise_conv(x: Array, w: Array, stride: int = 1, impl: str = "auto") -> Array:
    """Convolve with a 1x1 kernel.

    Args:
      x: images, `[n, height, width, in]`.
      w: weights, `[in, out]`.
      stride: step in both directions, 1 or more.
      impl: see `oneshot.nn.backend.resolve`.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out]`.

    Raises:
      ValueError: if the shapes do not fit.
    """
    if x.ndim != 4 or w.ndim != 2 or x.shape[-1] != w.shape[0]:
        raise ValueError(
            "pointwise_conv takes images [n, height, width, in] and weights "
            f"[in, out], but x has shape {x.shape} and w has shape {w.shape}."
        )
    impl = resolve(impl)
    if stride > 1 and impl == "shift":
        # Sliced here, so that what is kept for the backward is the slice.
        x, stride = x[:, ::stride, ::stride], 1
    return _pointwise(x, w, stride, impl)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _pointwise(x: Array, w: Array, stride: int, impl: str) -> Array:
    return pointwise_forward(x, w, stride, impl)


def pointwise_forward(x: Array, w: Array, stride: int, impl: str) -> Array:
    """The product itself, differentiable by JAX; `impl` is resolved."""
    if impl == "lax":
        return lax.conv_general_dilated(
            x,
            w[None, None],
            (stride, stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    if stride > 1:
        x = x[:, ::stride, ::stride]
    # Two axes, not four: XLA:CPU's dot over four takes three times as long.
    return (x.reshape(-1, x.shape[-1]) @ w).reshape(*x.shape[:-1], w.shape[1])


def pointwise_backward(
    x: Array, w: Array, g: Array, stride: int, impl: str
) -> tuple[Array, Array]:
    """Gradients for `x` and `w` from the output's cotangent `g`."""
    if impl == "lax":
        _, vjp = jax.vjp(partial(pointwise_forward, stride=stride, impl=impl), x, w)
        return vjp(g)
    strided = x[:, ::stride, ::stride] if stride > 1 else x
    rows_x = strided.reshape(-1, x.shape[-1])
    rows_g = g.reshape(-1, g.shape[-1])
    grad_w = lax.dot_general(rows_x, rows_g, (((0,), (0,)), ((), ())))
    grad_x = lax.dot_general(rows_g, w, (((1,), (1,)), ((), ())))
    grad_x = grad_x.reshape(strided.shape)
    if stride > 1:
        # Interior padding puts the rows and columns back that the slice left out.
        gaps = [
            (0, size - ((kept - 1) * stride + 1), stride - 1)
            for size, kept in zip(x.shape[1:3], strided.shape[1:3], strict=True)
        ]
        zero = jnp.zeros((), grad_x.dtype)
        grad_x = lax.pad(grad_x, zero, [(0, 0, 0), *gaps, (0, 0, 0)])
    return grad_x, grad_w


def _forward(
    x: Array, w: Array, stride: int, impl: str
) -> tuple[Array, tuple[Array, Array]]:
    # The arrays as they came, not reshaped: the engine passes an input or a weight
    # among the residuals by reference, a reshaped one would be copied.
    return pointwise_forward(x, w, stride, impl), (x, w)


def _backward(
    stride: int, impl: str, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, w = residuals
    return pointwise_backward(x, w, g, stride, impl)


_pointwise.defvjp(_forward, _backward)
