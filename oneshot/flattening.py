"""From layers to choices, readers and slots: what a supernet is built of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oneshot.layers import Elastic, Identity, OneOf, Stage, named_layers
from oneshot.slots import Branch, Slot, When
from oneshot.space import Choice, Reader


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
