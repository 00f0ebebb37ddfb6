"""Choices, and the places that read them: the material of a search space."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

Arch = tuple[int, ...]


def freeze(value: Any) -> Any:
    """Return a JSON value with lists as tuples, so that it is hashable."""
    return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value


@dataclasses.dataclass(frozen=True)
class Choice:
    """One decision: a name and its options.

    Args:
      name: Unique in a space; two layers given a choice of one name are tied.
      options: One or more distinct JSON values (numbers, strings, booleans, null, or
        lists of those, which are kept as tuples).

    Raises:
      ValueError: If there are no options, or two are equal.

    Example:
      >>> Choice("kernel", (3, 5, 7)).options[1]
      5
    """

    name: str
    options: tuple[Any, ...]

    def __post_init__(self):
        object.__setattr__(self, "options", freeze(tuple(self.options)))
        if not self.options:
            raise ValueError(
                f"Choice {self.name!r} was given no options; give it one or more."
            )
        # `1 == True` in Python, but they are different JSON values.
        if len({json.dumps(o) for o in self.options}) < len(self.options):
            raise ValueError(
                f"The options of choice {self.name!r} must be distinct, but were "
                f"{self.options!r}. Remove the repeated one."
            )


@dataclasses.dataclass(frozen=True)
class Reader:
    """A place that reads choices, and the conditions under which it does.

    Args:
      reads: Indices of the choices read.
      when: Pairs (choice index, option indices): the place is active only if each of
        these choices has one of these options. Empty: always active. A condition on a
        choice that is itself read under conditions has to repeat those.
      skip: Where one choice is read: its option indices that leave nothing in the
        path. For a stage's depth that is all of them: it acts through conditions only.
    """

    reads: tuple[int, ...]
    when: tuple[tuple[int, tuple[int, ...]], ...] = ()
    skip: tuple[int, ...] = ()

    def active(self, arch: Sequence[int]) -> bool:
        """Return whether `arch` reaches this place."""
        return all(arch[choice] in allowed for choice, allowed in self.when)

    def skipped(self, arch: Sequence[int]) -> bool:
        """Return whether this place leaves nothing in the path of `arch`."""
        return len(self.reads) == 1 and arch[self.reads[0]] in self.skip
