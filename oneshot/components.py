"""Counting and drawing distinct paths, exactly.

Choices that readers link form a component; components are independent, so numbers of
paths multiply. Within one, the values of the choices that conditions name (a case) say
which others are read, and those vary freely. Only where a place can be skipped both by
an option of its own and by a condition do two assignments make one path; such a
component is listed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from oneshot.choices import Choice, Reader
from oneshot.path_keys import PathKeys

_LISTED = 2_000_000  # assignments of a component that are looked at one by one
Assignment = tuple[tuple[int, int], ...]  # (choice, option index)


@dataclasses.dataclass(frozen=True)
class Component:
    """Choices linked by readers, split into cases.

    Attributes:
      sizes: Numbers of options, by choice.
      cases: Values of the choices that conditions name.
      free: Choices that vary, for each case.
      weights: Paths in each case.
    """

    sizes: dict[int, int]
    cases: tuple[Assignment, ...]
    free: tuple[tuple[int, ...], ...]
    weights: tuple[int, ...]

    def assignments(self) -> Iterator[Assignment]:
        """Yield every distinct assignment of the component's choices."""
        every = sorted({i for f in self.free for i in f})
        for case, free in zip(self.cases, self.free, strict=True):
            ranges = [range(self.sizes[i]) if i in free else (0,) for i in every]
            for values in itertools.product(*ranges):
                yield (*case, *zip(every, values, strict=True))

    def sample(self, rng: np.random.Generator) -> Assignment:
        """Draw an assignment, each with equal chance."""
        i = weighted(rng, self.weights)
        free = ((c, int(rng.integers(self.sizes[c]))) for c in self.free[i])
        return (*self.cases[i], *free)


def weighted(rng: np.random.Generator, weights: Sequence[int]) -> int:
    """Draw an index exactly in proportion to integer weights of any size."""
    total = sum(weights)
    if total < 2**62:
        ticket = int(rng.integers(total))
    else:  # 64 bits beyond those of `total` make the error of the modulo below 2**-64
        words = (total.bit_length() + 127) // 32
        ticket = int.from_bytes(rng.bytes(4 * words), "little") % total
    for i, weight in enumerate(weights):
        ticket -= weight
        if ticket < 0:
            return i
    raise AssertionError("weights changed while drawing")


def components(keys: PathKeys) -> Iterator[Component]:
    """Yield the components of a space.

    Args:
      keys: Its choices and readers, and what stands for a path.

    Raises:
      ValueError: If a component has to be listed and is too large.
    """
    choices, readers = keys.choices, keys.readers
    parent = list(range(len(choices)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for reader in readers:
        linked = [*reader.reads, *(c for c, _ in reader.when)]
        for other in linked[1:]:
            parent[root(other)] = root(linked[0])
    groups: dict[int, list[int]] = {}
    for i in range(len(parent)):
        groups.setdefault(root(i), []).append(i)
    for members in groups.values():
        inside = set(members)
        own = tuple(r for r in readers if inside & {*r.reads, *dict(r.when)})
        found = _component(choices, members, own)
        if PathKeys(choices, own).ambiguous:
            found = _listed(found, keys)
        yield found


def _component(
    choices: Sequence[Choice], members: list[int], readers: Sequence[Reader]
) -> Component:
    sizes = {i: len(choices[i].options) for i in members}
    deciding = sorted({c for r in readers for c, _ in r.when})
    cases, free, weights = [], [], []
    arch = [0] * len(choices)
    for values in itertools.product(*(range(sizes[i]) for i in deciding)):
        for place, value in zip(deciding, values, strict=True):
            arch[place] = value
        read = {i for r in readers if r.active(arch) for i in r.reads}
        # A condition that is itself unread stands at 0, or one path would count twice.
        if any(arch[i] and i not in read for i in deciding):
            continue
        vary = tuple(i for i in members if i in read and i not in deciding)
        cases.append(tuple(zip(deciding, values, strict=True)))
        free.append(vary)
        weights.append(math.prod(sizes[i] for i in vary))
    return Component(sizes, tuple(cases), tuple(free), tuple(weights))


def _listed(component: Component, keys: PathKeys) -> Component:
    if sum(component.weights) > _LISTED:
        raise ValueError(
            f"{sum(component.weights):,} assignments of linked choices would have to "
            "be looked at to tell distinct paths, because layers of a stage of elastic "
            "depth can also be skipped by an option. Drop one of the two: leave out "
            "Identity, or give the stage no depth."
        )
    kept = []
    for assignment in component.assignments():
        arch = [0] * len(keys.choices)
        for place, value in assignment:
            arch[place] = value
        if keys.key(arch) == tuple(arch):
            kept.append(assignment)
    return Component(component.sizes, tuple(kept), ((),) * len(kept), (1,) * len(kept))
