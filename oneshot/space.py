"""Search spaces: ordered choices, and which of them a given arch reads.

An arch is a tuple of option indices, one per choice. A choice that belongs to a
skipped layer is not read, so archs that differ only there are one path. A space knows
that much and no more: it never sees a network, and imports nothing but numpy.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from oneshot.choices import Arch as Arch
from oneshot.choices import Choice as Choice
from oneshot.choices import Reader as Reader
from oneshot.choices import freeze, freeze_values, reasons_against
from oneshot.commuting import Commuting as Commuting
from oneshot.commuting import symmetry_from_json, symmetry_to_json
from oneshot.components import Component, components
from oneshot.path_keys import PathKeys

Over = Literal["archs", "paths", "canonical"]

_ENUMERABLE = 200_000  # above this, distinct networks are drawn by rejection


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """An ordered tuple of choices; hashable, and the same after a trip through JSON.

    Args:
      choices: The decisions, with distinct names.
      readers: The places that read them. By default each choice is always read.
      symmetry: `symmetry(space, arch) -> arch` maps the archs that are one network when
        trained alone to one of them, and that one to itself. `Commuting` goes into the
        JSON; any other function has to be given to `from_json` again. Also accepted
        under the name `canonical`.

    Raises:
      ValueError: If names repeat, or a reader names a choice that does not exist.

    Example:
      >>> space = SearchSpace([Choice("kernel", (3, 5)), Choice("expand", (3, 6))])
      >>> space.size, space.describe((1, 0))
      (4, {'kernel': 5, 'expand': 3})
    """

    choices: tuple[Choice, ...]
    readers: tuple[Reader, ...] = ()
    symmetry: Callable[[SearchSpace, Arch], Arch] | None = None

    def __init__(self, choices, readers=(), symmetry=None, *, canonical=None):
        choices = tuple(choices)
        readers = tuple(readers) or tuple(Reader((i,)) for i in range(len(choices)))
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "readers", readers)
        object.__setattr__(self, "symmetry", symmetry or canonical)
        names = [c.name for c in choices]
        if repeated := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(
                f"The choices of a space need distinct names, but {repeated} repeat. "
                "Rename them, or pass one Choice to the layers that shall share it."
            )
        named = {i for r in readers for i in (*r.reads, *(c for c, _ in r.when))}
        if not named <= set(range(len(choices))):
            raise ValueError(
                f"A reader names choice {max(named)}, but the space has "
                f"{len(choices)} choices, numbered from 0."
            )

    # --- what an arch means -------------------------------------------------------

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {c.name: i for i, c in enumerate(self.choices)}

    def index(self, name: str) -> int:
        """Return the position of the choice called `name` (KeyError if none is)."""
        if name not in self._index:
            raise KeyError(f"No choice is called {name!r}; there are: {[*self._index]}")
        return self._index[name]

    def validate(self, arch: Sequence[int]) -> list[str]:
        """Return what is wrong with `arch`, one sentence each; empty if nothing is."""
        return reasons_against(self.choices, arch)

    def check(self, arch: Sequence[int]) -> Arch:
        """Return `arch` as a tuple of ints, or raise a ValueError with the reasons."""
        if reasons := self.validate(arch):
            raise ValueError(
                " ".join(reasons) + " Draw one with `space.sample(rng, 1)`, or build "
                "one from options with `space.arch(...)`."
            )
        return tuple(int(v) for v in arch)

    def arch(self, options: Mapping[str, Any]) -> Arch:
        """Return the arch with these options by choice name; others get index 0.

        Raises:
          KeyError: If there is no such choice.
          ValueError: If a choice has no such option.
        """
        out = [0] * len(self.choices)
        for name, option in options.items():
            choice = self.choices[i := self.index(name)]
            if freeze(option) not in choice.options:
                raise ValueError(
                    f"Choice {name!r} has options {list(choice.options)}; got "
                    f"{option!r}."
                )
            out[i] = choice.options.index(freeze(option))
        return tuple(out)

    @functools.cached_property
    def _keys(self) -> PathKeys:
        return PathKeys(self.choices, self.readers)

    def read(self, arch: Sequence[int]) -> tuple[int, ...]:
        """Return the indices of the choices that the path of `arch` reads."""
        return self._keys.read(arch)

    def path_key(self, arch: Sequence[int]) -> Arch:
        """Return the representative of all archs of one path: equal keys, equal paths.

        Unread choices stand at index 0. Where a layer is skipped by an option and could
        be left out by a depth as well, the depth that reaches fewest layers is taken.
        """
        return self._keys.key(arch)

    def canonical(self, arch: Sequence[int]) -> Arch:
        """Return the representative of all archs that are one network with `arch`."""
        key = self.path_key(arch)
        return self.path_key(self.symmetry(self, key)) if self.symmetry else key

    def describe(self, arch: Sequence[int]) -> dict[str, Any]:
        """Return the options of the choices that `arch` reads, by name."""
        arch = self.check(arch)
        chosen = ((self.choices[i], arch[i]) for i in self.read(arch))
        return {choice.name: choice.options[value] for choice, value in chosen}

    # --- how many -----------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of archs, the product of the numbers of options."""
        return math.prod(len(c.options) for c in self.choices)

    @functools.cached_property
    def _components(self) -> tuple[Component, ...]:
        return tuple(components(self._keys))

    @property
    def num_paths(self) -> int:
        """Number of distinct paths."""
        return math.prod(sum(c.weights) for c in self._components)

    @functools.cached_property
    def num_distinct(self) -> int | None:
        """Number of distinct canonical archs; None where too many to enumerate."""
        if self.symmetry is None:
            return self.num_paths
        if self.num_paths > 10 * _ENUMERABLE:
            return None
        return sum(1 for key in self.paths() if self.canonical(key) == key)

    def paths(self) -> Iterator[Arch]:
        """Yield every distinct path once, as its path key, in a fixed order."""
        arch = [0] * len(self.choices)
        parts = [list(c.assignments()) for c in self._components]
        for combination in itertools.product(*parts):
            for assignment in combination:
                for place, value in assignment:
                    arch[place] = value
            yield tuple(arch)

    def enumerate(self, over: Over = "paths") -> Iterator[Arch]:
        """Yield every arch, every path key, or every canonical arch, once."""
        if over == "archs":
            yield from itertools.product(*(range(len(c.options)) for c in self.choices))
        else:
            keys = self.paths()
            yield from (k for k in keys if over == "paths" or self.canonical(k) == k)

    # --- drawing ------------------------------------------------------------------

    def sample(
        self, rng: np.random.Generator, n: int, over: Over = "archs"
    ) -> list[Arch]:
        """Draw `n` archs independently and uniformly.

        Args:
          rng: The source of randomness.
          n: How many, at least 0. Repetitions are possible.
          over: Uniform over all `archs`, over distinct `paths` (a shallow network has
            fewer paths than archs), or over distinct `canonical` archs.

        Returns:
          Archs; with `paths` and `canonical`, path keys.

        Raises:
          ValueError: If `over` is another word.

        Example:
          >>> SearchSpace([Choice("k", (3, 5))]).sample(np.random.default_rng(0), 2)
          [(1,), (1,)]
        """
        if over == "archs":
            shape = [len(c.options) for c in self.choices]
            return [
                tuple(map(int, row)) for row in rng.integers(0, shape, (n, len(shape)))
            ]
        if over == "paths" or (over == "canonical" and self.symmetry is None):
            return [self._sample_path(rng) for _ in range(n)]
        if over == "canonical":
            return [self._sample_canonical(rng) for _ in range(n)]
        raise ValueError(
            f"`over` is 'archs', 'paths' or 'canonical', but got {over!r}."
        )

    def _sample_path(self, rng: np.random.Generator) -> Arch:
        arch = [0] * len(self.choices)
        for component in self._components:
            for place, value in component.sample(rng):
                arch[place] = value
        return tuple(arch)

    @functools.cached_property
    def _canonical_archs(self) -> tuple[Arch, ...]:
        return tuple(self.enumerate("canonical"))

    def _sample_canonical(self, rng: np.random.Generator) -> Arch:
        if self.num_paths <= _ENUMERABLE:
            archs = self._canonical_archs
            return archs[int(rng.integers(len(archs)))]
        # Accepting only representatives makes each distinct network equally likely.
        for _ in range(100_000):
            if self.canonical(key := self._sample_path(rng)) == key:
                return key
        raise ValueError(
            "100,000 random paths held no canonical arch. The symmetry of this space "
            "must map a representative to itself; check it with `space.canonical`."
        )

    def neighbours(self, arch: Sequence[int]) -> list[Arch]:
        """Return the archs that differ from `arch` in one choice that it reads."""
        arch = self.check(arch)
        around = [
            (*arch[:i], value, *arch[i + 1 :])
            for i in self.read(arch)
            for value in range(len(self.choices[i].options))
            if value != arch[i]
        ]
        if (
            self._keys.ambiguous
        ):  # a depth less where the layer was skipped is no change
            own = self.path_key(arch)
            around = [a for a in around if self.path_key(a) != own]
        return around

    def mutate(
        self, rng: np.random.Generator, arch: Sequence[int], probability: float = 0.1
    ) -> Arch:
        """Change each choice that `arch` reads with `probability`, and at least one.

        Args:
          rng: The source of randomness.
          arch: The parent.
          probability: For each read choice, in 0 to 1; a changed choice takes one of
            its other options, each equally likely.

        Returns:
          The child; `arch` itself only where no read choice has a second option.
        """
        child = list(self.check(arch))
        places = [i for i in self.read(child) if len(self.choices[i].options) > 1]
        if not places:
            return tuple(child)
        changed = [i for i in places if rng.random() < probability]
        for i in changed or [places[int(rng.integers(len(places)))]]:
            shift = int(rng.integers(1, len(self.choices[i].options)))
            child[i] = (child[i] + shift) % len(self.choices[i].options)
        return tuple(child)

    def crossover(
        self, rng: np.random.Generator, a: Sequence[int], b: Sequence[int]
    ) -> Arch:
        """Return a child that takes each choice from `a` or `b` with equal chance."""
        a, b = self.check(a), self.check(b)
        from_a = rng.integers(0, 2, len(a)).astype(bool)
        return tuple(x if c else y for c, x, y in zip(from_a, a, b, strict=True))

    # --- JSON ---------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the space as JSON values; `SearchSpace.from_json` reads it back."""
        return {
            "choices": [{"name": c.name, "options": c.options} for c in self.choices],
            "readers": [dataclasses.asdict(r) for r in self.readers],
            "symmetry": symmetry_to_json(self.symmetry),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any], symmetry=None) -> SearchSpace:
        """Build a space from `to_json`'s values, also after a trip through text.

        Args:
          data: The values.
          symmetry: The function, where it was one that JSON cannot hold.

        Raises:
          ValueError: If such a function is needed and not given.
        """
        return SearchSpace(
            [Choice(c["name"], c["options"]) for c in data["choices"]],
            [Reader(**freeze_values(r)) for r in data["readers"]],
            symmetry or symmetry_from_json(data.get("symmetry")),
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that two spaces share only if they are equal."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
