"""Archs whose cost is near a target, by tries that end.

Uniform archs have middling costs: sums of many independent parts seldom reach their
ends. Strategies that want every cost therefore draw until one fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from oneshot.space import Arch, SearchSpace

CostFn = Callable[[Arch], float]


class Near(NamedTuple):
    """An arch drawn for a range of costs.

    Attributes:
      arch: The arch.
      cost: Its cost.
      miss: How far its cost is outside the range; 0 inside.
    """

    arch: Arch
    cost: float
    miss: float


class Target(NamedTuple):
    """A range of costs: from `low`, itself included, up to `high`, which is not."""

    low: float
    high: float

    def miss(self, cost: float) -> float:
        """Return how far `cost` is outside; infinity for NaN."""
        if math.isnan(cost):
            return math.inf
        if cost < self.low:
            return self.low - cost
        # `high` itself is outside, by the least that a number can be.
        return 0.0 if cost < self.high else max(cost - self.high, math.ulp(cost))


def draw_near(
    rng: np.random.Generator,
    space: SearchSpace,
    cost: CostFn,
    target: Target,
    *,
    n: int = 1,
    tries: int = 200,
) -> list[Near]:
    """Draw `n` archs whose cost is in a range, or the nearest of bounded tries.

    Args:
      rng: The source of randomness.
      space: The space to draw from.
      cost: A function of the path: an arch to its cost.
      target: The range.
      n: How many, at least 1.
      tries: Uniform archs that are looked at, at most; at least `n`.

    Returns:
      `n` archs, those that miss the range least first. Where all have a miss of 0 they
      are independent and uniform over the archs of the range.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice(name, (0, 1, 2)) for name in "abc"])
      >>> [found] = draw_near(np.random.default_rng(0), space, sum, Target(6, 7))
      >>> found
      Near(arch=(2, 2, 2), cost=6.0, miss=0.0)
    """
    seen, hits = [], 0
    while hits < n and len(seen) < tries:
        more = max(4 * n, len(seen))  # few at first: costs in the middle are soon met
        for arch in space.sample(rng, min(more, tries - len(seen))):
            value = float(cost(arch))
            seen.append(Near(arch, value, target.miss(value)))
            hits += seen[-1].miss == 0
            if hits == n:
                break
    return sorted(seen, key=lambda near: near.miss)[:n]
