"""Layers: where a supernet depends on the arch.

A layer is a description, not a module: `OneOf` holds constructors, each with weights of
its own; `Elastic` one constructor whose module takes plain-int options; `Stage` a list
of layers of elastic depth. Anything else that is called with `rngs` and returns an NNX
module is a layer without choices. `flatten` turns them into a row of slots.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from oneshot.paths import Step
from oneshot.space import Choice, Reader

Make = Callable[..., Any]  # called as make(rngs=...), returns an nnx.Module


class Identity:
    """The option that skips a layer: it has no weights and leaves no step in the path.

    Example:
      >>> OneOf(skip=Identity, conv=lambda rngs: nnx.Conv(8, 8, (3, 3), rngs=rngs))
    """


class OneOf:
    """One of several modules, each with its own weights.

    Args:
      name: Name of the choice (default `<layer>.op`); layers that name one choice are
        tied to it.
      **options: A constructor taking `rngs`, an `Elastic`, or `Identity`, by option
        name. All must accept the same input; on paths where they give different
        shapes, the next layer has to accept each.

    Raises:
      ValueError: If there are no options.

    Example:
      >>> OneOf(skip=Identity, wide=lambda rngs: nnx.Linear(8, 8, rngs=rngs))
    """

    def __init__(self, name: str | None = None, /, **options: Make | Elastic | type):
        if not options:
            raise ValueError(
                "OneOf was given no options; write for example "
                "OneOf(skip=Identity, conv=lambda rngs: nnx.Conv(..., rngs=rngs))."
            )
        self.name, self.options = name, options


class Elastic:
    """One module called with static keyword options, its weights shared by all of them.

    Args:
      make: Constructor taking `rngs`. Its module is called as `module(x, **options)`
        with plain values, so slices of weights are static and narrow options are
        really narrow.
      **choices: Options by keyword: a tuple, or a `Choice` shared with other layers.

    Raises:
      ValueError: If there are no choices.

    Example:
      >>> Elastic(lambda rngs: Mlp(64, rngs=rngs), hidden=(64, 128, 256))
    """

    def __init__(self, make: Make, **choices: Sequence[Any] | Choice):
        if not choices:
            raise ValueError(
                "Elastic was given no choices. Give at least one keyword and its "
                "options, or pass the constructor itself as a fixed layer."
            )
        self.make, self.choices = make, choices


class Stage:
    """Consecutive layers of which only the first few run.

    Args:
      layers: A list, or a dict by name.
      depth: The possible numbers of layers to run, each in 0 to len(layers), or a
        `Choice` of such numbers; None runs all of them (a plain group).

    Raises:
      ValueError: If a depth is out of range.

    Example:
      >>> Stage([block, block, block], depth=(1, 2, 3))
    """

    def __init__(
        self,
        layers: Sequence[Any] | Mapping[str, Any],
        depth: Sequence[int] | Choice | None = None,
    ):
        self.layers, self.depth = layers, depth
        options = depth.options if isinstance(depth, Choice) else depth or ()
        if bad := [d for d in options if not 0 <= d <= len(layers)]:
            raise ValueError(
                f"A stage of {len(layers)} layers runs 0 to {len(layers)} of them, but "
                f"`depth` holds {bad}."
            )


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


class _Flattener:
    """Collects choices, readers and slots while walking down the layers."""

    def __init__(self):
        self.choices: dict[str, Choice] = {}
        self.readers: list[Reader] = []
        self.slots: list[Slot] = []
        self.modules: set[str] = set()

    def choose(self, default_name: str, options: Sequence[Any] | Choice) -> int:
        explicit = isinstance(options, Choice)
        choice = options if explicit else Choice(default_name, tuple(options))
        known = self.choices.setdefault(choice.name, choice)
        if known != choice:
            raise ValueError(
                f"Two layers name the choice {choice.name!r}, one with options "
                f"{list(known.options)} and one with {list(choice.options)}. Tied "
                "layers need equal options; give the second choice another name."
            )
        return [*self.choices].index(choice.name)

    def visit(self, layer: Any, name: str, when: When) -> None:
        if isinstance(layer, Stage):
            self.stage(layer, name, when)
        elif isinstance(layer, OneOf):
            self.one_of(layer, name, when)
        elif isinstance(layer, Elastic):
            branch = self.elastic(layer, name, name, when)
            self.add(name, when, None, (branch,))
        elif callable(layer):
            if when:  # reads nothing, but tells one depth from another
                self.readers.append(Reader((), when))
            self.add(name, when, None, (Branch(name, layer),))
        else:
            raise TypeError(
                f"Layer {name!r} is {layer!r}. A layer is OneOf, Elastic, Stage, or a "
                "constructor that takes `rngs` and returns an nnx.Module (a module "
                "that is already built cannot be one: write `lambda rngs: ...`)."
            )

    def add(self, name, when, choice, branches) -> None:
        for module in (branch.module for branch in branches if branch):
            if module in self.modules:
                raise ValueError(
                    f"Two layers are called {module!r}, so they would share weights. "
                    "Give one of them another name ('stem' and 'head' are taken)."
                )
            self.modules.add(module)
        self.slots.append(Slot(len(self.slots), name, when, choice, branches))

    def elastic(self, layer: Elastic, module: str, name: str, when: When) -> Branch:
        keys = {k: self.choose(f"{name}.{k}", o) for k, o in layer.choices.items()}
        self.readers.append(Reader(tuple(keys.values()), when))
        return Branch(module, layer.make, tuple(keys.items()))

    def one_of(self, layer: OneOf, name: str, when: When) -> None:
        named = Choice(layer.name or f"{name}.op", tuple(layer.options))
        choice = self.choose(named.name, named)
        skip = tuple(i for i, m in enumerate(layer.options.values()) if m is Identity)
        self.readers.append(Reader((choice,), when, skip))
        branches: list[Branch | None] = []
        for i, (option, make) in enumerate(layer.options.items()):
            module = f"{name}.{option}"
            if make is Identity:
                branches.append(None)
            elif isinstance(make, Elastic):
                inner = (*when, (choice, (i,)))
                branches.append(self.elastic(make, module, module, inner))
            else:
                branches.append(Branch(module, make))
        self.add(name, when, choice, tuple(branches))

    def stage(self, layer: Stage, name: str, when: When) -> None:
        depth = None
        if layer.depth is not None:
            depth = self.choose(f"{name}.depth", layer.depth)
            # A depth leaves nothing in the path itself: it acts through conditions.
            options = [*self.choices.values()][depth].options
            self.readers.append(Reader((depth,), when, tuple(range(len(options)))))
        for i, (key, inner) in enumerate(named_layers(layer.layers, "")):
            condition = when
            if depth is not None:
                options = [*self.choices.values()][depth].options
                runs = tuple(j for j, d in enumerate(options) if d > i)
                condition = (*when, (depth, runs))
            self.visit(inner, f"{name}.{key}", condition)


def named_layers(layers: Sequence[Any] | Mapping[str, Any], prefix: str):
    """Return (name, layer) pairs: a dict's own names, or `prefix` and the position."""
    if isinstance(layers, Mapping):
        return [*layers.items()]
    return [(f"{prefix}{i}", layer) for i, layer in enumerate(layers)]


def flatten(
    named: Sequence[tuple[str, Any]],
) -> tuple[tuple[Choice, ...], tuple[Reader, ...], tuple[Slot, ...]]:
    """Turn named layers into the choices, the readers and the slots of a supernet.

    Raises:
      ValueError: If the last one, the head, could be skipped.
    """
    flattener = _Flattener()
    for name, layer in named:
        flattener.visit(layer, name, ())
    last = flattener.slots[-1]
    if last.when or None in last.branches:
        raise ValueError(
            f"The head {last.name!r} could be skipped, so that a network had no head. "
            "Let every option of it compute the output, and put what may be skipped "
            "among the layers."
        )
    choices = tuple(flattener.choices.values())
    return choices, tuple(flattener.readers), tuple(flattener.slots)
