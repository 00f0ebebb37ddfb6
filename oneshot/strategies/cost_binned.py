"""Sampling that is even over costs, where uniform archs crowd in the middle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, SearchSpace
from oneshot.strategies.plans import Plan, Planned

Cost = Callable[[Arch], float]


@dataclasses.dataclass(frozen=True)
class CostBinned:
    """One path a step: a bin of costs drawn uniformly, then an arch within it.

    Uniform archs have costs near the mean: the ends of a space are hardly ever trained
    (ShiftNAS, Zhang et al. 2023, arXiv:2307.08300, names this). Within its bin an arch
    is uniform. Of `tries` archs the first in the bin is taken, and where none is, the
    one that comes nearest: raise `tries` where the outer bins hold few archs.

    A ranking by a supernet trained so depends on cost: report it as guided.

    Args:
      space: The space to draw from.
      cost: Arch to its cost, such as `tables.value("macs", arch)` of `CostTables`.
      edges: Borders of the bins, ascending, at least two.
      tries: Archs that are drawn for each step, at least 1.

    Raises:
      ValueError: If the edges do not ascend, or `tries` is below 1.

    Example:
      >>> edges = tuple(np.linspace(ends.least, ends.greatest, 9))
      >>> CostBinned(net.space, cost, edges)
    """

    space: SearchSpace
    cost: Cost
    edges: tuple[float, ...]
    tries: int = 64

    def __post_init__(self):
        if len(self.edges) < 2 or (np.diff(self.edges) <= 0).any():
            raise ValueError(
                "Bins need at least two edges in ascending order, but got "
                f"{self.edges}."
            )
        if self.tries < 1:
            raise ValueError(f"`tries` is at least 1, but got {self.tries}.")

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # nothing to remember
        rng = np.random.default_rng([seed, ARCHS, step])
        place = int(rng.integers(len(self.edges) - 1))
        low, high = self.edges[place], self.edges[place + 1]
        last = place == len(self.edges) - 2  # whose upper border belongs to it
        best, nearest = None, np.inf
        for _ in range(self.tries):
            (arch,) = self.space.sample(rng, 1)
            cost = self.cost(arch)
            if low <= cost < high or (last and cost == high):
                return (Planned(arch),)
            away = low - cost if cost < low else cost - high
            if away < nearest:
                best, nearest = arch, away
        assert best is not None
        return (Planned(best),)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # cost does not change
        return state
