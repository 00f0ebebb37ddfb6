"""Attentive sampling: of networks of one cost, the best or the worst is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, SearchSpace
from oneshot.strategies.cost_binned import Cost
from oneshot.strategies.option_effects import OptionEffects, losses_of
from oneshot.strategies.plans import Plan, Planned, Reduce, share

Predict = Callable[[Sequence[Arch]], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Attentive:
    """A sandwich whose middle is chosen: best-up or worst-up of several candidates of
    about one cost (Wang et al. 2021, AttentiveNAS, arXiv:2011.09011).

    The cost is that of an arch drawn uniformly, to the nearest multiple of `width`, so
    that costs come as often as in uniform sampling; of `candidates` archs of that cost
    the one predicted best (or worst) is trained.

    Without `predict`, quality is minus the loss that a running additive model of the
    training losses expects; reading those losses waits for the device at each step. A
    ranking by a supernet trained so depends on what was predicted: report it as guided.

    Args:
      space: The space to draw from.
      largest, smallest: Trained at every step, the largest teaching the others.
      cost: Arch to its cost.
      width: Width of the bins of cost, above 0.
      pick: "best" trains towards the Pareto front, "worst" lifts what lags behind.
      candidates: How many archs are compared, at least 1.
      picked: How many paths are chosen so, at least 1.
      predict: Archs to their expected quality, higher is better; None learns it.
      reduce: A plan's gradient is the "mean" over its paths, or the "sum".

    Raises:
      ValueError: If a number is outside its range, or an arch not one of the space.

    Example:
      >>> Attentive(net.space, ends.largest, ends.smallest, macs, width=25e6)
    """

    space: SearchSpace
    largest: Arch
    smallest: Arch
    cost: Cost
    width: float
    pick: Literal["best", "worst"] = "best"
    candidates: int = 3
    picked: int = 2
    predict: Predict | None = None
    reduce: Reduce = "mean"

    def __post_init__(self):
        share(self.reduce, 1)
        for arch in (self.largest, self.smallest):
            self.space.check(arch)
        if self.pick not in ("best", "worst"):
            raise ValueError(f"`pick` is 'best' or 'worst', but got {self.pick!r}.")
        if self.width <= 0 or self.candidates < 1 or self.picked < 1:
            raise ValueError(
                "The width of a bin of cost is above 0, and candidates and picked "
                f"paths are at least 1, but got width={self.width}, "
                f"candidates={self.candidates}, picked={self.picked}."
            )

    @property
    def _effects(self) -> OptionEffects:
        return OptionEffects(self.space)

    def init(self) -> Any:
        return self._effects.init() if self.predict is None else None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        rng = np.random.default_rng([seed, ARCHS, step])
        chosen = [self._choose(state, rng) for _ in range(self.picked)]
        weight = share(self.reduce, 2 + self.picked)
        rest = (self.smallest, *chosen)
        teacher = Planned(self.largest, "teacher", weight)
        return teacher, *(Planned(arch, "student", weight) for arch in rest)

    def _choose(self, state: Any, rng: np.random.Generator) -> Arch:
        found = self.space.sample(rng, 1)
        wanted = self._bin(found[0])
        for _ in range(32 * self.candidates):  # a rare cost has few candidates
            if len(found) == self.candidates:
                break
            (arch,) = self.space.sample(rng, 1)
            if self._bin(arch) == wanted:
                found.append(arch)
        quality = self._quality(state, found)
        place = np.argmax(quality) if self.pick == "best" else np.argmin(quality)
        return found[int(place)]

    def _bin(self, arch: Arch) -> int:
        return round(self.cost(arch) / self.width)

    def _quality(self, state: Any, archs: Sequence[Arch]) -> Sequence[float]:
        if self.predict is not None:
            return self.predict(archs)
        return [-self._effects.loss(state, arch) for arch in archs]

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        if self.predict is not None:
            return state
        archs = [planned.arch for planned in plan]
        return self._effects.update(state, archs, losses_of(metrics))
