"""Choices, and the places that read them: the material of a search space."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Arch = tuple[int, ...]


def freeze(value: Any) -> Any:
    """Return a JSON value with lists as tuples, so that it is hashable."""
    return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value


def freeze_values(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping whose lists are tuples."""
    return {key: freeze(value) for key, value in data.items()}


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


def reasons_against(choices: Sequence[Choice], arch: Any) -> list[str]:
    """Return why `arch` is none of these choices, one sentence each."""
    try:
        values = [*arch]
    except TypeError:
        return [f"An arch is a sequence of option indices, but got {arch!r}."]
    if len(values) != len(choices):
        return [
            f"An arch of this space has {len(choices)} option indices, one per"
            f" choice, but got {len(values)}: {tuple(values)!r}."
        ]
    reasons = []
    for value, choice in zip(values, choices, strict=True):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not 0 <= value < len(choice.options):
            reasons.append(
                f"Choice {choice.name!r} has options {list(choice.options)}, so its"
                f" index is 0 to {len(choice.options) - 1}, but got {value!r}."
            )
    return reasons
