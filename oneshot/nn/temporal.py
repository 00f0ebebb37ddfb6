"""Depthwise convolution over time, on the CPU as a sum of shifted products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn.backend import resolve


def depthwise_conv1d(x: Array, w: Array, impl: str = "auto") -> Array:
    """Convolve each channel over time with its own kernel, padded by `kernel // 2`.

    Args:
      x: sequences, `[n, time, channels]`.
      w: weights, `[kernel, channels]`, with an odd kernel.
      impl: see `oneshot.nn.backend.resolve`.

    Returns:
      `[n, time, channels]`.

    Raises:
      ValueError: if the shapes do not fit or the kernel is even.
    """
    if x.ndim != 3 or w.ndim != 2 or x.shape[-1] != w.shape[-1] or w.shape[0] % 2 == 0:
        raise ValueError(
            "depthwise_conv1d takes sequences [n, time, channels] and weights "
            f"[kernel, channels] with an odd kernel, but x has shape {x.shape} and w "
            f"has shape {w.shape}."
        )
    if resolve(impl) == "shift":
        return _by_shifts(x, w)
    pad = w.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        w[:, None],
        (1,),
        [(pad, pad)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=x.shape[-1],
    )


# Its own derivative, since autodiff would keep an array for each tap of the kernel.
@jax.custom_vjp
def _by_shifts(x: Array, w: Array) -> Array:
    total = jnp.zeros((), x.dtype)
    for i, shifted in enumerate(_shifts(x, w.shape[0])):
        total = total + shifted * w[i][None, None]
    return total


def _shifts(x: Array, kernel: int) -> list[Array]:
    pad, time = kernel // 2, x.shape[1]
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0)))
    return [lax.slice_in_dim(padded, i, i + time, axis=1) for i in range(kernel)]


def _forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _by_shifts(x, w), (x, w)


def _backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = residuals
    # One reduction with an output for each tap reads the arrays once.
    products = [shifted * g for shifted in _shifts(x, w.shape[0])]
    zeros = [jnp.zeros((), g.dtype)] * len(products)
    sums = lax.reduce(products, zeros, _add_all, dimensions=(0, 1))
    return _by_shifts(g, w[::-1]), jnp.stack(sums)


def _add_all(one: list[Array], other: list[Array]) -> list[Array]:
    return [a + b for a, b in zip(one, other, strict=True)]


_by_shifts.defvjp(_forward, _backward)
