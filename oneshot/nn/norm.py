"""Batch normalisation that keeps its input and two numbers a channel, no more."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

Stats = tuple[Array, Array]
Residuals = tuple[Array, Array, Array, Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm_train(
    x: Array, scale: Array, bias: Array, epsilon: float = 1e-5, relu: bool = False
) -> tuple[Array, Array, Array]:
    """Normalise by the statistics of this batch, over all axes but the last.

    Under `jit` with a sharded batch the statistics are those of the whole batch.

    Args:
      x: `[..., channels]`.
      scale: `[channels]`.
      bias: `[channels]`.
      epsilon: added to the variance.
      relu: whether to apply a ReLU to the result.

    Returns:
      The result in the shape and dtype of `x`, and the batch's mean and biased
      variance, `[channels]` in float32.
    """
    mean, var = batch_statistics(x)
    rstd = lax.rsqrt(var + epsilon)
    return normalize(x, mean, rstd, scale, bias, relu), mean, var


def batch_statistics(x: Array) -> Stats:
    """Mean and biased variance over all axes but the last, in float32."""
    axes = tuple(range(x.ndim - 1))
    x = x.astype(jnp.float32)
    mean = x.mean(axes)
    # Two passes: E[x^2] - E[x]^2 loses all digits where the mean is large.
    return mean, jnp.square(x - along_channels(mean, x)).mean(axes)


def normalize(
    x: Array, mean: Array, rstd: Array, scale: Array, bias: Array, relu: bool
) -> Array:
    """`(x - mean) * rstd * scale + bias`, perhaps with a ReLU, in the dtype of `x`."""
    y = _affine(x.astype(jnp.float32) - along_channels(mean, x), rstd * scale, bias)
    return (jnp.maximum(y, 0) if relu else y).astype(x.dtype)


def masked_gradient(
    residuals: Residuals, g: Array, relu: bool, axes: tuple[int, ...]
) -> tuple[Array, Array, Array]:
    """Pass the cotangent `g` through the ReLU, whose mask is computed again.

    Returns:
      What passes, in float32; its sum over `axes`; and the sum of its product with
      `x - mean`.
    """
    x, mean, rstd, scale, bias = residuals
    x = x.astype(jnp.float32)
    g = g.astype(jnp.float32)
    if relu:
        y = _affine(x - along_channels(mean, x), rstd * scale, bias)
        g = jnp.where(y > 0, g, 0)
    total = g.sum(axes)
    # Not sum(g * (x - mean)): XLA:CPU would write the difference to memory first. What
    # the subtraction of sums loses is what the rounding of `x` had lost before.
    return g, total, (g * x).sum(axes) - total * along_channels(mean, total)


def finish_gradients(
    residuals: Residuals,
    masked: tuple[Array, Array, Array],
    grad_mean: Array,
    grad_var: Array,
) -> tuple[Array, Array, Array]:
    """Gradients for `x`, `scale` and `bias`.

    Args:
      residuals: `x [..., channels]`, then `mean, rstd, scale, bias`, `[channels]`.
      masked: from `masked_gradient`, summed over all axes but the last.
      grad_mean: cotangent of the batch's mean, `[channels]`.
      grad_var: cotangent of the batch's variance, `[channels]`.
    """
    x, mean, rstd, scale, bias = residuals
    g, grad_bias, along = masked
    grad_scale = along * rstd
    num_rows = x.size // x.shape[-1]
    # d x = slope * g + tilt * (x - mean) + shift, with one number each a channel.
    slope = rstd * scale
    tilt = (2 * grad_var - slope * rstd * grad_scale) / num_rows
    shift = (grad_mean - slope * grad_bias) / num_rows
    centred = x.astype(jnp.float32) - along_channels(mean, x)
    grad_x = _affine(g, slope, shift) + along_channels(tilt, x) * centred
    return (
        grad_x.astype(x.dtype),
        grad_scale.astype(scale.dtype),
        grad_bias.astype(bias.dtype),
    )


def along_channels(vector: Array, x: Array) -> Array:
    """`vector [channels]` as `[1, ..., 1, channels]`, of the rank of `x`.

    Said aloud, so that callers may forbid implicit rank promotion.
    """
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def _affine(x: Array, slope: Array, shift: Array) -> Array:
    return x * along_channels(slope, x) + along_channels(shift, x)


def _forward(
    x: Array, scale: Array, bias: Array, epsilon: float, relu: bool
) -> tuple[tuple[Array, Array, Array], Residuals]:
    mean, var = batch_statistics(x)
    rstd = lax.rsqrt(var + epsilon)
    y = normalize(x, mean, rstd, scale, bias, relu)
    return (y, mean, var), (x, mean, rstd, scale, bias)


def _backward(
    epsilon: float,
    relu: bool,
    residuals: Residuals,
    cotangents: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array]:
    del epsilon  # it is in rstd
    g, grad_mean, grad_var = cotangents
    masked = masked_gradient(residuals, g, relu, tuple(range(g.ndim - 1)))
    return finish_gradients(residuals, masked, grad_mean, grad_var)


batch_norm_train.defvjp(_forward, _backward)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, with an optional ReLU.

    Its variables have the names, types and meaning of `nnx.BatchNorm`'s, so that
    `.train()`, `.eval()` and recalibration treat both alike. An input with fewer
    than `num_features` channels uses, and updates, the first of them.

    Args:
      num_features: the largest number of channels.
      momentum: share of the old running average that is kept by an update, 0 to 1;
        0 leaves exactly the statistics of the last batch.
      epsilon: added to the variance.
      relu: whether to apply a ReLU to the result.
      rngs: not used; taken so that all modules are built alike.
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        relu: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        del rngs
        self.mean = nnx.BatchStat(jnp.zeros((num_features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((num_features,), jnp.float32))
        self.scale = nnx.Param(jnp.ones((num_features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_features,), jnp.float32))
        self.num_features = num_features
        self.use_running_average = False
        self.momentum = momentum
        self.epsilon = epsilon
        self.relu = relu

    def __call__(self, x: Array) -> Array:
        """Normalise `x`, `[..., channels]`, `channels` at most `num_features`."""
        scale, bias = self.affine(x.shape[-1])
        if self.use_running_average:
            return self.normalize_frozen(x)
        results: tuple[Array, Array, Array] = batch_norm_train(
            x, scale, bias, self.epsilon, self.relu
        )
        y, mean, var = results
        self.update(mean, var)
        return y

    def affine(self, channels: int) -> tuple[Array, Array]:
        """The first `channels` of `scale` and `bias`.

        Raises:
          ValueError: if there are not so many.
        """
        if channels > self.num_features:
            raise ValueError(
                f"This BatchNorm was built for at most {self.num_features} channels, "
                f"but its input has {channels}. Build it with the largest width."
            )
        return _first(self.scale[...], channels), _first(self.bias[...], channels)

    def normalize_frozen(self, x: Array) -> Array:
        """Normalise `x` by the running averages, as one multiplication and addition."""
        channels = x.shape[-1]
        scale, bias = self.affine(channels)
        mean = _first(self.mean[...], channels)
        var = _first(self.var[...], channels)
        slope = scale * lax.rsqrt(var + self.epsilon)
        y = _affine(x.astype(jnp.float32), slope, bias - mean * slope)
        return (jnp.maximum(y, 0) if self.relu else y).astype(x.dtype)

    def update(self, mean: Array, var: Array) -> None:
        """Move the running averages of the first channels towards `[channels]`."""
        for running, new in ((self.mean, mean), (self.var, var)):
            old = running[...]
            kept = self.momentum * _first(old, new.shape[0])
            new = lax.stop_gradient(kept + (1 - self.momentum) * new)
            if new.shape != old.shape:
                new = lax.dynamic_update_slice(old, new, (0,))
            running[...] = new


def _first(vector: Array, count: int) -> Array:
    return lax.slice(vector, (0,), (count,))
