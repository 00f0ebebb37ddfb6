"""An inverted residual's three convolutions and norms, as one operation for training.

All that happens to a hidden channel between the first product and the last happens to
it alone, BatchNorm's statistics over the whole batch included. So the operation works
through the hidden channels a few at a time, a *slab*, and a slab stays in a CPU's
caches from one product to the other. Nothing of the hidden size is kept: the backward
computes each slab again. Measured in docs/design/0003.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn import slabs
from oneshot.nn.norm import (
    Stats,
    batch_statistics,
    finish_gradients,
    masked_gradient,
    normalize,
)
from oneshot.nn.slab_weights import (
    Slab,
    Weights,
    cut,
    join,
    lane_slabs,
    row_slabs,
    slab_width,
)

Static = tuple[int, tuple[float, float, float]]  # stride, epsilon of each norm
Images = tuple[int, ...]  # number, height, width
_PIXELS = (1, 2, 3)  # axes of a slab over which a norm takes its statistics


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def inverted_residual_train(
    x: Array, weights: Weights, static: Static
) -> tuple[Array, tuple[Stats, Stats, Stats]]:
    """Expand, norm, ReLU, depthwise convolution, norm, ReLU, project, norm.

    Args:
      x: images, `[n, height, width, in]` in float32.
      weights: of the convolutions and norms, in float32.
      static: the stride and each norm's epsilon.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out]`, and mean and biased
      variance of the batch for each norm.
    """
    return _forward(x, weights, static)[0]


def _forward(x: Array, weights: Weights, static: Static):
    stride, (epsilon1, epsilon2, epsilon3) = static
    rows, mean_x = _centred(x)
    width = slab_width(weights.expand.shape[1], rows.shape[0])

    def step(y: Array, w: Slab) -> tuple[Array, tuple[Array, ...]]:
        # `rows` has mean 0, and so has their product.
        expanded = rows @ w.expand
        var1 = jnp.square(expanded).mean(0, keepdims=True)
        padded = _padded(expanded, lax.rsqrt(var1 + epsilon1), w, x.shape[:3])
        z, level = slabs.convolve(padded, w.depthwise, stride)
        rest = z.mean(_PIXELS, keepdims=True)
        # Not of large numbers: `convolve` has taken most of the mean away.
        var2 = jnp.square(z).mean(_PIXELS, keepdims=True) - jnp.square(rest)
        slope = w.scale2 * lax.rsqrt(jnp.maximum(var2, 0) + epsilon2)
        hidden = jnp.maximum(z * slope + (w.bias2 - rest * slope), 0)
        y = y + slabs.to_rows(hidden) @ w.project
        return y, (mean_x @ w.expand, var1, level + rest, jnp.maximum(var2, 0))

    out = x.shape[0], *slabs.out_size(x.shape[1:3], stride), weights.project.shape[1]
    start = jnp.zeros((out[0] * out[1] * out[2], out[3]), x.dtype)
    projected, found = _scan(step, start, cut(weights, width))
    mean1, var1, mean2, var2 = (each.reshape(-1) for each in found)
    projected = projected.reshape(out)
    mean3, var3 = batch_statistics(projected)
    norm3 = mean3, lax.rsqrt(var3 + epsilon3), weights.scale3, weights.bias3
    y = normalize(projected, *norm3, relu=False)
    stats = (mean1, var1), (mean2, var2), (mean3, var3)
    return (y, stats), (x, weights, projected, stats)


class _Norms(NamedTuple):
    """What the backward knows of both hidden norms, but for scale and bias."""

    rstd1: Array
    grads1: Stats
    mean2: Array
    rstd2: Array
    grads2: Stats


def _backward(static: Static, residuals: tuple, cotangents: tuple):
    stride, (epsilon1, epsilon2, epsilon3) = static
    x, weights, projected, stats = residuals
    (_, var1), (mean2, var2), (mean3, var3) = stats
    g, (grads1, grads2, grads3) = cotangents
    norm3 = mean3, lax.rsqrt(var3 + epsilon3), weights.scale3, weights.bias3
    masked = masked_gradient((projected, *norm3), g, False, (0, 1, 2))
    g, *grads_norm3 = finish_gradients((projected, *norm3), masked, *grads3)
    g = g.reshape(-1, g.shape[-1])

    rows, mean_x = _centred(x)
    width = slab_width(weights.expand.shape[1], rows.shape[0])

    def step(grad_x: Array, each: tuple[Slab, _Norms]):
        w, norms = each
        expanded = rows @ w.expand
        padded = _padded(expanded, norms.rstd1, w, x.shape[:3])
        g_hidden, *own = _project_backward(padded, g, w, norms, stride)
        g_hidden = slabs.input_gradient(w.depthwise, g_hidden, stride, x.shape[:3])
        alive = slabs.inside(padded, w.depthwise.shape[1] // 2) > 0
        g_hidden = slabs.to_rows(jnp.where(alive, g_hidden, 0))
        g_hidden, *norm1 = _norm_backward(expanded, g_hidden, w, norms)
        grad_expand = rows.T @ g_hidden + mean_x.T @ norms.grads1[0]
        return grad_x + g_hidden @ w.expand.T, Slab(grad_expand, *norm1, *own)

    norms = _Norms(
        row_slabs(lax.rsqrt(var1 + epsilon1), width),
        (row_slabs(grads1[0], width), row_slabs(grads1[1], width)),
        lane_slabs(mean2, width),
        lane_slabs(lax.rsqrt(var2 + epsilon2), width),
        (lane_slabs(grads2[0], width), lane_slabs(grads2[1], width)),
    )
    each = cut(weights, width), norms
    grad_x, found = _scan(step, jnp.zeros_like(rows), each)
    return grad_x.reshape(x.shape), join(found, *grads_norm3)


def _project_backward(
    padded: Array, g: Array, w: Slab, norms: _Norms, stride: int
) -> tuple[Array, ...]:
    """From the last product's cotangent to the depthwise convolution's, padded.

    Returns:
      It, and gradients for the slab's `depthwise`, `scale2`, `bias2`, `project`.
    """
    z, _ = slabs.convolve(padded, w.depthwise, stride, norms.mean2)
    slope = w.scale2 * norms.rstd2
    hidden = jnp.maximum(z * slope + w.bias2, 0)
    grad_project = slabs.to_rows(hidden).T @ g
    g = slabs.to_slab(g @ w.project.T, z.shape[1:4], z.shape[-1])
    g = jnp.where(hidden > 0, g, 0)
    grad_bias = g.sum(_PIXELS, keepdims=True)
    grad_scale = (g * z).sum(_PIXELS, keepdims=True) * norms.rstd2
    grad_mean, grad_var = norms.grads2
    num = z.shape[1] * z.shape[2] * z.shape[3]
    tilt = (2 * grad_var - slope * norms.rstd2 * grad_scale) / num
    shift = (grad_mean - slope * grad_bias) / num
    edges = slabs.reach(w.depthwise.shape[1], stride)
    g = slabs.pad_slab(slope * g + tilt * z + shift, *edges)
    grad_depthwise = slabs.weight_gradient(padded, g, w.depthwise.shape[1], stride)
    return g, grad_depthwise, grad_scale, grad_bias, grad_project


def _norm_backward(
    expanded: Array, g: Array, w: Slab, norms: _Norms
) -> tuple[Array, Array, Array]:
    """From the first norm's cotangent to its input's and its own gradients."""
    slope = w.scale1 * norms.rstd1
    grad_bias = g.sum(0, keepdims=True)
    grad_scale = (g * expanded).sum(0, keepdims=True) * norms.rstd1
    grad_mean, grad_var = norms.grads1
    tilt = (2 * grad_var - slope * norms.rstd1 * grad_scale) / g.shape[0]
    shift = (grad_mean - slope * grad_bias) / g.shape[0]
    return slope * g + tilt * expanded + shift, grad_scale, grad_bias


def _padded(expanded: Array, rstd: Array, w: Slab, images: Images) -> Array:
    """Norm and ReLU of a slab's rows, as padded images."""
    kernel, lanes = w.depthwise.shape[1], w.depthwise.shape[-1]
    rows = jnp.maximum(expanded * (w.scale1 * rstd) + w.bias1, 0)
    return slabs.pad_slab(slabs.to_slab(rows, images, lanes), kernel // 2, kernel // 2)


def _centred(x: Array) -> tuple[Array, Array]:
    rows = x.reshape(-1, x.shape[-1])
    mean = rows.mean(0, keepdims=True)
    return rows - mean, mean


def _scan(step: Callable, carry: Any, slabs: Any) -> tuple[Any, Any]:
    if jax.tree.leaves(slabs)[0].shape[0] > 1:
        return lax.scan(step, carry, slabs)
    # One slab needs no loop.
    carry, found = step(carry, jax.tree.map(lambda leaf: leaf[0], slabs))
    return carry, jax.tree.map(lambda leaf: leaf[None], found)


inverted_residual_train.defvjp(_forward, _backward)
