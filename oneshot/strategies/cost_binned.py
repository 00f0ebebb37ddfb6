"""Uniform over costs, where uniform archs are all of middling cost."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import SearchSpace
from oneshot.strategies.cost_targets import CostFn, Near, Target, draw_near
from oneshot.strategies.plans import Plan, Planned


@dataclasses.dataclass(frozen=True)
class CostBinned:
    """One path a step: a bin of cost, each equally likely, then an arch in it.

    The arch is the first of up to `tries` uniform ones whose cost falls into the bin,
    so uniform over the archs of the bin. If none does it is the nearest of them:
    `draw` says how far off. Bins that uniform archs hardly reach take all tries, each
    a call of `cost` on the host, and mostly give neighbours of the bin; take wider ones
    at the ends.

    Args:
      space: The space to draw from.
      cost: A function of the path: an arch to its cost, such as
        `functools.partial(CostTables(net, x).value, "macs")`.
      edges: Edges of the bins, ascending, two or more: bin i holds the costs from edge
        i up to, without, edge i + 1; the last one holds its upper edge, too. `even`
        makes such edges.
      tries: Uniform archs looked at, at most; at least 1.

    Raises:
      ValueError: If there are no bins, edges do not ascend, or `tries` is below 1.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice(name, (0, 1, 2)) for name in "abc"])
      >>> strategy = CostBinned(space, sum, even(0, 6, bins=3))
      >>> [sum(strategy.plan(None, 0, step)[0].arch) for step in range(6)]
      [4, 4, 1, 5, 0, 6]
    """

    space: SearchSpace
    cost: CostFn
    edges: Sequence[float]
    tries: int = 200

    def __post_init__(self):
        object.__setattr__(self, "edges", tuple(map(float, self.edges)))
        ascend = all(a < b for a, b in itertools.pairwise(self.edges))
        if len(self.edges) < 2 or not ascend or not np.isfinite(self.edges).all():
            raise ValueError(
                "CostBinned needs two or more finite `edges` of bins in ascending "
                f"order, but got {list(self.edges)}."
            )
        if self.tries < 1:
            raise ValueError(f"`tries` is at least 1, but got {self.tries}.")

    def draw(self, seed: int, step: int) -> tuple[int, Near]:
        """Return the bin of a step, and its arch with how far it misses the bin."""
        rng = np.random.default_rng([seed, ARCHS, step])
        i = int(rng.integers(len(self.edges) - 1))
        low, high = self.edges[i : i + 2]
        if i == len(self.edges) - 2:
            high = float(np.nextafter(high, np.inf))  # the last edge is inside
        target = Target(low, high)
        [near] = draw_near(rng, self.space, self.cost, target, tries=self.tries)
        return i, near

    @property
    def guided(self) -> str:
        """What the supernet is told, in words."""
        return "paths drawn by their cost"

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # nothing to remember
        return (Planned(self.draw(seed, step)[1].arch),)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # uniform over costs, whatever happens
        return state


def even(low: float, high: float, bins: int) -> tuple[float, ...]:
    """Return the edges of equally wide bins between two costs.

    Example:
      >>> even(0, 6, bins=3)
      (0.0, 2.0, 4.0, 6.0)
    """
    return tuple(map(float, np.linspace(low, high, bins + 1)))
