"""Attentive sampling: of several archs of one cost, train the best or the worst.

Reference:
  Wang, Li, Gong, Chandra. AttentiveNAS: improving neural architecture search via
  attentive sampling. CVPR 2021. https://arxiv.org/abs/2011.09011
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, SearchSpace
from oneshot.strategies.cost_targets import CostFn, Near, Target, draw_near
from oneshot.strategies.option_effects import OptionEffects
from oneshot.strategies.plans import Plan, Reduce, path_weight
from oneshot.strategies.sandwich import sandwich_plan

Predict = Callable[[list[Arch]], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Attentive:
    """A sandwich whose filling is picked: k archs at a target cost, one is trained.

    Each step trains the largest arch (which teaches), the smallest, and `picked`
    others. For each of those a target is drawn: the cost of a uniform arch, rounded to
    a multiple of `width`. Of `trials` uniform archs whose rounded cost is the target
    the one predicted best, or worst, is trained. With few archs of that cost the
    nearest of `tries` take their place; `candidates` says how far off they are.

    Without `predict`, quality is minus the loss that `OptionEffects` predicts from the
    losses of this run's smallest and picked archs, where the paper compares the trials'
    losses on the step's batch; then `observe` waits for the device at every step, and
    the paths of the first steps are picked at random.

    Args:
      space: The space to draw from.
      smallest, largest: Its ends, such as `ends` returns for the cost.
      cost: A function of the path: an arch to its cost. It is called up to `tries`
        times a target, on the host, so let it be quick.
      width: Distance of targets, above 0, in units of the cost (25 million
        multiply-adds in the paper).
      predict: Archs to one number each, higher is better; None for option effects.
      up: "best" or "worst" of the trials is trained.
      trials: Archs among which one is picked, at least 1 (3 in the paper).
      picked: Picked archs a step, at least 1.
      distil: Whether the largest teaches the others; else all compare with the labels.
      reduce: "sum" weighs each path by 1; "mean" by 1 / paths.
      tries: Uniform archs looked at for one target, at most; at least `trials`.
      rate: Of the moving means of option effects.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice(name, (0, 1, 2)) for name in "abc"])
      >>> first = lambda archs: [arch[0] for arch in archs]
      >>> strategy = Attentive(space, (0, 0, 0), (2, 2, 2), sum, 1, first)
      >>> [p.arch for p in strategy.plan(strategy.init(), seed=0, step=1)]
      [(2, 2, 2), (0, 0, 0), (1, 0, 2), (2, 1, 2)]
    """

    space: SearchSpace
    smallest: Arch
    largest: Arch
    cost: CostFn
    width: float
    predict: Predict | None = None
    _: dataclasses.KW_ONLY
    up: Literal["best", "worst"] = "best"
    trials: int = 3
    picked: int = 2
    distil: bool = True
    reduce: Reduce = "sum"
    tries: int = 200
    rate: float = 0.02

    def __post_init__(self):
        object.__setattr__(self, "smallest", self.space.check(self.smallest))
        object.__setattr__(self, "largest", self.space.check(self.largest))
        path_weight(self.reduce, 1)
        _ = self.effects  # refuses a rate out of range
        if not self.width > 0:
            raise ValueError(
                f"The `width` between targets is above 0, but got {self.width}."
            )
        if self.up not in ("best", "worst"):
            raise ValueError(f"`up` is 'best' or 'worst', but got {self.up!r}.")
        if not 1 <= self.trials <= self.tries or self.picked < 1:
            raise ValueError(
                "Attentive picks one arch or more, each of 1 to `tries` trials, but "
                f"got picked={self.picked}, trials={self.trials}, tries={self.tries}."
            )

    @functools.cached_property
    def effects(self) -> OptionEffects:
        """The estimator whose state is the strategy's, where `predict` is None."""
        return OptionEffects(self.space, self.rate)

    def target(self, rng: np.random.Generator) -> Target:
        """Draw a target: the costs that round to the same as that of a uniform arch."""
        [arch] = self.space.sample(rng, 1)
        nearest = np.floor(float(self.cost(arch)) / self.width + 0.5)
        return Target((nearest - 0.5) * self.width, (nearest + 0.5) * self.width)

    def candidates(self, rng: np.random.Generator, target: Target) -> list[Near]:
        """Draw the `trials` archs for a target, with how far each misses it."""
        return draw_near(
            rng, self.space, self.cost, target, n=self.trials, tries=self.tries
        )

    @property
    def guided(self) -> str:
        """What the supernet is told, in words."""
        return "paths drawn by their cost"

    def init(self) -> Any:
        return self.effects.init() if self.predict is None else None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        rng = np.random.default_rng([seed, ARCHS, step])
        filling = [self._pick(rng, state) for _ in range(self.picked)]
        others = [self.smallest, *filling]
        return sandwich_plan(self.largest, others, self.distil, self.reduce)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        """Return the next state; without `predict` this waits for the device."""
        if self.predict is not None:
            return state
        # The largest is left out: its loss is that of being trained at every step.
        archs = [p.arch for p in plan[1:]]
        losses = [float(one["loss"]) for one in metrics.logged[1:]]
        return self.effects.update(state, archs, losses)

    def _pick(self, rng: np.random.Generator, state: Any) -> Arch:
        archs = [near.arch for near in self.candidates(rng, self.target(rng))]
        if self.predict is None:
            quality = -self.effects.predict(state, archs)
        else:
            quality = np.asarray(self.predict(archs), float)
        if len(quality) != len(archs):
            raise ValueError(
                f"`predict` returns one number for each arch, but for {len(archs)} "
                f"archs it returned {len(quality)}."
            )
        if self.up == "worst":
            quality = -quality
        # An arch that could not be predicted is not picked over one that could.
        return archs[int(np.argmax(np.where(np.isnan(quality), -np.inf, quality)))]
