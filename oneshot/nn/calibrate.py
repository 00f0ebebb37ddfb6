"""Recalibration on a CPU: one pass that normalises by the statistics of all images.

Statistics are those of the whole set, so the images cannot be scored a few at a time
as they can with frozen statistics. But they are those of one channel: the hidden
arrays of a block are computed a tile of channels at a time, for all images, and each
tile is added to the projection before the next is begun.

The operation has a derivative, for whoever trains with `momentum=0`: that of the
plain ones, which then run in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn.backend import resolve
from oneshot.nn.depthwise import depthwise_conv, depthwise_shift
from oneshot.nn.norm import (
    BatchNorm,
    along_channels,
    batch_norm_train,
    batch_statistics,
)
from oneshot.nn.pointwise import pointwise_conv
from oneshot.nn.tiles import whole_set_tile

Norms = tuple[BatchNorm, BatchNorm, BatchNorm]
Kernels = tuple[Array, Array, Array]
Vectors = tuple[Array, Array, Array]
Statistics = tuple[Array, Array]  # mean and biased variance
Static = tuple[tuple[float, ...], int, bool]  # epsilons, stride, shortcut


def calibrates(impl: str, norms: tuple[BatchNorm, ...], *arrays: Array) -> bool:
    """Whether norms leave exactly a batch's statistics, where that has its own way.

    Args:
      impl: see `oneshot.nn.backend.resolve`.
      norms: the block's.
      *arrays: its input and kernels.
    """
    return (
        resolve(impl) == "shift"
        and all(not n.use_running_average and n.momentum == 0.0 for n in norms)
        and all(a.dtype == jnp.float32 for a in arrays)
    )


def calibrated_inverted_residual(
    norms: Norms, x: Array, kernels: Kernels, stride: int
) -> Array:
    """Inverted residual with norms by their statistics, which they keep.

    Args:
      norms: after the expansion and the depthwise convolution, with a ReLU each, and
        after the projection, without.
      x: images, `[n, height, width, in]`.
      kernels: `[in, hidden]`, `[kernel, kernel, hidden]`, `[hidden, out]`.
      stride: of the depthwise convolution.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out]`, plus the input where it
      is of that shape: added here, it does not take another array of this size.
    """
    affines = [n.affine(w.shape[-1]) for n, w in zip(norms, kernels, strict=True)]
    scales, biases = zip(*affines, strict=True)
    epsilons = tuple(norm.epsilon for norm in norms)
    shortcut = stride == 1 and kernels[0].shape[0] == kernels[2].shape[1]
    results: tuple[Array, tuple[Statistics, ...]] = _inverted_residual(
        x, kernels, scales, biases, (epsilons, stride, shortcut)
    )
    y, statistics = results
    for norm, (mean, var) in zip(norms, statistics, strict=True):
        norm.update(mean, var)
    return y


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _inverted_residual(
    x: Array, kernels: Kernels, scales: Vectors, biases: Vectors, static: Static
) -> tuple[Array, tuple[Statistics, ...]]:
    epsilons, stride, shortcut = static
    expand, depthwise, project = kernels
    hidden, out = project.shape
    tile = whole_set_tile(hidden, depthwise.shape[0], x.size // x.shape[-1])
    vectors = [_tiles(v, tile) for v in (*scales[:2], *biases[:2])]
    # Each step takes the first tile of these and moves it to the end. An index that
    # is only known at run time would keep the depthwise loop from being vectorised.
    rotating = (_tiles(depthwise, tile), *vectors)
    products = _tiles(expand, tile), project.reshape(-1, tile, out)

    def add_tile(carry: tuple[Any, Array], weights: tuple[Array, Array]):
        rotating, y = carry
        (depthwise, *affines), rotated = _rotate(rotating)
        kernels = weights[0], depthwise, weights[1]
        part, statistics = _tile(x, kernels, affines, (epsilons[:2], stride))
        return (rotated, y + part), statistics

    height, width = (-(-size // stride) for size in x.shape[1:3])
    y = jnp.zeros((x.shape[0], height, width, out), x.dtype)
    (_, y), tiles = lax.scan(add_tile, (rotating, y), products)
    third = batch_statistics(y)
    y = _normalize(y, *third, scales[2], biases[2], epsilons[2], False)
    first, second = jax.tree.map(jnp.ravel, tiles)
    return y + x if shortcut else y, (first, second, third)


def _tile(
    x: Array,
    kernels: Kernels,
    affines: Sequence[Array],
    static: tuple[tuple[float, ...], int],
) -> tuple[Array, tuple[Statistics, Statistics]]:
    # What some hidden channels add to the projection, and their statistics.
    scale, second_scale, bias, second_bias = affines
    epsilons, stride = static
    y = pointwise_conv(x, kernels[0], impl="shift")
    first = batch_statistics(y)
    y = _normalize(y, *first, scale, bias, epsilons[0], True)
    y = depthwise_shift(y, kernels[1], stride)
    second = batch_statistics(y)
    y = _normalize(y, *second, second_scale, second_bias, epsilons[1], True)
    return pointwise_conv(y, kernels[2], impl="shift"), (first, second)


def _plain_inverted_residual(
    x: Array, kernels: Kernels, scales: Vectors, biases: Vectors, static: Static
) -> tuple[Array, tuple[Statistics, ...]]:
    epsilons, stride, shortcut = static
    convs = (pointwise_conv, partial(depthwise_conv, stride=stride), pointwise_conv)
    y, statistics = x, []
    for conv, w, scale, bias, epsilon, relu in zip(
        convs, kernels, scales, biases, epsilons, (True, True, False), strict=True
    ):
        results: tuple[Array, Array, Array] = batch_norm_train(
            conv(y, w), scale, bias, epsilon, relu
        )
        y, mean, var = results
        statistics.append((mean, var))
    return y + x if shortcut else y, tuple(statistics)


def _forward(*args):
    return jax.vjp(partial(_plain_inverted_residual, static=args[-1]), *args[:-1])


def _backward(static: Static, vjp, cotangents):
    del static
    return vjp(cotangents)


_inverted_residual.defvjp(_forward, _backward)


def _tiles(w: Array, tile: int) -> Array:
    # [..., channels] to [tiles, ..., tile]
    return jnp.moveaxis(w.reshape(*w.shape[:-1], -1, tile), -2, 0)


def _rotate(stacks: tuple[Array, ...]) -> tuple[list[Array], tuple[Array, ...]]:
    return [s[0] for s in stacks], tuple(jnp.roll(s, -1, 0) for s in stacks)


def _normalize(
    x: Array,
    mean: Array,
    var: Array,
    scale: Array,
    bias: Array,
    epsilon: float,
    relu: bool,
) -> Array:
    slope = scale * lax.rsqrt(var + epsilon)
    y = x * along_channels(slope, x) + along_channels(bias - mean * slope, x)
    return jnp.maximum(y, 0) if relu else y
