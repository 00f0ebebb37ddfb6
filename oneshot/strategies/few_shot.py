"""Few-shot supernets: weights copied for each option of a choice, and trained apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from oneshot.space import SearchSpace
from oneshot.strategies.plans import Plan, Strategy
from oneshot.strategies.uniform import Uniform


@dataclasses.dataclass(frozen=True)
class Restricted:
    """A strategy with some choices held fixed.

    Args:
      space: The space.
      inner: Draws plans; each of their archs then gets the fixed options. Where choices
        are drawn independently and uniformly, what remains is uniform.
      fixed: Option index by the choice's name.

    Raises:
      KeyError: If a choice does not exist.
      ValueError: If it has no such option.

    Example:
      >>> Restricted(net.space, Uniform(net.space), {"stage1.0.op": 2})
    """

    space: SearchSpace
    inner: Strategy
    fixed: Mapping[str, int]

    def __post_init__(self):
        for name, option in self.fixed.items():
            options = self.space.choices[self.space.index(name)].options
            if not 0 <= option < len(options):
                raise ValueError(
                    f"Choice {name!r} has the options {list(options)}, numbered from "
                    f"0, but was fixed at number {option}."
                )

    def init(self) -> Any:
        return self.inner.init()

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        places = {self.space.index(name): o for name, o in self.fixed.items()}
        return tuple(
            p._replace(arch=tuple(places.get(i, o) for i, o in enumerate(p.arch)))
            for p in self.inner.plan(state, seed, step)
        )

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        return self.inner.observe(state, plan, metrics)


def splits(
    space: SearchSpace, choice: str, inner: Strategy | None = None
) -> list[Restricted]:
    """Return one strategy for each option of a choice (Zhao et al. 2021, Few-shot NAS,
    arXiv:2006.06863).

    Train the whole supernet first, then a copy of its weights with each of them: less
    is shared, so inherited weights rank better, for more training. Score an arch with
    the weights of its own option.

    Args:
      space: The space.
      choice: Name of the choice to split by.
      inner: Draws the other choices; uniform over archs by default.

    Raises:
      KeyError: If the choice does not exist.

    Example:
      >>> state = ...  # of the whole supernet
      >>> parts = []
      >>> for strategy in splits(net.space, "stage1.0.op"):
      ...     part = trainer.with_strategy(strategy, schedule)
      ...     start = part.init(seed, images, weights=state.weights)  # a copy
      ...     parts.append(train(part, start).weights)
      >>> weights_of = lambda arch: parts[arch[net.space.index("stage1.0.op")]]
    """
    options = space.choices[space.index(choice)].options
    draws = Uniform(space) if inner is None else inner
    return [Restricted(space, draws, {choice: i}) for i in range(len(options))]
