"""What an elastic module offers, and what a call picks of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Option = TypeVar("Option", int, float)


def offered(options: Option | Sequence[Option]) -> tuple[Option, ...]:
    """Return options in ascending order; a single number is the only option.

    Raises:
      ValueError: if there are none.
    """
    several = (options,) if isinstance(options, int | float) else tuple(options)
    if not several:
        raise ValueError("An elastic module needs at least one option, but got none.")
    return tuple(sorted(set(several)))


def pick(name: str, option: Option | None, options: tuple[Option, ...]) -> Option:
    """Return `option` if it is on offer; None picks the only one.

    Raises:
      ValueError: if it is not on offer, or None does not say which.
    """
    if option is None and len(options) == 1:
        return options[0]
    if option not in options:
        raise ValueError(
            f"This module offers {name} in {options}, but was called with "
            f"{name}={option!r}. Name one of them."
        )
    return option
