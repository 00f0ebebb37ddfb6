"""Work on a few images at a time, so that they stay in the CPU's caches.

Memory, not arithmetic, bounds a depthwise convolution and its norm: 64 images of
16x16x384 are 25 MB, four of them with their gradients fit into the caches.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

# Images of a group. Also what keeps a batch sharded over 2 or 4 devices apart: every
# group has images of every device, so no step moves any.
GROUP = 4
# Below this the whole batch is as good as in the cache and a loop only costs.
_SMALL_BYTES = 4 << 20

Arrays = tuple[Array, ...]


def over_groups(
    f: Callable[..., tuple[Arrays, Arrays]], *images: Array
) -> tuple[Arrays, Arrays]:
    """Compute `f(*images)` group by group, where that is faster.

    Args:
      f: takes some of the images, `[m, ...]` each, and returns a tuple of arrays for
        each image and a tuple of arrays to be summed over the images; both `[m, ...]`.
      *images: `[n, ...]`.

    Returns:
      A tuple of `[n, ...]`, and a tuple of the sums, without that axis.
    """
    n = images[0].shape[0]
    if n % GROUP or n == GROUP or images[0].size * 4 < _SMALL_BYTES:
        outputs, terms = f(*images)
        return outputs, tuple(term.sum(0) for term in terms)

    # Group i is images i, i + n / GROUP, ...: the sharded axis stays whole.
    stacks = [x.reshape(GROUP, n // GROUP, *x.shape[1:]) for x in images]

    def piece(i: Array) -> list[Array]:
        return [lax.dynamic_index_in_dim(x, i, 1, keepdims=False) for x in stacks]

    def step(i: Array, carry: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
        outputs, terms = f(*piece(i))
        return (
            tuple(
                lax.dynamic_update_index_in_dim(old, new, i, 1)
                for old, new in zip(carry[0], outputs, strict=True)
            ),
            tuple(old + new for old, new in zip(carry[1], terms, strict=True)),
        )

    outputs, terms = jax.eval_shape(lambda: f(*piece(jnp.int32(0))))
    start = (
        tuple(jnp.zeros((GROUP, n // GROUP, *y.shape[1:]), y.dtype) for y in outputs),
        tuple(jnp.zeros(term.shape, term.dtype) for term in terms),
    )
    outputs, terms = lax.fori_loop(0, n // GROUP, step, start)
    return (
        tuple(y.reshape(n, *y.shape[2:]) for y in outputs),
        tuple(term.sum(0) for term in terms),
    )
