"""Slots: the layers of a supernet in a row, each with its modules and when it runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from oneshot.layers import Make
from oneshot.paths import Step
from oneshot.space import Choice

When = tuple[tuple[int, tuple[int, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Branch:
    """One module of a slot and the choices that give its options."""

    module: str
    make: Make
    keywords: tuple[tuple[str, int], ...] = ()  # (keyword, choice index)


@dataclasses.dataclass(frozen=True)
class Apart:
    """A choice of another layer, of which each option has modules of its own here.

    Attributes:
      choice: Its index.
      when: The conditions under which the space reads it, any of them.
      skips: Its options that leave nothing in the path. The first one counts for all
        of them and where no condition holds, so that all archs of a path find one
        module.
    """

    choice: int
    when: tuple[When, ...]
    skips: tuple[int, ...] = ()

    @property
    def choices(self) -> set[int]:
        """Indices of the choices that decide which option counts."""
        return {self.choice, *(c for when in self.when for c, _ in when)}

    def option(self, values: Mapping[int, int]) -> int:
        """Return the index of the option that counts."""
        read = any(all(values[c] in ok for c, ok in when) for when in self.when)
        own = values[self.choice] if read else None
        return (*self.skips, 0)[0] if own is None or own in self.skips else own


@dataclasses.dataclass(frozen=True)
class Slot:
    """One place in the row of layers, with all that decides what runs there."""

    layer: int
    name: str
    when: When  # the conditions of the stages around it
    choice: int | None  # the choice among `branches`, None if there is one branch
    branches: tuple[Branch | None, ...]  # None skips
    apart: tuple[Apart, ...] = ()

    @property
    def choices(self) -> tuple[int, ...]:
        """Indices of every choice that decides what runs here, ascending."""
        named = {c for c, _ in self.when}
        named |= set() if self.choice is None else {self.choice}
        named |= {c for b in self.branches if b for _, c in b.keywords}
        return tuple(sorted(named.union(*(other.choices for other in self.apart))))

    def modules(self, choices: Sequence[Choice]) -> Iterator[tuple[str, Make]]:
        """Yield name and constructor of every module that may run here."""
        ranges = [range(len(choices[a.choice].options)) for a in self.apart]
        for branch in (b for b in self.branches if b):
            for values in itertools.product(*ranges):
                yield self._name(branch, values, choices), branch.make

    def _name(
        self, branch: Branch, options: Sequence[int], choices: Sequence[Choice]
    ) -> str:
        others = [choices[a.choice].name for a in self.apart]
        return module_name(branch.module, dict(zip(others, options, strict=True)))

    def resolve(self, values: Mapping[int, int], choices: Sequence[Choice]):
        """Return the `Step` that runs where choice i has option index values[i]."""
        if any(values[c] not in allowed for c, allowed in self.when):
            return None
        branch = self.branches[0 if self.choice is None else values[self.choice]]
        if branch is None:
            return None
        options = ((key, choices[c].options[values[c]]) for key, c in branch.keywords)
        name = self._name(branch, [a.option(values) for a in self.apart], choices)
        return Step(self.layer, name, tuple(sorted(options)))

    def cases(
        self, choices: Sequence[Choice], fixed: Mapping[int, int]
    ) -> Iterator[tuple[dict[int, int], Step | None]]:
        """Yield every assignment of this slot's choices that agrees with `fixed`."""
        ranges = [
            (fixed[i],) if i in fixed else range(len(choices[i].options))
            for i in self.choices
        ]
        for values in itertools.product(*ranges):
            assignment = dict(zip(self.choices, values, strict=True))
            yield assignment, self.resolve(assignment, choices)


def module_name(name: str, apart: Mapping[str, int]) -> str:
    """Return the name of the module that belongs to some options of other choices."""
    return "@".join([name, *(f"{choice}={i}" for choice, i in sorted(apart.items()))])
