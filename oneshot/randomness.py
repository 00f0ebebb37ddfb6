"""Streams of randomness, so that whatever must resume is a function of (seed, step).

On the host `np.random.default_rng([seed, stream, step])`, on the device
`fold_in(fold_in(key(seed), stream), step)`.
"""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    import jax

ARCHS, ORDER, AUGMENTATION, DROPOUT, WEIGHTS, SPLITS = range(6)


def stream_key(seed: int, stream: int) -> jax.Array:
    """Return the device key of one stream; fold in the step to use it."""
    import jax  # strategies draw on the host and need not load it

    return jax.random.fold_in(jax.random.key(seed), stream)
