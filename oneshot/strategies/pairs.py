"""Pairs of paths whose order a prior knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, Over, SearchSpace
from oneshot.strategies.plans import Plan, Planned, Reduce, path_weight


@dataclasses.dataclass(frozen=True)
class PriorPairs:
    """Two uniform paths a step, and which of them ought to have the lower loss
    (Dong et al. 2022, Prior-guided one-shot NAS, arXiv:2206.13329).

    The trainer adds `Teaching.rank` of their losses. Paths that the prior holds equal
    train by the labels alone. The prior enters the ranking: report it as guided, beside
    the partial correlation given the prior.

    Args:
      space: The space to draw from.
      prior: Arch to what is expected of it, higher is better, such as multiply-adds.
      reduce: A plan's gradient is the "mean" over its two paths, or the "sum"; the rank
        loss is added in full.
      over: Uniform over "archs", "paths" or "canonical" archs.

    Raises:
      ValueError: If `reduce` is another word.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice(name, (0, 1, 2)) for name in "abc"])
      >>> plan = PriorPairs(space, prior=sum).plan(None, seed=0, step=0)
      >>> [(p.arch, p.role) for p in plan]
      [((2, 1, 1), 'better'), ((0, 0, 0), 'worse')]
    """

    space: SearchSpace
    prior: Callable[[Arch], float]
    reduce: Reduce = "mean"
    over: Over = "archs"

    def __post_init__(self):
        path_weight(self.reduce, 1)

    @property
    def guided(self) -> str:
        """What the supernet is told, in words."""
        return "pairs of paths in the order of a prior"

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # nothing to remember
        rng = np.random.default_rng([seed, ARCHS, step])
        archs = self.space.sample(rng, 2, self.over)
        worse, better = sorted(archs, key=self.prior)
        weight = path_weight(self.reduce, 2)
        # Nor does a prior that is not a number say which is better.
        if not self.prior(worse) < self.prior(better):
            return tuple(Planned(arch, weight=weight) for arch in archs)
        return Planned(better, "better", weight), Planned(worse, "worse", weight)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # the prior does not change
        return state
