"""Mean and variance of a set of images, gathered a few images at a time.

Each group's deviations are taken from its own mean, and groups are merged by Chan,
Golub and LeVeque's formula (Updating formulae and a pairwise algorithm for computing
sample variances, 1979), so nothing cancels where the mean is large.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax


class Moments(NamedTuple):
    """Of the rows seen so far: their mean and sum of squared deviations, `[c]`."""

    mean: Array
    squares: Array


def no_moments(channels: int) -> Moments:
    """Moments of no rows at all."""
    return Moments(jnp.zeros(channels), jnp.zeros(channels))


def add_group(moments: Moments, index: Array, rows: Array) -> Moments:
    """Include one more group.

    Args:
      moments: of `index` groups of the same size.
      index: how many groups there were before, an integer scalar.
      rows: the group, `[rows, channels]`.

    Returns:
      The moments of `index + 1` groups.
    """
    mean = rows.mean(0)
    squares = jnp.square(rows - mean[None]).sum(0)
    before = index.astype(mean.dtype)
    shift = mean - moments.mean
    between = shift * shift * (rows.shape[0] * before / (before + 1))
    return Moments(
        moments.mean + shift / (before + 1), moments.squares + squares + between
    )


def gather(num_groups: int, group: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Mean and biased variance of `group(0), ..., group(num_groups - 1)`.

    Args:
      num_groups: how many groups there are.
      group: from a group's index to its rows, `[rows, channels]`; all of one size.

    Returns:
      Both `[channels]`.
    """
    rows, channels = jax.eval_shape(group, jnp.int32(0)).shape
    moments = lax.fori_loop(
        0, num_groups, lambda i, m: add_group(m, i, group(i)), no_moments(channels)
    )
    return moments.mean, moments.squares / (num_groups * rows)
