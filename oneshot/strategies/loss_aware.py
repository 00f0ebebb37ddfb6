"""Sampling that follows what training has shown of each option."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import SearchSpace
from oneshot.strategies.option_effects import OptionEffects, losses_of
from oneshot.strategies.plans import Plan, Planned


@dataclasses.dataclass(frozen=True)
class LossAware:
    """One path a step; options of lower loss are drawn more often.

    An option's probability is a softmax of minus its effect on the loss, mixed with the
    uniform one: every option keeps at least `explore` / options. (In the spirit of
    greedy path filtering, You et al. 2020, GreedyNAS, arXiv:2003.11236, by options
    instead of paths.) Reading the losses waits for the device at each step. What is
    drawn often is trained better, so the ranking is biased to it: report it as guided.

    Args:
      space: The space to draw from.
      temperature: Of the softmax, in nats of loss, above 0.
      explore: Share of the uniform distribution, above 0 to 1.
      rate: Share of a new loss in the moving means, above 0 to 1.

    Raises:
      ValueError: If a number is outside its range.

    Example:
      >>> strategy = LossAware(net.space, temperature=0.1)
      >>> strategy.probabilities(state.strategy)
    """

    space: SearchSpace
    temperature: float = 0.1
    explore: float = 0.5
    rate: float = 0.05

    def __post_init__(self):
        if self.temperature <= 0 or not 0 < self.explore <= 1:
            raise ValueError(
                "A temperature is above 0, and the uniform share above 0 and at most "
                f"1, but got temperature={self.temperature}, explore={self.explore}."
            )
        self.init()  # checks the rate

    @property
    def _effects(self) -> OptionEffects:
        return OptionEffects(self.space, self.rate)

    def init(self) -> dict[str, Any]:
        return self._effects.init()

    def probabilities(self, state: dict[str, Any]) -> list[np.ndarray]:
        """Return the probability of each option, for each choice."""
        found = []
        for effects in state["effects"]:
            score = -np.asarray(effects) / self.temperature
            soft = np.exp(score - score.max())
            uniform = self.explore / len(soft)
            found.append(uniform + (1 - self.explore) * soft / soft.sum())
        return found

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        rng = np.random.default_rng([seed, ARCHS, step])
        drawn = (int(rng.choice(len(p), p=p)) for p in self.probabilities(state))
        return (Planned(tuple(drawn)),)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        archs = [planned.arch for planned in plan]
        return self._effects.update(state, archs, losses_of(metrics))
