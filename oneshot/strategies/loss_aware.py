"""Loss-aware sampling: options that did well so far are trained more often."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, SearchSpace
from oneshot.strategies.option_draws import draw_options
from oneshot.strategies.option_effects import OptionEffects
from oneshot.strategies.plans import Plan, Planned, Reduce, path_weight


@dataclasses.dataclass(frozen=True)
class LossAware:
    """Paths whose options are likelier the lower the losses seen with them.

    With chance `explore` an arch is uniform; else every choice draws its option on its
    own, in proportion to exp(-effect / temperature), with the effect of the option on
    the loss, see `OptionEffects`. So at any state each arch keeps a probability of at
    least `floor`, explore / size of the space. Before losses are seen all is uniform.

    It trains what will be searched for, and by that it favours it: the ranking of
    archs that were seldom drawn gets worse. `observe` waits for the device.

    The losses seen are those of training; with a `history` of trials, such as those of
    a search by the weights so far, the first steps know them, too.

    Args:
      space: The space to draw from.
      temperature: Above 0, in units of the loss: an option whose effect is this much
        lower is e times as likely.
      explore: Share of uniform archs, in 0 to 1.
      rate: Of the moving means of option effects, in (0, 1].
      paths: Paths a step, at least 1.
      reduce: "mean" weighs each path by 1 / paths; "sum" by 1.
      history: Archs and losses of trials, the oldest first, to start from.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice("kernel", (3, 5))])
      >>> strategy = LossAware(space, temperature=1.0, explore=0.5)
      >>> seen = OptionEffects(space).update(strategy.init(), [(0,), (1,)], [1.0, 2.0])
      >>> strategy.probabilities(seen)[0].round(2), strategy.floor
      (array([0.62, 0.38]), 0.25)
    """

    space: SearchSpace
    temperature: float = 0.1
    explore: float = 0.2
    rate: float = 0.02
    paths: int = 1
    reduce: Reduce = "mean"
    history: Sequence[tuple[Arch, float]] = ()

    def __post_init__(self):
        path_weight(self.reduce, 1)
        _ = self.effects  # refuses a rate out of range
        if not self.temperature > 0 or not 0 <= self.explore <= 1 or self.paths < 1:
            raise ValueError(
                "LossAware needs a `temperature` above 0, `explore` in 0 to 1 and one "
                f"path or more, but got temperature={self.temperature}, explore="
                f"{self.explore} and paths={self.paths}."
            )
        for arch, _ in self.history:
            self.space.check(arch)

    @functools.cached_property
    def effects(self) -> OptionEffects:
        """The estimator whose state is the strategy's."""
        return OptionEffects(self.space, self.rate)

    @property
    def floor(self) -> float:
        """The least probability of an arch, at any state."""
        return self.explore / self.space.size

    def probabilities(self, state: Any) -> list[np.ndarray]:
        """Return how often each option of each choice is drawn, [options] a choice."""
        return [
            self.explore / len(row) + (1 - self.explore) * row
            for row in self._preferred(state)
        ]

    def _preferred(self, state: Any) -> list[np.ndarray]:
        return [_softmax(-e / self.temperature) for e in self.effects.effects(state)]

    def init(self) -> Any:
        archs, losses = [arch for arch, _ in self.history], [v for _, v in self.history]
        return self.effects.update(self.effects.init(), archs, losses)

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        rng = np.random.default_rng([seed, ARCHS, step])
        preferred = self._preferred(state)
        weight = path_weight(self.reduce, self.paths)
        archs = [self._draw(rng, preferred) for _ in range(self.paths)]
        return tuple(Planned(arch, "labels", weight) for arch in archs)

    def _draw(self, rng: np.random.Generator, preferred: list[np.ndarray]) -> Arch:
        # Whole archs are uniform or not: mixing in each choice would leave an arch of n
        # unlikely options explore**n instead of explore.
        if rng.random() < self.explore:
            return self.space.sample(rng, 1)[0]
        return draw_options(rng, preferred)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        """Return the state with the losses of the step; this waits for the device."""
        losses = [float(one["loss"]) for one in metrics.logged]
        return self.effects.update(state, [p.arch for p in plan], losses)


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max())
    return powers / powers.sum()
