"""Uniform sampling, a single path a step.

Reference:
  Guo, Zhang, Mu, Heng, Liu, Wei, Sun. Single path one-shot neural architecture search
  with uniform sampling. ECCV 2020. https://arxiv.org/abs/1904.00420
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Over, SearchSpace
from oneshot.strategies.plans import Plan, Planned


@dataclasses.dataclass(frozen=True)
class Uniform:
    """One path a step, drawn uniformly.

    Args:
      space: The space to draw from.
      over: Uniform over "archs", distinct "paths", or distinct "canonical" archs.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice("kernel", (3, 5)), Choice("expand", (3, 6))])
      >>> Uniform(space).plan(None, seed=0, step=7)
      (Planned(arch=(1, 0), role='labels', weight=1.0),)
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
