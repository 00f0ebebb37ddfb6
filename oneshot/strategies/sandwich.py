"""The sandwich: the largest network, the smallest, and random ones between."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, Over, SearchSpace
from oneshot.strategies.plans import Plan, Planned, Reduce, share


@dataclasses.dataclass(frozen=True)
class Sandwich:
    """Largest, smallest and random paths on each batch, all in one update (Yu & Huang
    2019, arXiv:1903.05134), the largest teaching the others (Yu et al. 2020, BigNAS,
    arXiv:2003.11142).

    Args:
      space: The space to draw from.
      largest: The arch that teaches; `CostTables(...).ends("macs").largest` finds it.
      smallest: The arch at the other end.
      random: How many random paths, 0 or more.
      distil: Whether the others learn from the largest one's outputs instead of the
        labels.
      reduce: A plan's gradient is the "mean" over its paths, or the "sum".
      over: Random paths are uniform over "archs", "paths" or "canonical" archs.

    Raises:
      ValueError: If an arch is not one of the space, or `random` is negative.

    Example:
      >>> ends = CostTables(net, images[:1]).ends("macs")
      >>> Sandwich(net.space, ends.largest, ends.smallest, random=2)
    """

    space: SearchSpace
    largest: Arch
    smallest: Arch
    random: int = 2
    distil: bool = True
    reduce: Reduce = "mean"
    over: Over = "archs"

    def __post_init__(self):
        share(self.reduce, 1)
        for arch in (self.largest, self.smallest):
            self.space.check(arch)
        if self.random < 0:
            raise ValueError(
                f"A sandwich has 0 random paths or more, but got random={self.random}."
            )

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # nothing to remember
        rng = np.random.default_rng([seed, ARCHS, step])
        drawn = self.space.sample(rng, self.random, self.over) if self.random else []
        weight = share(self.reduce, 2 + self.random)
        rest = "student" if self.distil else "labels"
        first = Planned(self.largest, "teacher" if self.distil else "labels", weight)
        return first, *(Planned(a, rest, weight) for a in (self.smallest, *drawn))

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # a fixed rule
        return state
