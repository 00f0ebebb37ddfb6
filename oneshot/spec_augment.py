"""SpecAugment's masks over time and frequency, an augmentation of spectrograms.

Park et al. 2019, arXiv:1904.08779. Its time warping is left out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from oneshot.augment import Augment


def spec_augment(
    time: int, mels: int, *, time_masks: int = 1, mel_masks: int = 1, value: float = 0.0
) -> Augment:
    """Blank out stretches of time and bands of frequency, each example's own.

    Args:
      time: Longest stretch, frames; its length is uniform in 0 to this.
      mels: Widest band, rows of the filterbank; likewise.
      time_masks: How many stretches.
      mel_masks: How many bands.
      value: What is written there; 0 is the mean of normalised features, and silence
        of features in 0 to 1.

    Returns:
      An augmentation of features `[n, time, mels]`, or `[n, time, mels, 1]`.

    Raises:
      ValueError: If a number is negative.

    Example:
      >>> data = Data.from_arrays(train, augment=spec_augment(time=6, mels=6))
    """
    if min(time, mels, time_masks, mel_masks) < 0:
        raise ValueError(
            "Lengths and numbers of masks are 0 or more, but got "
            f"time={time}, mels={mels}, time_masks={time_masks}, mel_masks={mel_masks}."
        )
    kinds = [(1, time)] * time_masks + [(2, mels)] * mel_masks

    def masked(
        key: jax.Array, x: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if x.ndim not in (3, 4):
            raise ValueError(
                "`spec_augment` takes features [n, time, mels], but got "
                f"{list(x.shape)}."
            )
        for i, (axis, longest) in enumerate(kinds):
            hidden = _stretch(jax.random.fold_in(key, i), x.shape, axis, longest)
            x = jnp.where(hidden, jnp.asarray(value, x.dtype), x)
        return x, y

    return masked


def _stretch(
    key: jax.Array, shape: tuple[int, ...], axis: int, longest: int
) -> jax.Array:
    """Return a mask that broadcasts to `shape`: one stretch of `axis` an example."""
    size, (which, where) = shape[axis], jax.random.split(key)
    n = shape[0]
    length = jax.random.randint(which, (n,), 0, min(longest, size) + 1)
    start = jax.random.randint(where, (n,), 0, size - length + 1)
    place = jnp.arange(size)[None]
    hidden = (place >= start[:, None]) & (place < (start + length)[:, None])
    wide = [n if i == 0 else size if i == axis else 1 for i in range(len(shape))]
    return hidden.reshape(wide)
