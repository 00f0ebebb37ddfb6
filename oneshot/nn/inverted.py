"""An inverted residual's three convolutions and norms, as one operation for training.

All that happens to a hidden channel between the first product and the last happens to
it alone, BatchNorm's statistics over the whole batch included. So the operation works
through the hidden channels a few at a time, a *slab*, and a slab stays in a CPU's
caches from one product to the other. Nothing of the hidden size is kept: the backward
computes each slab again. Measured in docs/design/0003.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn import slabs
from oneshot.nn.norm import batch_statistics, finish_gradients, masked_gradient, normalize

# Bytes of a slab, and the fewest channels of one: products of fewer are slow.
import os
_SLAB_BYTES, _FEWEST = int(os.environ.get("SB","2097152")), int(os.environ.get("FW","16"))


class Weights(NamedTuple):
    """Arrays of the block; a gradient or the slabs of each have the same fields.

    Attributes:
      expand: `[in, hidden]`.
      scale1: `[hidden]`, of the norm after `expand`.
      bias1: `[hidden]`.
      depthwise: `[kernel, kernel, hidden]`.
      scale2: `[hidden]`, of the norm after `depthwise`.
      bias2: `[hidden]`.
      project: `[hidden, out]`.
      scale3: `[out]`, of the norm after `project`.
      bias3: `[out]`.
    """

    expand: Array
    scale1: Array
    bias1: Array
    depthwise: Array
    scale2: Array
    bias2: Array
    project: Array
    scale3: Array
    bias3: Array


Stats = tuple[tuple[Array, Array], tuple[Array, Array], tuple[Array, Array]]
Static = tuple[int, tuple[float, float, float]]  # stride, epsilon of each norm


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def inverted_residual_train(
    x: Array, weights: Weights, static: Static
) -> tuple[Array, Stats]:
    """Expand, norm, ReLU, depthwise convolution, norm, ReLU, project, norm.

    Args:
      x: images, `[n, height, width, in]` in float32.
      weights: of the convolutions and norms.
      static: the stride and each norm's epsilon.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out]`, and mean and biased
      variance of the batch for each norm.
    """
    return _forward(x, weights, static)[0]


class _Slab(NamedTuple):
    expand: Array  # [in, c]
    scale1: Array  # [1, c]
    bias1: Array
    depthwise: Array  # [c / lanes, kernel, kernel, lanes]
    scale2: Array
    bias2: Array
    project: Array  # [c, out]


def _cut(w: Weights, width: int) -> _Slab:
    """Each weight's slabs along a first axis."""
    inputs, hidden = w.expand.shape
    count, lanes, kernel = hidden // width, _lanes(width), w.depthwise.shape[0]

    def vector(v: Array) -> Array:
        return v.reshape(count, 1, width)

    return _Slab(
        w.expand.reshape(inputs, count, width).transpose(1, 0, 2),
        vector(w.scale1),
        vector(w.bias1),
        w.depthwise.reshape(kernel, kernel, count, width // lanes, lanes).transpose(
            2, 3, 0, 1, 4
        ),
        vector(w.scale2),
        vector(w.bias2),
        w.project.reshape(count, width, -1),
    )


def _lanes(width: int) -> int:
    return width if width % slabs.LANES else slabs.LANES


def slab_width(hidden: int, num_rows: int) -> int:
    """The largest divisor of `hidden` whose slab stays in the caches."""
    most = max(_SLAB_BYTES // (4 * num_rows), _FEWEST)
    fit = [d for d in range(1, hidden + 1) if hidden % d == 0 and d <= most]
    even = [d for d in fit if d % slabs.LANES == 0]
    return max(even or fit)


def _scan(step, carry, xs):
    # One slab needs no loop.
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return lax.scan(step, carry, xs)
    carry, ys = step(carry, jax.tree.map(lambda a: a[0], xs))
    return carry, jax.tree.map(lambda a: a[None], ys)


def _centred(x: Array) -> tuple[Array, Array]:
    rows = x.reshape(-1, x.shape[-1])
    mean = rows.mean(0, keepdims=True)
    return rows - mean, mean


def _row_statistics(rows: Array) -> tuple[Array, Array]:
    mean = rows.mean(0, keepdims=True)
    return mean, jnp.square(rows - mean).mean(0, keepdims=True)


def _expanded(xc: Array, w: _Slab, slope: Array, images: tuple[int, int, int]) -> Array:
    """Padded hidden images of a slab, after norm and ReLU."""
    rows = jnp.maximum(xc @ (w.expand * slope) + w.bias1, 0)
    pad = w.depthwise.shape[1] // 2
    slab = slabs.to_slab(rows, images, w.depthwise.shape[-1])
    return slabs.pad_slab(slab, pad, pad)


def _vector(row: Array, like: Array) -> Array:
    """`[1, c]` as `[b, 1, 1, 1, lanes]`."""
    return row.reshape(like.shape[0], 1, 1, 1, like.shape[-1])


def _row(vector: Array) -> Array:
    return vector.reshape(1, -1)


def _forward(x: Array, weights: Weights, static: Static):
    stride, (epsilon1, epsilon2, epsilon3) = static
    images = x.shape[:3]
    xc, mean_x = _centred(x)
    width = slab_width(weights.expand.shape[1], xc.shape[0])
    size = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    num_out = x.shape[0] * size[0] * size[1]

    def step(y, w: _Slab):
        hidden = xc @ w.expand
        var1 = jnp.square(hidden).mean(0, keepdims=True)
        slope = w.scale1 * lax.rsqrt(var1 + epsilon1)
        hidden = jnp.maximum(hidden * slope + w.bias1, 0)
        pad, lanes = w.depthwise.shape[1] // 2, w.depthwise.shape[-1]
        padded = slabs.pad_slab(slabs.to_slab(hidden, images, lanes), pad, pad)
        d, level = slabs.convolve(padded, w.depthwise, stride)
        rest = d.mean((1, 2, 3), keepdims=True)
        var2 = jnp.square(d).mean((1, 2, 3), keepdims=True) - jnp.square(rest)
        var2 = jnp.maximum(var2, 0)
        slope = _vector(w.scale2, d) * lax.rsqrt(var2 + epsilon2)
        mean2 = level + rest
        rows = slabs.to_rows(
            jnp.maximum(d * slope + (_vector(w.bias2, d) - rest * slope), 0)
        )
        return y + rows @ w.project, (mean_x @ w.expand, var1, mean2, var2)

    start = jnp.zeros((num_out, weights.project.shape[1]), x.dtype)
    projected, stats = _scan(step, start, _cut(weights, width))
    mean1, var1, mean2, var2 = (s.reshape(-1) for s in stats)
    projected = projected.reshape(x.shape[0], *size, -1)
    mean3, var3 = batch_statistics(projected)
    y = normalize(
        projected,
        mean3,
        lax.rsqrt(var3 + epsilon3),
        weights.scale3,
        weights.bias3,
        False,
    )
    stats = (mean1, var1), (mean2, var2), (mean3, var3)
    return (y, stats), (x, weights, projected, stats)


def _backward(static: Static, residuals, cotangents):
    stride, (epsilon1, epsilon2, epsilon3) = static
    x, weights, projected, ((_, var1), (mean2, var2), (mean3, var3)) = residuals
    g, (grad_stats1, grad_stats2, grad_stats3) = cotangents

    norm3 = (
        projected, mean3, lax.rsqrt(var3 + epsilon3), weights.scale3, weights.bias3
    )
    masked = masked_gradient(norm3, g, False, (0, 1, 2))
    g, grad_scale3, grad_bias3 = finish_gradients(norm3, masked, *grad_stats3)

    images = x.shape[:3]
    xc, mean_x = _centred(x)
    num, num_out = xc.shape[0], g.size // g.shape[-1]
    cov = xc.T @ xc
    g = g.reshape(num_out, -1)
    width = slab_width(weights.expand.shape[1], num)
    kernel, pad = weights.depthwise.shape[0], weights.depthwise.shape[0] // 2

    def step(carry, xs):
        grad_x, tilts, shifts = carry
        w, rstd1, mean2, rstd2, (gmean1, gvar1), (gmean2, gvar2) = xs
        slope1, slope2 = w.scale1 * rstd1, w.scale2 * rstd2
        lanes = w.depthwise.shape[-1]
        padded = _expanded(xc, w, slope1, images)
        d, _ = slabs.convolve(padded, w.depthwise, stride, _vector(mean2, padded))
        slope2, bias2, rstd2 = (_vector(v, d) for v in (slope2, w.bias2, rstd2))
        hidden = jnp.maximum(d * slope2 + bias2, 0)
        grad_project = slabs.to_rows(hidden).T @ g
        gm = slabs.to_slab(g @ w.project.T, d.shape[1:4], lanes)
        gm = jnp.where(hidden > 0, gm, 0)
        grad_bias2 = gm.sum((1, 2, 3), keepdims=True)
        grad_scale2 = (gm * d).sum((1, 2, 3), keepdims=True) * rstd2
        tilt = (2 * _vector(gvar2, d) - slope2 * rstd2 * grad_scale2) / num_out
        shift = (_vector(gmean2, d) - slope2 * grad_bias2) / num_out
        low, high = slabs.reach(kernel, stride)
        gd = slabs.pad_slab(slope2 * gm + tilt * d + shift, low, high)
        grad_depthwise = slabs.weight_gradient(padded, gd, low, high, kernel, stride)
        gm = slabs.input_gradient(w.depthwise, gd, stride, images)
        gm = slabs.to_rows(jnp.where(slabs.inside(padded, pad, pad) > 0, gm, 0))
        grad_bias1 = gm.sum(0, keepdims=True)
        along = xc.T @ gm
        grad_scale1 = (w.expand * along).sum(0, keepdims=True) * rstd1
        tilt = (2 * gvar1 - slope1 * rstd1 * grad_scale1) / num
        shift = (gmean1 - slope1 * grad_bias1) / num
        grad_expand = along * slope1 + (cov @ w.expand) * tilt + mean_x.T @ gmean1
        carry = (
            grad_x + gm @ (w.expand * slope1).T,
            tilts + (w.expand * tilt) @ w.expand.T,
            shifts + shift @ w.expand.T,
        )
        return carry, (
            grad_expand, grad_scale1, grad_bias1, grad_depthwise, _row(grad_scale2), _row(grad_bias2), grad_project,
        )

    def vector(v):
        return v.reshape(-1, 1, width)

    start = (jnp.zeros_like(xc), jnp.zeros_like(cov), jnp.zeros_like(mean_x))
    xs = (
        _cut(weights, width),
        vector(lax.rsqrt(var1 + epsilon1)),
        vector(mean2),
        vector(lax.rsqrt(var2 + epsilon2)),
        tuple(map(vector, grad_stats1)),
        tuple(map(vector, grad_stats2)),
    )
    (grad_x, tilts, shifts), grads = _scan(step, start, xs)
    grad_x = grad_x + xc @ tilts + shifts
    e, s1, b1, dw, s2, b2, p = grads
    grad = Weights(
        e.transpose(1, 0, 2).reshape(weights.expand.shape),
        s1.reshape(-1), b1.reshape(-1),
        dw.transpose(2, 3, 0, 1, 4).reshape(weights.depthwise.shape),
        s2.reshape(-1), b2.reshape(-1),
        p.reshape(weights.project.shape),
        grad_scale3, grad_bias3,
    )
    return grad_x.reshape(x.shape), grad


inverted_residual_train.defvjp(_forward, _backward)
