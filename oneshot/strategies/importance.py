"""Importance sampling of paths: those of large gradients more often, at less weight.

Reference:
  Lu, Hu, Yang, Sun, Mei, Tan, Song. PA&DA: jointly sampling path and data for
  consistent NAS. CVPR 2023. https://arxiv.org/abs/2302.14772
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, SearchSpace
from oneshot.strategies.option_draws import draw_options
from oneshot.strategies.option_effects import OptionMeans
from oneshot.strategies.plans import Plan, Planned

_LEAST = 0.01  # of the mean norm: what a norm near 0 counts as, so weights stay finite


@dataclasses.dataclass(frozen=True)
class PathImportance:
    """One path a step, its options likelier the larger the gradients seen with them.

    Every choice draws its option on its own, with probability (1 - tau) / options +
    tau * norm / sum of norms; the norm is the moving mean of the gradient's norm over
    paths with that option. The path's weight is the uniform probability of the options
    that it reads over the probability they were drawn with, so that the expected
    gradient is that of uniform sampling whatever the norms, with less variance where
    norms tell something.

    Norms are `metrics.logged[i]["gradient_norm"]`, of the path's loss before its
    weight, where the trainer logs that; else the root of `metrics.squared_norm`, which
    a trainer measures with a `clip_norm` (a large one clips nothing) and from which the
    weight is divided out. Reading them waits for the device.

    Args:
      space: The space to draw from.
      steps: Steps over which tau rises from 0 to its end, linearly; at least 1.
      tau: Its end, in 0 to 1.
      rate: Of the moving means of norms, in (0, 1].

    Raises:
      ValueError: If an argument is out of range, or, when observing, no norm was
        measured.

    Example:
      >>> from oneshot.space import Choice
      >>> strategy = PathImportance(SearchSpace([Choice("kernel", (3, 5))]), steps=100)
      >>> state = strategy.norms.update(strategy.init(), (0,), 3.0)
      >>> state = strategy.norms.update(state, (1,), 1.0)
      >>> [strategy.probabilities(state, step)[0].tolist() for step in (0, 50, 100)]
      [[0.5, 0.5], [0.625, 0.375], [0.75, 0.25]]
      >>> strategy.weight((1,), strategy.probabilities(state, 100))
      2.0
    """

    space: SearchSpace
    steps: int
    tau: float = 1.0
    rate: float = 0.02

    def __post_init__(self):
        _ = self.norms  # refuses a rate out of range
        if self.steps < 1 or not 0 <= self.tau <= 1:
            raise ValueError(
                "PathImportance raises `tau`, in 0 to 1, over one step or more, but got"
                f" tau={self.tau} and steps={self.steps}."
            )

    @functools.cached_property
    def norms(self) -> OptionMeans:
        """The moving means whose state is the strategy's."""
        return OptionMeans(self.space, self.rate)

    def probabilities(self, state: Any, step: int) -> list[np.ndarray]:
        """Return the probability of each option of each choice, [options] a choice.

        An option not seen yet counts as one of the mean norm of the others.
        """
        tau = self.tau * min(1.0, step / self.steps)
        rows = zip(state["means"], state["counts"], strict=True)
        return [mixed(np.array(norms), np.array(n) > 0, tau) for norms, n in rows]

    def weight(self, arch: Arch, probabilities: list[np.ndarray]) -> float:
        """Return uniform probability / probability of the options that `arch` reads.

        Those of options that it does not read average out to 1 over the archs of a
        path; leaving them out keeps the mean and takes away variance.
        """
        read = self.space.read(arch)
        return math.prod(
            float(1 / (len(probabilities[i]) * probabilities[i][arch[i]])) for i in read
        )

    def init(self) -> Any:
        return self.norms.init()

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        rng = np.random.default_rng([seed, ARCHS, step])
        probabilities = self.probabilities(state, step)
        arch = draw_options(rng, probabilities)
        return (Planned(arch, "labels", self.weight(arch, probabilities)),)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        """Return the state with the norm of the step; this waits for the device."""
        [planned], [logged] = plan, metrics.logged
        if "gradient_norm" in logged:
            norm = float(logged["gradient_norm"])
        elif metrics.squared_norm is not None:
            norm = math.sqrt(float(metrics.squared_norm)) / planned.weight
        else:
            raise ValueError(
                "PathImportance samples by the norms of gradients, but the trainer "
                "measured none. Give it a `clip_norm`; 1e9 measures and never clips."
            )
        return self.norms.update(state, planned.arch, norm)


def mixed(norms: np.ndarray, seen: np.ndarray, tau: float) -> np.ndarray:
    """Return probabilities between uniform (tau 0) and proportional to norms (1).

    Args:
      norms: Not negative, [n].
      seen: Which of them were measured, [n]; others count as the mean of those.
      tau: In 0 to 1.

    Returns:
      [n], all above 0, with a sum of 1. A norm under a hundredth of the mean counts as
      that.

    Example:
      >>> mixed(np.array([3.0, 1.0]), np.array([True, True]), 1.0)
      array([0.75, 0.25])
    """
    mean = norms[seen].mean() if seen.any() else 0.0
    if mean == 0:  # nothing is known, or all that is known is 0
        return np.full(len(norms), 1 / len(norms))
    known = np.where(seen, np.maximum(norms, _LEAST * mean), mean)
    return (1 - tau) / len(norms) + tau * known / known.sum()
