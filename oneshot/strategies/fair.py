"""Strict fairness: every option of every choice is trained equally often.

Reference:
  Chu, Zhang, Xu. FairNAS: rethinking evaluation fairness of weight sharing neural
  architecture search. ICCV 2021. https://arxiv.org/abs/1907.01845
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, SearchSpace
from oneshot.strategies.plans import Plan, Planned, Reduce, path_weight


@dataclasses.dataclass(frozen=True)
class StrictFair:
    """Rounds of paths in which each option of each choice comes once.

    Archs are numbered through the run. Every choice goes through its options in cycles:
    a fresh permutation each, independent of the other choices and of other cycles. A
    round is as many archs as the largest choice has options. So

    - where all choices have equally many options, each round has every option of every
      choice exactly once, as in the paper;
    - a choice with fewer options begins its next cycle inside a round. At the end of
      any round, and after any number of archs, the counts of two of its options differ
      by at most one, and they are equal after every multiple of its number of options;
      those of all choices are equal after every least common multiple.

    Each arch alone is uniform over the archs of the space, and those of a round depend
    on each other. Fairness is that of archs: an option that a path does not read, since
    its layer is skipped, counts as well.

    Args:
      space: The space to draw from.
      reduce: "mean" weighs each path of a round by 1 / paths, so that the step's
        gradient, and the learning rate that suits it, is that of one path; "sum"
        weighs each by 1, as the paper accumulates gradients before it updates.
      one_by_one: One path a step, updated at once: step n takes arch n, so a round is
        `round_length` steps. By default one step trains a whole round.

    Raises:
      ValueError: If `reduce` is another word.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice("kernel", (3, 5)), Choice("expand", (3, 6))])
      >>> [p.arch for p in StrictFair(space).plan(None, seed=0, step=0)]
      [(1, 0), (0, 1)]
    """

    space: SearchSpace
    reduce: Reduce = "mean"
    one_by_one: bool = False

    def __post_init__(self):
        path_weight(self.reduce, 1)

    @property
    def round_length(self) -> int:
        """Archs in a round: the largest number of options of a choice."""
        return max((len(c.options) for c in self.space.choices), default=1)

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # archs are numbered by the step
        if self.one_by_one:
            return (Planned(fair_archs(self.space, seed, step, 1)[0]),)
        n = self.round_length
        weight = path_weight(self.reduce, n)
        archs = fair_archs(self.space, seed, step * n, n)
        return tuple(Planned(arch, "labels", weight) for arch in archs)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # fair, whatever happens
        return state


def fair_archs(space: SearchSpace, seed: int, first: int, n: int) -> list[Arch]:
    """Return the archs number `first` to `first + n - 1` of the fair sequence.

    Args:
      space: The space.
      seed: Which sequence.
      first: The number of the first arch, at least 0.
      n: How many.

    Returns:
      Archs; the same for equal arguments, however a sequence is cut into pieces.
    """
    sizes = np.array([len(c.options) for c in space.choices])
    rows = np.zeros((n, len(sizes)), int)
    for size in np.unique(sizes):
        mine = np.flatnonzero(sizes == size)
        cycles = range(first // size, (first + n - 1) // size + 1)
        options = _cycles(seed, int(size), len(mine), cycles)
        start = first - cycles[0] * size
        rows[:, mine] = options[start : start + n]
    return [tuple(map(int, row)) for row in rows]


def _cycles(seed: int, size: int, choices: int, cycles: Sequence[int]) -> np.ndarray:
    """Return the options of equally large choices through cycles, [steps, choices]."""
    ordered = np.tile(np.arange(size)[:, None], choices)
    drawn = [
        np.random.default_rng([seed, ARCHS, size, cycle]).permuted(ordered, axis=0)
        for cycle in cycles
    ]
    return np.concatenate(drawn)
