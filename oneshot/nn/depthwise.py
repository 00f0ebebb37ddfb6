"""Depthwise convolution, on the CPU as a sum of shifted products."""

from __future__ import annotations

import functools
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn.backend import resolve
from oneshot.nn.groups import over_groups

# The weight gradient goes by rows from this width and number of elements on.
_WIDE, _LARGE = 8, 1 << 17


def depthwise_conv(x: Array, w: Array, stride: int = 1, impl: str = "auto") -> Array:
    """Convolve each channel with its own kernel, padded by `kernel // 2` zeros.

    Args:
      x: images, `[n, height, width, channels]`.
      w: weights, `[kernel, kernel, channels]`, with an odd kernel.
      stride: step in both directions, 1 or more.
      impl: see `oneshot.nn.backend.resolve`.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), channels]`.

    Raises:
      ValueError: if the shapes do not fit or the kernel is even.
    """
    if x.ndim != 4 or w.ndim != 3 or x.shape[-1] != w.shape[-1]:
        raise ValueError(
            "depthwise_conv takes images [n, height, width, channels] and weights "
            f"[kernel, kernel, channels], but x has shape {x.shape} and w has shape "
            f"{w.shape}."
        )
    if w.shape[0] != w.shape[1] or w.shape[0] % 2 == 0:
        raise ValueError(
            f"depthwise_conv takes square kernels of odd size, but w has shape "
            f"{w.shape}. With an even size, padding by kernel // 2 would change the "
            "size of the output."
        )
    return _depthwise(x, w, stride, resolve(impl))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, w: Array, stride: int, impl: str) -> Array:
    return depthwise_forward(x, w, stride, impl)


def depthwise_forward(x: Array, w: Array, stride: int, impl: str) -> Array:
    """The convolution itself; `impl` is resolved."""
    if impl == "lax":
        pad = w.shape[0] // 2
        return lax.conv_general_dilated(
            x,
            w[:, :, None],
            (stride, stride),
            [(pad, pad), (pad, pad)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )
    (y,), _ = over_groups(lambda x: ((depthwise_shift(x, w, stride),), ()), x)
    return y


def depthwise_backward(
    x: Array, w: Array, g: Array, stride: int, impl: str
) -> tuple[Array, Array]:
    """Gradients for `x` and `w` from the output's cotangent `g`."""
    if impl == "lax":
        _, vjp = jax.vjp(partial(depthwise_forward, stride=stride, impl=impl), x, w)
        return vjp(g)

    def piece(x: Array, g: Array) -> tuple[tuple[Array], tuple[Array]]:
        grad_x, grad_w = depthwise_shift_backward(x, w, g, stride)
        return (grad_x,), (grad_w,)

    (grad_x,), (grad_w,) = over_groups(piece, x, g)
    return grad_x, grad_w


def depthwise_shift(x: Array, w: Array, stride: int) -> Array:
    """The convolution as a sum of shifted products: one fused loop on a CPU."""
    pad = w.shape[0] // 2
    padded = _pad(x, (pad, pad, 0), (pad, pad, 0))
    out = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    return _shift_and_add(padded, w, out, stride)


def depthwise_shift_backward(
    x: Array, w: Array, g: Array, stride: int
) -> tuple[Array, Array]:
    """Gradients for `x` and, for each image apart, `w`: `[n, kernel, kernel, c]`."""
    kernel = w.shape[0]
    pad = kernel // 2
    padded = _pad(x, (pad, pad, 0), (pad, pad, 0))
    by_rows = g.shape[2] >= _WIDE and x.size >= _LARGE
    weight_gradient = _gradient_by_rows if by_rows else _gradient_by_sums
    grad_w = weight_gradient(padded, g, kernel, stride)
    return _input_gradient(x, w, g, stride), grad_w


def _input_gradient(x: Array, w: Array, g: Array, stride: int) -> Array:
    # The flipped kernel over the cotangent, spread out by the stride.
    kernel = w.shape[0]
    low = kernel - 1 - kernel // 2
    edges = [
        (low, size + kernel - 2 - low - (kept - 1) * stride, stride - 1)
        for size, kept in zip(x.shape[1:3], g.shape[1:3], strict=True)
    ]
    _, height, width, _ = x.shape
    return _shift_and_add(_pad(g, *edges), w[::-1, ::-1], (height, width), 1)


def _gradient_by_sums(padded: Array, g: Array, kernel: int, stride: int) -> Array:
    # One reduction with an output for each weight: it reads the arrays once, where
    # kernel**2 reductions take ten times as long. It does not vectorise.
    _, height, width, _ = g.shape
    products = [
        _shifted(padded, i, j, (height, width), stride) * g
        for i in range(kernel)
        for j in range(kernel)
    ]
    zeros = [jnp.zeros((), g.dtype)] * len(products)
    sums = lax.reduce(products, zeros, _add_all, dimensions=(1, 2))
    return jnp.stack(sums, 1).reshape(g.shape[0], kernel, kernel, g.shape[-1])


def _gradient_by_rows(padded: Array, g: Array, kernel: int, stride: int) -> Array:
    # For each pixel of the cotangent, the window that it saw. Additions written out
    # over a row become one vectorised loop over the channels, without a reduction.
    n, height, width, channels = g.shape

    def step(row: Array, total: Array) -> Array:
        rows = lax.dynamic_slice_in_dim(padded, row * stride, kernel, 1)
        pixels = lax.dynamic_slice_in_dim(g, row, 1, 1)
        for j in range(width):
            left = j * stride
            window = lax.slice_in_dim(rows, left, left + kernel, axis=2)
            total = total + window * lax.slice_in_dim(pixels, j, j + 1, axis=2)
        return total

    start = jnp.zeros((n, kernel, kernel, channels), g.dtype)
    return lax.fori_loop(0, height, step, start)


def _add_all(left: list[Array], right: list[Array]) -> list[Array]:
    return [a + b for a, b in zip(left, right, strict=True)]


def _shift_and_add(padded: Array, w: Array, out: tuple[int, int], stride: int) -> Array:
    kernel = w.shape[0]
    terms = (
        _shifted(padded, i, j, out, stride) * w[i : i + 1, j : j + 1][None]
        for i in range(kernel)
        for j in range(kernel)
    )
    return functools.reduce(jnp.add, terms)


def _shifted(padded: Array, i: int, j: int, out: tuple[int, int], stride: int) -> Array:
    height, width = out
    return lax.slice(
        padded,
        (0, i, j, 0),
        (
            padded.shape[0],
            i + (height - 1) * stride + 1,
            j + (width - 1) * stride + 1,
            padded.shape[3],
        ),
        (1, stride, stride, 1),
    )


def _pad(x: Array, rows: tuple[int, int, int], columns: tuple[int, int, int]) -> Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), rows, columns, (0, 0, 0)])


def _forward(
    x: Array, w: Array, stride: int, impl: str
) -> tuple[Array, tuple[Array, Array]]:
    return depthwise_forward(x, w, stride, impl), (x, w)


def _backward(
    stride: int, impl: str, residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, w = residuals
    return depthwise_backward(x, w, g, stride, impl)


_depthwise.defvjp(_forward, _backward)
