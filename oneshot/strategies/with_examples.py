"""A strategy of paths together with one of examples.

Reference:
  Lu, Hu, Yang, Sun, Mei, Tan, Song. PA&DA: jointly sampling path and data for
  consistent NAS. CVPR 2023. https://arxiv.org/abs/2302.14772
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from oneshot.strategies.data_importance import DataImportance
from oneshot.strategies.plans import Plan, Strategy, guided


@dataclasses.dataclass(frozen=True)
class WithExamples:
    """The plans of another strategy, on examples drawn by the norms of their gradients.

    `fit` draws the batches, and the trainer weighs each example's loss, a teacher's
    students' too, so that the expected gradient is that of examples drawn alike. With
    `PathImportance` for the paths this is PA&DA. Norms are those of the loss with the
    labels, with respect to the outputs of the paths that the step trained, weighted as
    in the plan; an example keeps the last one. Reading them waits for the device, and
    the state holds one number for each training example.

    What a batch does as a whole no weight can correct: the statistics of BatchNorm,
    clipping, a rank loss between two paths, and augmentations that mix examples
    (`mixup`, `cutmix`), whose partners are drawn unevenly as well.

    Args:
      inner: Draws the paths.
      examples: Draws the examples.

    Example:
      >>> from oneshot.space import Choice, SearchSpace
      >>> from oneshot.strategies import Uniform
      >>> space = SearchSpace([Choice("kernel", (3, 5))])
      >>> strategy = WithExamples(Uniform(space), DataImportance(examples=4, steps=10))
      >>> indices, weights = strategy.draw(strategy.init(), seed=0, step=0, n=3)
      >>> weights
      array([1., 1., 1.], dtype=float32)
    """

    inner: Strategy
    examples: DataImportance

    @property
    def guided(self) -> str | None:
        """What the supernet is told, in words."""
        return guided(self.inner)

    def init(self) -> Any:
        return {"paths": self.inner.init(), "examples": self.examples.init()}

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        return self.inner.plan(state["paths"], seed, step)

    def draw(
        self, state: Any, seed: int, step: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the examples of a step and their weights; see `DataImportance`."""
        return self.examples.sample(state["examples"], seed, step, n)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        """Return the state with the norms of the step; this waits for the device."""
        places = np.asarray(metrics.logged[0]["places"])
        norms = [np.asarray(one["gradient_norms"]) for one in metrics.logged]
        mean = np.average(norms, axis=0, weights=[one.weight for one in plan])
        return {
            "paths": self.inner.observe(state["paths"], plan, metrics),
            "examples": self.examples.update(state["examples"], places, mean),
        }
