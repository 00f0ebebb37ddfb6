"""Scoring's convolutions: frozen statistics are folded into the weights.

With frozen statistics a norm is one multiplication and one addition a channel. The
multiplication scales the weights of the convolution before it; the addition and the
ReLU are taken by the loop that reads the convolution's output anyway. On a CPU each
pass over memory that is saved costs more than the arithmetic in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn.backend import resolve
from oneshot.nn.conv import convolve
from oneshot.nn.depthwise import depthwise_conv
from oneshot.nn.norm import BatchNorm, along_channels
from oneshot.nn.pointwise import pointwise_conv
from oneshot.nn.tiles import window_tile

Norms = tuple[BatchNorm, BatchNorm, BatchNorm]
Kernels = tuple[Array, Array, Array]


def folds(impl: str, norms: tuple[BatchNorm, ...], *arrays: Array) -> bool:
    """Whether norms are frozen, on a backend and in a precision for which folding is.

    Args:
      impl: see `oneshot.nn.backend.resolve`.
      norms: the block's.
      *arrays: its input and kernels.
    """
    return (
        resolve(impl) == "shift"
        and all(norm.use_running_average for norm in norms)
        and all(a.dtype == jnp.float32 for a in arrays)
    )


def frozen_affine(norm: BatchNorm, channels: int) -> tuple[Array, Array]:
    """What frozen statistics multiply the first `channels` by, and what they add."""
    scale, bias = norm.affine(channels)
    mean = lax.slice(norm.mean[...], (0,), (channels,))
    var = lax.slice(norm.var[...], (0,), (channels,))
    slope = scale * lax.rsqrt(var + norm.epsilon)
    return slope, bias - mean * slope


def frozen_conv(norm: BatchNorm, x: Array, w: Array, stride: int, impl: str) -> Array:
    """Convolution, frozen norm and its ReLU.

    Args:
      norm: with running averages.
      x: images, `[n, height, width, in]`.
      w: `[in, out]` or `[kernel, kernel, in, out]`.
      stride: of the convolution.
      impl: see `oneshot.nn.backend.resolve`.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out]`.
    """
    slope, shift = frozen_affine(norm, w.shape[-1])
    y = convolve(x, w * along_channels(slope, w), stride, impl)
    return _shifted(y, shift, norm.relu)


def frozen_inverted_residual(
    norms: Norms, x: Array, kernels: Kernels, stride: int, impl: str
) -> Array:
    """Inverted residual with frozen norms, a tile of hidden channels at a time.

    Args:
      norms: after the expansion, the depthwise convolution and the projection.
      x: images, `[n, height, width, in]`.
      kernels: `[in, hidden]`, `[kernel, kernel, hidden]`, `[hidden, out]`.
      stride: of the depthwise convolution.
      impl: see `oneshot.nn.backend.resolve`.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out]`, without the shortcut.
    """
    slopes, shifts = zip(
        *(frozen_affine(n, w.shape[-1]) for n, w in zip(norms, kernels, strict=True)),
        strict=True,
    )
    scaled = [w * along_channels(s, w) for w, s in zip(kernels, slopes, strict=True)]
    expand, depthwise, project = scaled
    tiles = _tiles(expand.shape[1], window_tile(expand.shape[1], depthwise.shape[0]))
    y = None
    for first, last in tiles:
        hidden = pointwise_conv(x, _columns(expand, first, last), impl=impl)
        hidden = _shifted(hidden, shifts[0][first:last], norms[0].relu)
        kernel = _columns(depthwise, first, last)
        hidden = depthwise_conv(hidden, kernel, stride, impl)
        hidden = _shifted(hidden, shifts[1][first:last], norms[1].relu)
        part = pointwise_conv(hidden, project[first:last], impl=impl)
        y = part if y is None else y + part
    assert y is not None
    return _shifted(y, shifts[2], norms[2].relu)


def _tiles(channels: int, tile: int) -> Iterator[tuple[int, int]]:
    return ((first, first + tile) for first in range(0, channels, tile))


def _columns(w: Array, first: int, last: int) -> Array:
    return lax.slice_in_dim(w, first, last, axis=w.ndim - 1)


def _shifted(y: Array, shift: Array, relu: bool) -> Array:
    y = y + along_channels(shift, y)
    return jnp.maximum(y, 0) if relu else y
