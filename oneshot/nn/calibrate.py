"""Recalibration on a CPU: one pass that normalises by the statistics of all images.

Statistics are those of the whole set, so the images cannot be scored a few at a time
as they can with frozen statistics. But they are those of one channel: the hidden
array of a block is computed a tile of channels at a time, for all images; each tile
goes through the norm after the depthwise convolution and is added to the projection
before the next is begun. Only that tile is ever stored.

The operations have a derivative, for whoever trains with `momentum=0`: that of the
plain ones, which then run in their place.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn.backend import resolve
from oneshot.nn.conv import convolve
from oneshot.nn.depthwise import depthwise_conv, depthwise_shift
from oneshot.nn.moments import Moments, add_group, gather, no_moments
from oneshot.nn.norm import BatchNorm, batch_norm_train
from oneshot.nn.pointwise import pointwise_conv
from oneshot.nn.tiles import image_group, stored_tile

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


def calibrated_conv(
    norm: BatchNorm, x: Array, w: Array, stride: int, impl: str
) -> Array:
    """Convolution, and a norm (with its ReLU) by its statistics, which are kept.

    Args:
      norm: keeps the statistics.
      x: images, `[n, height, width, in]`.
      w: `[in, out]` or `[kernel, kernel, in, out]`.
      stride: of the convolution.
      impl: see `oneshot.nn.backend.resolve`.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out]`.
    """
    scale, bias = norm.affine(w.shape[-1])
    static = (norm.epsilon, norm.relu, stride, impl)
    results: tuple[Array, Array, Array] = _conv_norm(x, w, scale, bias, static)
    y, mean, var = results
    norm.update(mean, var)
    return y


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _conv_norm(
    x: Array, w: Array, scale: Array, bias: Array, static: tuple[float, bool, int, str]
) -> tuple[Array, Array, Array]:
    epsilon, relu, stride, impl = static
    out = jax.eval_shape(lambda x: convolve(x, w, stride, impl), x)
    images = _grouped(x, image_group(x.shape[0], out.size // x.shape[0]))
    group, num_groups = images.shape[:2]

    def convolved(i: Array, carry: tuple[Array, Moments]) -> tuple[Array, Moments]:
        y, moments = carry
        piece = convolve(_take(images, i), w, stride, impl)
        return _put(y, piece, i), add_group(moments, i, _rows(piece))

    y = lax.empty((group, num_groups, *out.shape[1:]), x.dtype)
    start = y, no_moments(out.shape[-1])
    y, moments = lax.fori_loop(0, num_groups, convolved, start)
    mean, var = moments.mean, moments.squares / (out.size // out.shape[-1])
    affine = _affine(mean, var, scale, bias, epsilon)

    def normalized(i: Array, y: Array) -> Array:
        return _put(y, _normalized(_take(y, i), affine, relu), i)

    return lax.fori_loop(0, num_groups, normalized, y).reshape(out.shape), mean, var


def _plain_conv_norm(
    x: Array, w: Array, scale: Array, bias: Array, static: tuple[float, bool, int, str]
) -> tuple[Array, Array, Array]:
    epsilon, relu, stride, impl = static
    return batch_norm_train(convolve(x, w, stride, impl), scale, bias, epsilon, relu)


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
    n, height, width, _ = x.shape
    kernel, _, hidden = kernels[1].shape
    out = -(-height // stride), -(-width // stride)
    tile = stored_tile(hidden, kernel, n * out[0] * out[1])
    images = _grouped(x, image_group(n, height * width * tile))
    group, num_groups = images.shape[:2]

    first = gather(num_groups, lambda i: _rows(_take(images, i)) @ kernels[0])
    slope, shift = _affine(*first, scales[0], biases[0], epsilons[0])

    def add_tile(carry: tuple[Array, Array], part: tuple[Array, ...]):
        expand, slope, shift, depthwise, scale, bias, project = part
        weights = (expand, slope, shift, depthwise)
        stored, second = _depthwise_of_tile(images, carry[0], weights, stride)
        affine = _affine(*second, scale, bias, epsilons[1])
        y = _add_projection(stored, carry[1], affine, project)
        return (stored, y), second

    stored = lax.empty((group, num_groups, *out, tile), x.dtype)
    y = jnp.zeros((group, num_groups, *out, kernels[2].shape[1]), x.dtype)
    columns = (kernels[0], slope, shift, kernels[1], scales[1], biases[1])
    parts = (
        *(_tiles_of(w, tile) for w in columns),
        kernels[2].reshape(-1, tile, y.shape[-1]),
    )
    (_, y), second = lax.scan(add_tile, (stored, y), parts)

    third = gather(num_groups, lambda i: _rows(_take(y, i)))
    affine = _affine(*third, scales[2], biases[2], epsilons[2])

    def normalized(i: Array, y: Array) -> Array:
        piece = _normalized(_take(y, i), affine, False)
        return _put(y, piece + _take(images, i) if shortcut else piece, i)

    y = lax.fori_loop(0, num_groups, normalized, y).reshape(n, *out, -1)
    return y, (first, (second[0].reshape(-1), second[1].reshape(-1)), third)


def _depthwise_of_tile(
    images: Array, stored: Array, weights: tuple[Array, ...], stride: int
) -> tuple[Array, Statistics]:
    expand, slope, shift, depthwise = weights
    group, num_groups, height, width, tile = stored.shape

    def step(i: Array, carry: tuple[Array, Moments]) -> tuple[Array, Moments]:
        stored, moments = carry
        piece = pointwise_conv(_take(images, i), expand, impl="shift")
        piece = _normalized(piece, (slope, shift), True)
        piece = depthwise_shift(piece, depthwise, stride)
        return _put(stored, piece, i), add_group(moments, i, _rows(piece))

    start = stored, no_moments(tile)
    stored, moments = lax.fori_loop(0, num_groups, step, start)
    count = group * num_groups * height * width
    return stored, (moments.mean, moments.squares / count)


def _add_projection(
    stored: Array, y: Array, affine: tuple[Array, Array], project: Array
) -> Array:
    def step(i: Array, y: Array) -> Array:
        piece = _normalized(_take(stored, i), affine, True)
        piece = pointwise_conv(piece, project, impl="shift")
        return _put(y, _take(y, i) + piece, i)

    return lax.fori_loop(0, stored.shape[1], step, y)


def _plain_inverted_residual(
    x: Array, kernels: Kernels, scales: Vectors, biases: Vectors, static: Static
) -> tuple[Array, tuple[Statistics, ...]]:
    epsilons, stride, shortcut = static
    convs = (pointwise_conv, partial(depthwise_conv, stride=stride), pointwise_conv)
    y, statistics = x, []
    for conv, w, scale, bias, epsilon, relu in zip(
        convs, kernels, scales, biases, epsilons, (True, True, False), strict=True
    ):
        y, mean, var = batch_norm_train(conv(y, w), scale, bias, epsilon, relu)
        statistics.append((mean, var))
    return y + x if shortcut else y, tuple(statistics)


def _derivative_of(plain):
    """The forward and backward of a custom derivative that is the one of `plain`."""

    def forward(*args):
        return jax.vjp(partial(plain, static=args[-1]), *args[:-1])

    def backward(static, vjp, cotangents):
        del static
        return vjp(cotangents)

    return forward, backward


_conv_norm.defvjp(*_derivative_of(_plain_conv_norm))
_inverted_residual.defvjp(*_derivative_of(_plain_inverted_residual))


def _grouped(x: Array, group: int) -> Array:
    # Group i is images i, i + n / group, ...: a batch that is sharded over devices
    # stays so, and each group has images of every device.
    return x.reshape(group, x.shape[0] // group, *x.shape[1:])


def _take(stack: Array, i: Array) -> Array:
    return lax.dynamic_index_in_dim(stack, i, 1, keepdims=False)


def _put(stack: Array, piece: Array, i: Array) -> Array:
    return lax.dynamic_update_index_in_dim(stack, piece, i, 1)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _tiles_of(w: Array, tile: int) -> Array:
    # [..., channels] to [tiles, ..., tile]
    return jnp.moveaxis(w.reshape(*w.shape[:-1], -1, tile), -2, 0)


def _affine(
    mean: Array, var: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, Array]:
    slope = scale * lax.rsqrt(var + epsilon)
    return slope, bias - mean * slope


def _normalized(x: Array, affine: tuple[Array, Array], relu: bool) -> Array:
    slope, shift = (v.reshape((1,) * (x.ndim - 1) + v.shape) for v in affine)
    y = x * slope + shift
    return jnp.maximum(y, 0) if relu else y
