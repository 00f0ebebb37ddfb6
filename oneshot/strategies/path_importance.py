"""Importance sampling of paths by the norm of their gradients, without bias."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import SearchSpace
from oneshot.strategies.plans import Plan, Planned


@dataclasses.dataclass(frozen=True)
class PathImportance:
    """One path a step; options of larger gradients are drawn more often, and weigh less
    (the path half of Lu et al. 2023, PA&DA, arXiv:2302.14772).

    An option's probability is `share` times that by the moving mean of gradient norms,
    plus (1 - share) times the uniform one; the share rises from 0 to `most` over
    `steps`. The path's loss is weighted by uniform over actual probability, so that the
    expected gradient is the uniform sampler's, with less variance where norms differ.

    The norm is read at each step, which waits for the device. It is known with
    `clip_norm`; give a very large one to clip nothing.

    Args:
      space: The space to draw from.
      steps: Over which the share rises, at least 1.
      most: Share in the end, from 0 to below 1: options keep at least
        (1 - most) / options.
      rate: Share of a new norm in the moving means, above 0 to 1.

    Raises:
      ValueError: If a number is outside its range; in `observe`, if the trainer gives
        no norm.

    Example:
      >>> trainer = Trainer(net, PathImportance(net.space, 2000), sgd(), 0.1,
      ...                   clip_norm=5.0)
    """

    space: SearchSpace
    steps: int
    most: float = 0.8
    rate: float = 0.05

    def __post_init__(self):
        good = self.steps >= 1 and 0 <= self.most < 1 and 0 < self.rate <= 1
        if not good:
            raise ValueError(
                "The share rises over at least 1 step, to at least 0 and less than 1, "
                "and the rate is above 0 and at most 1, but got "
                f"steps={self.steps}, most={self.most}, rate={self.rate}."
            )

    def init(self) -> dict[str, Any]:
        return {
            "level": None,
            "norms": [[None] * len(c.options) for c in self.space.choices],
        }

    def probabilities(self, state: dict[str, Any], step: int) -> list[np.ndarray]:
        """Return the probability of each option, for each choice.

        An option that was never drawn counts as an average one.
        """
        share = self.most * min(1.0, step / self.steps)
        level, found = state["level"] or 1.0, []
        for own in state["norms"]:
            norms = np.array([level if norm is None else norm for norm in own])
            total = norms.sum()
            uniform = np.full(len(own), 1 / len(own))
            by_norm = norms / total if total > 0 else uniform
            found.append(share * by_norm + (1 - share) * uniform)
        return found

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        rng = np.random.default_rng([seed, ARCHS, step])
        found = self.probabilities(state, step)
        arch = tuple(int(rng.choice(len(p), p=p)) for p in found)
        drawn = (len(p) * p[o] for p, o in zip(found, arch, strict=True))
        return (Planned(arch, weight=float(1 / math.prod(drawn))),)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        if metrics.squared_norm is None:
            raise ValueError(
                "Importance by gradients needs their norm, which the trainer computes "
                "with `clip_norm`: give it one, such as 5.0, or 1e9 to clip nothing."
            )
        (planned,) = plan
        norm = math.sqrt(float(metrics.squared_norm)) / planned.weight
        if not math.isfinite(norm):
            return state
        level, norms = state["level"], [list(own) for own in state["norms"]]
        for i in self.space.read(planned.arch):
            own, option = norms[i], planned.arch[i]
            own[option] = self._mean(own[option], norm)
        return {"level": self._mean(level, norm), "norms": norms}

    def _mean(self, old: float | None, new: float) -> float:
        return new if old is None else old + self.rate * (new - old)
