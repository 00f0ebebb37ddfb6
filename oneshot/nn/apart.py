"""Keep XLA from computing an array anew for each of its readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

Result = TypeVar("Result")


def apart(f: Callable[..., Result], *arrays: Array) -> Result:
    """`f(*arrays)`, written to memory once and computed by loops of its own.

    XLA:CPU fuses what has several readers into each of them, a convolution of 25 taps
    too, and removes `lax.optimization_barrier` before it fuses. The branch of a
    conditional stays whole.

    Args:
      f: a function of arrays.
      *arrays: its arguments in float32; the first is not empty.

    Returns:
      The result of `f`.
    """
    shapes = jax.eval_shape(f, *arrays)

    def never(*arrays: Array) -> Result:
        del arrays
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    # Always true, which the compiler does not know.
    bits = lax.bitcast_convert_type(arrays[0].reshape(-1)[0], jnp.int32)
    return lax.cond(bits | 1 != 0, f, never, *arrays)
