"""The activations of MobileNetV3: ReLU and the swish that needs no exponential.

Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244.
"""

from __future__ import annotations

from typing import Final, Literal

import jax
import jax.numpy as jnp
from jax import Array

Activation = Literal["relu", "hard_swish", "none"]
ACTIVATIONS: Final = ("relu", "hard_swish", "none")


@jax.custom_vjp
def hard_swish(x: Array) -> Array:
    """`x * relu6(x + 3) / 6`, which keeps only its input for the gradient."""
    return x * (jnp.clip(x + 3, 0, 6) / 6)


def _forward(x: Array) -> tuple[Array, Array]:
    return hard_swish(x), x


def _backward(x: Array, g: Array) -> tuple[Array]:
    inside = (2 * x + 3) / 6
    slope = jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, inside))
    return ((g * slope).astype(x.dtype),)


hard_swish.defvjp(_forward, _backward)


def activate(name: Activation, x: Array) -> Array:
    """Apply the activation called `name`, elementwise.

    Raises:
      ValueError: if there is none of that name.
    """
    if name == "relu":
        return jnp.maximum(x, 0)
    if name == "hard_swish":
        return hard_swish(x)
    if name == "none":
        return x
    raise ValueError(
        f"An activation is one of {', '.join(ACTIVATIONS)}, but got {name!r}."
    )
