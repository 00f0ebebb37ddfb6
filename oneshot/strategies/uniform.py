"""One path a step, drawn uniformly."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Over, SearchSpace
from oneshot.strategies.plans import Plan, Planned


@dataclasses.dataclass(frozen=True)
class Uniform:
    """One path a step, drawn uniformly (Guo et al. 2020, Single Path One-Shot,
    1904.00420).

    Args:
      space: The space to draw from.
      over: Uniform over "archs", distinct "paths", or distinct "canonical" archs.

    Example:
      >>> Uniform(supernet.space).plan((), seed=0, step=7)[0].arch
    """

    space: SearchSpace
    over: Over = "archs"

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # nothing to remember
        rng = np.random.default_rng([seed, ARCHS, step])
        return (Planned(self.space.sample(rng, 1, self.over)[0]),)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # uniform, whatever happens
        return state
