"""Bilinear resizing as two weighted sums of rows and columns."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array


def resize_bilinear(x: Array, size: int) -> Array:
    """Resize images by interpolating between the two nearest pixels along each axis.

    Pixels are at their centres, and what is outside is as the edge; shrinking to less
    than half skips pixels. It is no product of matrices, so it counts for nothing in
    multiply-adds, as in published tables.

    Args:
      x: images, `[n, height, width, channels]`.
      size: new height and width.

    Returns:
      `[n, size, size, channels]`; `x` itself where it is of that size.
    """
    for axis in (1, 2):
        if x.shape[axis] != size:
            x = _along(x, axis, size)
    return x


def _along(x: Array, axis: int, size: int) -> Array:
    length = x.shape[axis]
    place = (np.arange(size) + 0.5) * (length / size) - 0.5
    place = np.clip(place, 0, length - 1)
    low = np.floor(place).astype(np.int32)
    shape = [1] * x.ndim
    shape[axis] = size
    share = (place - low).astype(x.dtype).reshape(shape)
    before = jnp.take(x, low, axis)
    after = jnp.take(x, np.minimum(low + 1, length - 1), axis)
    return before * (1 - share) + after * share
