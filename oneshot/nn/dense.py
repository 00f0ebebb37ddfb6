"""LayerNorm, and activations with the product after them, that keep only inputs."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: Array, scale: Array, bias: Array, epsilon: float = 1e-6) -> Array:
    """Normalise each row to mean 0 and variance 1, then scale and shift.

    Args:
      x: `[rows, features]`.
      scale: `[features]`.
      bias: `[features]`.
      epsilon: added to the variance.

    Returns:
      `[rows, features]`.
    """
    return _norm_forward(x, scale, bias, epsilon)[0]


def _norm_forward(x, scale, bias, epsilon):
    mean = x.mean(-1, keepdims=True, dtype=jnp.float32)
    centred = x - mean
    rstd = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    y = (centred * rstd * scale[None] + bias[None]).astype(x.dtype)
    return y, (x, mean, rstd, scale)


def _norm_backward(epsilon, residuals, g):
    del epsilon  # it is in rstd
    x, mean, rstd, scale = residuals
    normal = (x - mean) * rstd
    g_scaled = g * scale[None]
    along = (g_scaled * normal).mean(-1, keepdims=True)
    level = g_scaled.mean(-1, keepdims=True)
    grad_x = (rstd * (g_scaled - level - normal * along)).astype(x.dtype)
    return grad_x, (g * normal).sum(0), g.sum(0)


layer_norm.defvjp(_norm_forward, _norm_backward)


@jax.custom_vjp
def gelu_dense(x: Array, w: Array) -> Array:
    """GELU in its tanh approximation, and a matrix product.

    Keeps `x` alone: its derivative takes the `tanh` again anyhow, and the GELU, which
    the weights' gradient wants, comes with it.

    Args:
      x: `[rows, features]`.
      w: `[features, out]`.

    Returns:
      `[rows, out]`.
    """
    return jax.nn.gelu(x) @ w


def _gelu_dense_forward(x, w):
    return jax.nn.gelu(x) @ w, (x, w)


def _gelu_dense_backward(residuals, g):
    x, w = residuals
    grad_w = jax.nn.gelu(x).T @ g
    # Without the barrier XLA would share the `tanh` between both, and so keep three
    # arrays of this size at once; to take it again costs less than to store it.
    x, g, grad_w = lax.optimization_barrier((x, g, grad_w))
    _, vjp = jax.vjp(jax.nn.gelu, x)
    return *vjp(g @ w.T), grad_w


gelu_dense.defvjp(_gelu_dense_forward, _gelu_dense_backward)


@jax.custom_vjp
def silu_gate_dense(gate: Array, up: Array, w: Array) -> Array:
    """`silu(gate) * up` and a matrix product, the second half of SwiGLU.

    Keeps `gate` and `up` alone; see `gelu_dense`.

    Args:
      gate: `[rows, features]`.
      up: `[rows, features]`.
      w: `[features, out]`.

    Returns:
      `[rows, out]`.
    """
    return (jax.nn.silu(gate) * up) @ w


def _silu_gate_dense_forward(gate, up, w):
    return (jax.nn.silu(gate) * up) @ w, (gate, up, w)


def _silu_gate_dense_backward(residuals, g):
    gate, up, w = residuals
    share = jax.nn.sigmoid(gate)
    grad_w = (gate * share * up).T @ g
    g = g @ w.T
    grad_gate = g * up * share * (1 + gate * (1 - share))
    return grad_gate, g * gate * share, grad_w


silu_gate_dense.defvjp(_silu_gate_dense_forward, _silu_gate_dense_backward)
