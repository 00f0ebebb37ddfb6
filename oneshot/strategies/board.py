"""A board of the best paths so far, which teach random ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, Over, SearchSpace
from oneshot.strategies.cost_binned import Cost
from oneshot.strategies.option_effects import losses_of
from oneshot.strategies.plans import Plan, Planned


@dataclasses.dataclass(frozen=True)
class PriorityBoard:
    """A random path a step, taught by the board's path that is most like it (Peng et
    al. 2020, Cream of the Crop, arXiv:2010.15821).

    The board holds the paths of the lowest running losses. The paper matches a path to
    its teacher by a learnt network; here it is the path with most options in common,
    and of those the better one. A teacher trains along, by the labels.

    While the board is not full, random paths train by the labels alone. Reading the
    losses waits for the device at each step. Combine with
    `SoftCrossEntropy(soft=..., labels=1)` for the paper's loss.

    Args:
      space: The space to draw from.
      size: Paths on the board, at least 1.
      rate: Share of a new loss in the running loss of a path on it, above 0 to 1.
      teacher_weight: Weight of the teacher's own loss, 0 or more.
      cost: Arch to its cost, if only those up to `most` may be on the board.
      most: Bound on the cost.
      over: Random paths are uniform over "archs", "paths" or "canonical" archs.

    Raises:
      ValueError: If a number is outside its range.

    Example:
      >>> PriorityBoard(net.space, size=10)
    """

    space: SearchSpace
    size: int = 10
    rate: float = 0.2
    teacher_weight: float = 1.0
    cost: Cost | None = None
    most: float = float("inf")
    over: Over = "archs"

    def __post_init__(self):
        if self.size < 1 or not 0 < self.rate <= 1 or self.teacher_weight < 0:
            raise ValueError(
                "A board has at least 1 path, the rate of running losses is above 0 "
                "and at most 1, and a weight is 0 or more, but got "
                f"size={self.size}, rate={self.rate}, "
                f"teacher_weight={self.teacher_weight}."
            )

    def init(self) -> list[Any]:
        return []  # [arch, running loss], the best first

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        rng = np.random.default_rng([seed, ARCHS, step])
        (arch,) = self.space.sample(rng, 1, self.over)
        if len(state) < self.size:
            return (Planned(arch),)
        teacher = max(state, key=lambda entry: _alike(entry[0], arch))[0]
        return (
            Planned(tuple(teacher), "teacher", self.teacher_weight),
            Planned(arch, "student"),
        )

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        board = {tuple(arch): loss for arch, loss in state}
        for planned, loss in zip(plan, losses_of(metrics), strict=True):
            if not np.isfinite(loss) or not self._allowed(planned.arch):
                continue
            old = board.get(planned.arch, loss)
            board[planned.arch] = old + self.rate * (loss - old)
        best = sorted(board.items(), key=lambda entry: entry[1])[: self.size]
        return [[list(arch), loss] for arch, loss in best]

    def _allowed(self, arch: Arch) -> bool:
        return self.cost is None or self.cost(arch) <= self.most


def _alike(a: Any, b: Arch) -> int:
    return sum(x == y for x, y in zip(a, b, strict=True))
