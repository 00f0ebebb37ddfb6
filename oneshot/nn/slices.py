"""The first part of an array: how all elastic weights are narrowed."""

from __future__ import annotations

from jax import Array, lax


def first_of(array: Array, *sizes: int) -> Array:
    """Return the first `sizes[i]` entries along each axis i, by one static slice.

    Args:
      array: any array.
      *sizes: one size for each axis, at most the array's own.

    Raises:
      ValueError: if there are not so many entries.

    Example:
      >>> first_of(jnp.ones((4, 6)), 4, 3).shape
      (4, 3)
    """
    if len(sizes) != array.ndim or any(
        a > b for a, b in zip(sizes, array.shape, strict=True)
    ):
        raise ValueError(
            f"The first {list(sizes)} of an array of shape {list(array.shape)} were "
            "asked for. Build the module with its largest sizes, and call it with "
            "sizes up to those."
        )
    return lax.slice(array, (0,) * array.ndim, sizes)


def check_offer(name: str, value: object, offered: tuple) -> None:
    """Raise a ValueError if an option is not one of those that a module offers."""
    if value not in offered:
        raise ValueError(
            f"This module offers {name} in {offered}, but was called with "
            f"{name}={value!r}."
        )
