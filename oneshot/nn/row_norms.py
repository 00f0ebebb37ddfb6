"""LayerNorm and RMSNorm over the features that are there.

A narrower input is normalised by its own mean and variance: statistics over the
largest width would mix in zeros, or features that another subnet has left.

References: Ba et al., arXiv:1607.06450; Zhang and Sennrich, Root Mean Square Layer
Normalization, arXiv:1910.07467.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from oneshot.nn.dense import layer_norm
from oneshot.nn.slices import first_of


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: Array, scale: Array, epsilon: float = 1e-5) -> Array:
    """Divide each row by its root mean square, then scale; keeps only the input.

    Args:
      x: `[rows, features]`.
      scale: `[features]`.
      epsilon: added to the mean square.

    Returns:
      `[rows, features]`.
    """
    return _forward(x, scale, epsilon)[0]


def _forward(x, scale, epsilon):
    single = x.astype(jnp.float32)
    rstd = lax.rsqrt(jnp.square(single).mean(-1, keepdims=True) + epsilon)
    y = (single * rstd * scale[None]).astype(x.dtype)
    return y, (x, rstd, scale)


def _backward(epsilon, residuals, g):
    del epsilon  # it is in rstd
    x, rstd, scale = residuals
    normal = x * rstd
    g_scaled = g * scale[None]
    along = (g_scaled * normal).mean(-1, keepdims=True)
    grad_x = (rstd * (g_scaled - normal * along)).astype(x.dtype)
    return grad_x, (g * normal).sum(0).astype(scale.dtype)


rms_norm.defvjp(_forward, _backward)


class RMSNorm(nnx.Module):
    """RMSNorm of the first `x.shape[-1]` features.

    Args:
      features: the largest number of features.
      epsilon: added to the mean square.

    Example:
      >>> RMSNorm(64)(jnp.ones((2, 10, 48))).shape
      (2, 10, 48)
    """

    def __init__(self, features: int, *, epsilon: float = 1e-5) -> None:
        self.scale = nnx.Param(jnp.ones((features,)))
        self.epsilon = epsilon

    def __call__(self, x: Array) -> Array:
        """Normalise `x`, `[..., features]`, at most the largest number of them."""
        scale = first_of(self.scale[...], x.shape[-1])
        y: Array = rms_norm(x.reshape(-1, x.shape[-1]), scale, self.epsilon)
        return y.reshape(x.shape)


class LayerNorm(nnx.Module):
    """LayerNorm of the first `x.shape[-1]` features.

    Args:
      features: the largest number of features.
      epsilon: added to the variance.

    Example:
      >>> LayerNorm(64)(jnp.ones((2, 10, 48))).shape
      (2, 10, 48)
    """

    def __init__(self, features: int, *, epsilon: float = 1e-6) -> None:
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.epsilon = epsilon

    def __call__(self, x: Array) -> Array:
        """Normalise `x`, `[..., features]`, at most the largest number of them."""
        width = x.shape[-1]
        scale, bias = (first_of(v[...], width) for v in (self.scale, self.bias))
        y: Array = layer_norm(x.reshape(-1, width), scale, bias, self.epsilon)
        return y.reshape(x.shape)
