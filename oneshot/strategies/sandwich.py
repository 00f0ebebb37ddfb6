"""The sandwich rule: the largest, the smallest and some random subnets together.

Reference:
  Yu, Huang. Universally slimmable networks and improved training techniques. ICCV
  2019. https://arxiv.org/abs/1903.05134
  Yu, Jin, Liu, Bender, Kindermans, Tan, Huang, Song, Pang, Le. BigNAS: scaling up
  neural architecture search with big single-stage models. ECCV 2020.
  https://arxiv.org/abs/2003.11142
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from oneshot.constraints import extremes
from oneshot.randomness import ARCHS
from oneshot.space import Arch, Over, SearchSpace
from oneshot.strategies.plans import Plan, Planned, Reduce, Role, path_weight


@dataclasses.dataclass(frozen=True)
class Sandwich:
    """Every step trains the largest, the smallest, and `random` uniform archs.

    The largest compares with the labels and teaches the others (in-place
    distillation).

    Args:
      space: The space to draw from.
      smallest, largest: Its ends, such as `ends` returns for a cost.
      random: Random archs a step, at least 0.
      distil: Whether the largest teaches the others; else all compare with the labels.
      reduce: "sum" weighs each path by 1, as in BigNAS; "mean" by 1 / paths.
      over: Random archs are uniform over this, see `SearchSpace.sample`.

    Raises:
      ValueError: If an end is not an arch of the space, `random` is negative, or
        `reduce` is another word.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice("depth", (2, 3, 4)), Choice("width", (8, 16))])
      >>> strategy = Sandwich(space, *ends(space, cost=sum), random=1)
      >>> [(p.arch, p.role) for p in strategy.plan(None, seed=0, step=0)]
      [((2, 1), 'teacher'), ((0, 0), 'student'), ((2, 1), 'student')]
    """

    space: SearchSpace
    smallest: Arch
    largest: Arch
    random: int = 2
    distil: bool = True
    reduce: Reduce = "sum"
    over: Over = "archs"

    def __post_init__(self):
        object.__setattr__(self, "smallest", self.space.check(self.smallest))
        object.__setattr__(self, "largest", self.space.check(self.largest))
        path_weight(self.reduce, 1)
        if self.random < 0:
            raise ValueError(
                "A sandwich holds `random` archs between its ends, 0 or more, but got "
                f"{self.random}."
            )

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # nothing to remember
        rng = np.random.default_rng([seed, ARCHS, step])
        filling = self.space.sample(rng, self.random, self.over)
        archs = [self.smallest, *filling]
        return sandwich_plan(self.largest, archs, self.distil, self.reduce)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # the same rule, whatever happens
        return state


def sandwich_plan(
    largest: Arch, others: list[Arch], distil: bool, reduce: Reduce
) -> Plan:
    """Return the plan in which `largest` comes first and teaches `others`, or not."""
    weight = path_weight(reduce, 1 + len(others))
    first: Role = "teacher" if distil and others else "labels"
    rest: Role = "student" if distil else "labels"
    return (
        Planned(largest, first, weight),
        *(Planned(arch, rest, weight) for arch in others),
    )


def ends(space: SearchSpace, cost: Callable[[Arch], float]) -> tuple[Arch, Arch]:
    """Return the archs of least and of greatest cost, as path keys.

    Up to 200,000 paths are all looked at; in larger spaces both ends are what
    coordinate descent finds, which is right for costs that grow with every option. For
    parameters and multiply-adds of a supernet, `CostTables(net, x).ends("macs")` has
    the true `smallest` and `largest` of spaces of any size.

    Args:
      space: The space.
      cost: A function of the path: an arch to its cost.

    Returns:
      (smallest, largest).

    Example:
      >>> from oneshot.space import Choice
      >>> ends(SearchSpace([Choice("width", (8, 4, 16))]), lambda a: (8, 4, 16)[a[0]])
      ((1,), (2,))
    """
    return extremes(space, cost)
