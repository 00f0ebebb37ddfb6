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

Arch = tuple[int, ...]
Over = Literal["archs", "paths", "canonical"]

_ENUMERABLE = 200_000  # above this, distinct networks are drawn by rejection


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if isinstance(value, list | tuple) else value


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
        object.__setattr__(self, "options", _freeze(tuple(self.options)))
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
        these choices has one of these options. Empty: always active.
    """

    reads: tuple[int, ...]
    when: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def active(self, arch: Sequence[int]) -> bool:
        """Return whether `arch` reaches this place."""
        return all(arch[choice] in allowed for choice, allowed in self.when)


@dataclasses.dataclass(frozen=True)
class Commuting:
    """The canonical form where one option commutes with its neighbours.

    Within a group of choices (the layers of equal shape of one stage), where an option
    does nothing it does not matter which layer does nothing: the canonical arch moves
    those to the end of the group and keeps the order of the others.

    Args:
      groups: Groups of choice names, in the order of the layers.
      option: Index of the option that does nothing, the same in every group.

    Example:
      >>> space = SearchSpace([Choice(n, ("id", "conv")) for n in "ab"],
      ...                     canonical=Commuting((("a", "b"),)))
      >>> space.canonical((0, 1))
      (1, 0)
    """

    groups: tuple[tuple[str, ...], ...]
    option: int = 0

    def __call__(self, space: SearchSpace, arch: Arch) -> Arch:
        out = list(arch)
        for group in self.groups:
            places = [space.index(name) for name in group]
            kept = [arch[i] for i in places if arch[i] != self.option]
            padded = kept + [self.option] * (len(places) - len(kept))
            for place, value in zip(places, padded, strict=True):
                out[place] = value
        return tuple(out)


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
        try:
            values = [*arch]
        except TypeError:
            return [f"An arch is a sequence of option indices, but got {arch!r}."]
        if len(values) != len(self.choices):
            return [
                f"An arch of this space has {len(self.choices)} option indices, one per"
                f" choice, but got {len(values)}: {tuple(values)!r}."
            ]
        reasons = []
        for value, choice in zip(values, self.choices, strict=True):
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not 0 <= value < len(choice.options):
                reasons.append(
                    f"Choice {choice.name!r} has options {list(choice.options)}, so its"
                    f" index is 0 to {len(choice.options) - 1}, but got {value!r}."
                )
        return reasons

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
            if _freeze(option) not in choice.options:
                raise ValueError(
                    f"Choice {name!r} has options {list(choice.options)}; got "
                    f"{option!r}."
                )
            out[i] = choice.options.index(_freeze(option))
        return tuple(out)

    def read(self, arch: Sequence[int]) -> tuple[int, ...]:
        """Return the indices of the choices that the path of `arch` reads."""
        active = (r.reads for r in self.readers if r.active(arch))
        return tuple(sorted(set(itertools.chain.from_iterable(active))))

    def path_key(self, arch: Sequence[int]) -> Arch:
        """Return `arch` with unread choices at index 0: equal keys are one path."""
        read = set(self.read(arch))
        return tuple(int(v) if i in read else 0 for i, v in enumerate(arch))

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
    def _components(self) -> tuple[_Component, ...]:
        return tuple(_components(self))

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
        parts = [list(c.assignments(self)) for c in self._components]
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
            for place, value in component.sample(self, rng):
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
        return [
            (*arch[:i], value, *arch[i + 1 :])
            for i in self.read(arch)
            for value in range(len(self.choices[i].options))
            if value != arch[i]
        ]

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
        symmetry: Any = None
        if isinstance(self.symmetry, Commuting):
            symmetry = {"commuting": dataclasses.asdict(self.symmetry)}
        elif self.symmetry is not None:
            symmetry = {"function": getattr(self.symmetry, "__qualname__", "function")}
        return {
            "choices": [{"name": c.name, "options": c.options} for c in self.choices],
            "readers": [{"reads": r.reads, "when": r.when} for r in self.readers],
            "symmetry": symmetry,
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
        stored = data.get("symmetry")
        if symmetry is None and stored and "commuting" in stored:
            symmetry = Commuting(**_freeze_values(stored["commuting"]))
        if symmetry is None and stored:
            raise ValueError(
                f"This space names the function {stored['function']!r} for its "
                "canonical form, and JSON holds only its name. Pass it as `symmetry`."
            )
        return SearchSpace(
            [Choice(c["name"], c["options"]) for c in data["choices"]],
            [Reader(**_freeze_values(r)) for r in data["readers"]],
            symmetry,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that two spaces share only if they are equal."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _freeze_values(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _freeze(value) for key, value in data.items()}


@dataclasses.dataclass(frozen=True)
class _Component:
    """Choices linked by readers, split by the values of those that conditions name.

    Given the conditions' values (a case), which choices are read is known, and those
    vary freely: that makes counting and uniform sampling of paths exact and cheap.
    """

    cases: tuple[tuple[tuple[int, int], ...], ...]  # values of the conditions
    free: tuple[tuple[int, ...], ...]  # choices that vary, for each case
    weights: tuple[int, ...]  # paths in each case

    def assignments(self, space: SearchSpace) -> Iterator[tuple[tuple[int, int], ...]]:
        every = sorted({i for f in self.free for i in f})
        for case, free in zip(self.cases, self.free, strict=True):
            ranges = [
                range(len(space.choices[i].options)) if i in free else (0,)
                for i in every
            ]
            for values in itertools.product(*ranges):
                yield (*case, *zip(every, values, strict=True))

    def sample(self, space: SearchSpace, rng: np.random.Generator):
        i = _weighted(rng, self.weights)
        yield from self.cases[i]
        for place in self.free[i]:
            yield place, int(rng.integers(len(space.choices[place].options)))


def _weighted(rng: np.random.Generator, weights: Sequence[int]) -> int:
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


def _components(space: SearchSpace) -> Iterator[_Component]:
    parent = list(range(len(space.choices)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for reader in space.readers:
        linked = [*reader.reads, *(c for c, _ in reader.when)]
        for other in linked[1:]:
            parent[root(other)] = root(linked[0])
    groups: dict[int, list[int]] = {}
    for i in range(len(parent)):
        groups.setdefault(root(i), []).append(i)
    for members in groups.values():
        inside = set(members)
        readers = [r for r in space.readers if inside & {*r.reads, *dict(r.when)}]
        yield _component(space, members, readers)


def _component(
    space: SearchSpace, members: list[int], readers: list[Reader]
) -> _Component:
    deciding = sorted({c for r in readers for c, _ in r.when})
    cases, free, weights = [], [], []
    arch = [0] * len(space.choices)
    for values in itertools.product(
        *(range(len(space.choices[i].options)) for i in deciding)
    ):
        for place, value in zip(deciding, values, strict=True):
            arch[place] = value
        read = {i for r in readers if r.active(arch) for i in r.reads}
        # A condition that is itself unread stands at 0, or one path would count twice.
        if any(arch[i] and i not in read for i in deciding):
            continue
        vary = tuple(i for i in members if i in read and i not in deciding)
        cases.append(tuple(zip(deciding, values, strict=True)))
        free.append(vary)
        weights.append(math.prod(len(space.choices[i].options) for i in vary))
    return _Component(tuple(cases), tuple(free), tuple(weights))
