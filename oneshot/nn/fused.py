"""BatchNorm and the convolution after it, as one operation for reverse mode.

Apart, the norm keeps its input and the convolution keeps its own: two arrays of one
size. Together they keep the norm's input; the convolution's is one multiplication,
addition and maximum away and is computed again. That halves what a block carries
from its forward to its backward program.
"""

from __future__ import annotations

from functools import partial

import jax
from jax import Array, lax

from oneshot.nn.backend import resolve
from oneshot.nn.depthwise import (
    depthwise_backward,
    depthwise_conv,
    depthwise_forward,
    depthwise_shift,
    depthwise_shift_backward,
)
from oneshot.nn.groups import over_groups
from oneshot.nn.norm import (
    BatchNorm,
    batch_statistics,
    finish_gradients,
    masked_gradient,
    normalize,
)
from oneshot.nn.pointwise import pointwise_backward, pointwise_conv, pointwise_forward

Static = tuple[float, bool, int, str]  # epsilon, relu, stride, resolved impl


def norm_conv(
    norm: BatchNorm, x: Array, w: Array, stride: int = 1, impl: str = "auto"
) -> Array:
    """Apply `norm`, its ReLU included, and then a pointwise or depthwise convolution.

    Args:
      norm: the norm; in training mode its running averages are updated.
      x: images, `[n, height, width, channels]`.
      w: `[channels, out]` for a pointwise convolution, `[kernel, kernel, channels]`
        for a depthwise one.
      stride: of the convolution.
      impl: see `oneshot.nn.backend.resolve`.

    Returns:
      `[n, ceil(height / stride), ceil(width / stride), out or channels]`.
    """
    if norm.use_running_average:
        conv = pointwise_conv if w.ndim == 2 else depthwise_conv
        return conv(norm(x), w, stride, impl)
    scale, bias = norm.affine(x.shape[-1])
    static = (norm.epsilon, norm.relu, stride, resolve(impl))
    results: tuple[Array, Array, Array] = _norm_conv(x, scale, bias, w, static)
    y, mean, var = results
    norm.update(mean, var)
    return y


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _norm_conv(
    x: Array, scale: Array, bias: Array, w: Array, static: Static
) -> tuple[Array, Array, Array]:
    return _forward(x, scale, bias, w, static)[0]


def _forward(
    x: Array, scale: Array, bias: Array, w: Array, static: Static
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    epsilon, relu, stride, impl = static
    mean, var = batch_statistics(x)
    rstd = lax.rsqrt(var + epsilon)
    affine = (mean, rstd, scale, bias)

    def piece(x: Array) -> tuple[tuple[Array], tuple[()]]:
        return (depthwise_shift(normalize(x, *affine, relu), w, stride),), ()

    if w.ndim == 2:
        y = pointwise_forward(normalize(x, *affine, relu), w, stride, impl)
    elif impl == "lax":
        y = depthwise_forward(normalize(x, *affine, relu), w, stride, impl)
    else:
        (y,), _ = over_groups(piece, x)
    return (y, mean, var), (x, *affine, w)


def _backward(
    static: Static,
    residuals: tuple[Array, Array, Array, Array, Array, Array],
    cotangents: tuple[Array, Array, Array],
) -> tuple[Array, ...]:
    _, relu, stride, impl = static
    x, mean, rstd, scale, bias, w = residuals
    affine = (mean, rstd, scale, bias)
    g, grad_mean, grad_var = cotangents

    def piece(x: Array, g: Array) -> tuple[tuple[Array], tuple[Array, Array, Array]]:
        hidden = normalize(x, *affine, relu)
        g, grad_w = depthwise_shift_backward(hidden, w, g, stride)
        g, total, along = masked_gradient((x, *affine), g, relu, (1, 2))
        return (g,), (grad_w, total, along)

    if w.ndim == 3 and impl != "lax":
        (g,), (grad_w, total, along) = over_groups(piece, x, g)
        masked = (g, total, along)
    else:
        conv_backward = pointwise_backward if w.ndim == 2 else depthwise_backward
        hidden = normalize(x, *affine, relu)
        g, grad_w = conv_backward(hidden, w, g, stride, impl)
        masked = masked_gradient((x, *affine), g, relu, (0, 1, 2))
    grads = finish_gradients((x, *affine), masked, grad_mean, grad_var)
    return *grads, grad_w


_norm_conv.defvjp(_forward, _backward)
