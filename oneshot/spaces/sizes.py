"""Named sizes of a space, some of whose fields a caller may change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

Size = TypeVar("Size")


def changed(
    sizes: Mapping[str, Size], size: str, changes: Mapping[str, object]
) -> Size:
    """Return the named size with some of its fields changed, as `replaced` does.

    Args:
      sizes: Instances of one dataclass, by name.
      size: One of the names.
      changes: Values by field.

    Raises:
      ValueError: If there is no such size or field.

    Example:
      >>> changed(SIZES, "tiny", {"depth": [2, 3]})
    """
    if size not in sizes:
        raise ValueError(f"There is no size {size!r}; there are {', '.join(sizes)}.")
    found = sizes[size]
    fields = [f.name for f in dataclasses.fields(found)]  # type: ignore[arg-type]
    if unknown := sorted(set(changes) - set(fields)):
        raise ValueError(
            f"A size has no {', '.join(unknown)}; what can be changed is "
            f"{', '.join(fields)}."
        )
    return replaced(found, changes)


def replaced(size: Size, changes: Mapping[str, object]) -> Size:
    """Return a size with other values of some fields.

    Lists become tuples, and so does a single value of a field that holds a tuple.

    Example:
      >>> replaced(SIZES["tiny"], {"depth": 3}).depth
      (3,)
    """

    def fitted(field: str, value: object) -> object:
        if isinstance(value, list | tuple):
            return tuple(value)
        single = value is not None and isinstance(getattr(size, field), tuple)
        return (value,) if single else value

    values = {field: fitted(field, value) for field, value in changes.items()}
    return dataclasses.replace(size, **values)  # type: ignore[type-var]
