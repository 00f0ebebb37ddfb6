"""Strict fairness: in each round every option of every choice is trained once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, SearchSpace
from oneshot.strategies.plans import Plan, Planned, Reduce, share


@dataclasses.dataclass(frozen=True)
class StrictFair:
    """Rounds of paths that train every option equally often (Chu et al. 2021, FairNAS,
    arXiv:1907.01845).

    Each choice deals its options from freshly shuffled decks of its own, one option to
    each path. Where all choices have m options, the m paths of a round hold every
    option of every choice exactly once. A choice of fewer options begins its next deck
    within the round: how often its options were dealt never differs by more than one.

    Archs are raw, not canonical: options of equal networks are trained as often as any.

    Args:
      space: The space to draw from.
      reduce: A plan's gradient is the "mean" over its paths, or the "sum", as in the
        paper.
      one_by_one: Train one path a step, each with an update of its own, instead of a
        whole round.

    Raises:
      ValueError: If the space has no choices, or `reduce` is another word.

    Example:
      >>> plan = StrictFair(supernet.space).plan((), seed=0, step=0)
      >>> sorted(planned.arch[0] for planned in plan)  # a choice of three options
      [0, 1, 2]
    """

    space: SearchSpace
    reduce: Reduce = "mean"
    one_by_one: bool = False

    def __post_init__(self):
        share(self.reduce, 1)
        if not self.space.choices:
            raise ValueError(
                "Fairness is among the options of choices, but this space has none. "
                "Train its only network with `Fixed`."
            )

    @property
    def round(self) -> int:
        """Paths in a round: the largest number of options of any choice."""
        return max(len(choice.options) for choice in self.space.choices)

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # decks follow from the seed
        n = 1 if self.one_by_one else self.round
        weight = share(self.reduce, n)
        turns = range(step * n, (step + 1) * n)
        return tuple(Planned(self._deal(seed, t), weight=weight) for t in turns)

    def _deal(self, seed: int, turn: int) -> Arch:
        dealt = []
        for i, choice in enumerate(self.space.choices):
            deck, place = divmod(turn, len(choice.options))
            rng = np.random.default_rng([seed, ARCHS, i, deck])
            dealt.append(int(rng.permutation(len(choice.options))[place]))
        return tuple(dealt)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # fair, whatever happens
        return state
