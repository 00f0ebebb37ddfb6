"""Prioritised paths: random paths learn from the best paths so far.

Reference:
  Peng, Du, Yu, Li, Liao, Fu. Cream of the crop: distilling prioritized paths for
  one-shot neural architecture search. NeurIPS 2020. https://arxiv.org/abs/2010.15821
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, Literal

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, SearchSpace
from oneshot.strategies.cost_targets import CostFn
from oneshot.strategies.option_effects import moved
from oneshot.strategies.plans import Plan, Planned, Reduce, path_weight

_ENUMERABLE = 20_000  # paths; their costs are looked up at once


@dataclasses.dataclass(frozen=True)
class PriorityBoard:
    """A random path a step, taught by the best matching path of a board of good ones.

    The board holds `size` paths with the best scores. Until it is full, random paths
    are trained alone on the labels. A score is the loss of a path when it was drawn,
    minus the running mean of the losses of drawn paths in the same role: losses fall as
    training goes on, and a path that follows a teacher has another loss on the labels
    than one that follows them.

    Where this departs from the paper:

    - There a meta-network, trained along, picks the teacher and weighs it. Here the
      teacher is the member that shares most options with the student, or the best.
    - There the teacher only gives its outputs. Here it is trained on the labels in the
      same step, as all teachers of plans are.
    - There a student learns from its teacher and from the labels. Here it follows the
      teacher alone, unless the trainer's `Teaching` is SoftCrossEntropy(labels=1).
    - There scores are accuracies of their time. Here they are relative, and fade by
      `forget` a step, so that a lucky batch does not hold its place for good.

    `observe` waits for the device at every step.

    Args:
      space: The space to draw from.
      size: Paths on the board, at least 1 (10 in the paper).
      match: The teacher is the "nearest" member or the "best".
      cost, maximum: A function of the path, and the greatest cost of a path on the
        board; both or none. Dearer paths are trained, but never teach.
      reduce: "sum" weighs each path by 1; "mean" by 1 / paths.
      rate: Of the running means of losses, and of the score of a member that is drawn
        again, in (0, 1].
      forget: Share of its score that a member loses a step, in 0 to 1.

    Raises:
      ValueError: If an argument is out of range, or the board could never be full:
        there are fewer paths than `size`, or fewer within the bound (which is looked
        into where the space has at most 20,000 paths).

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice(name, (0, 1, 2)) for name in "abc"])
      >>> strategy = PriorityBoard(space, size=2)
      >>> full = strategy.init() | {"board": [[[2, 2, 2], -0.3], [[0, 0, 0], -0.1]]}
      >>> [(p.arch, p.role) for p in strategy.plan(full, seed=0, step=0)]
      [((2, 2, 2), 'teacher'), ((2, 1, 1), 'student')]
    """

    space: SearchSpace
    size: int = 10
    match: Literal["nearest", "best"] = "nearest"
    cost: CostFn | None = None
    maximum: float | None = None
    reduce: Reduce = "sum"
    rate: float = 0.02
    forget: float = 0.001

    def __post_init__(self):
        path_weight(self.reduce, 1)
        if self.size < 1 or not 0 < self.rate <= 1 or not 0 <= self.forget <= 1:
            raise ValueError(
                "PriorityBoard needs a `size` of at least 1, a `rate` above 0 and at "
                "most 1, and `forget` in 0 to 1, but got "
                f"size={self.size}, rate={self.rate} and forget={self.forget}."
            )
        if self.match not in ("nearest", "best"):
            raise ValueError(f"`match` is 'nearest' or 'best', but got {self.match!r}.")
        if (self.cost is None) != (self.maximum is None):
            raise ValueError(
                "A bound on the board is a `cost` and its `maximum`, but got only "
                f"{'a maximum' if self.cost is None else 'a cost'}."
            )
        self._check_size()

    def _check_size(self) -> None:
        """Raise if the board never fills, and so nobody ever teaches."""
        if self.space.num_paths > _ENUMERABLE:
            return
        allowed = filter(self._allowed, self.space.paths())
        found = sum(1 for _ in itertools.islice(allowed, self.size))
        if found < self.size:
            raise ValueError(
                f"A board of {self.size} paths never fills, and until then nobody "
                f"teaches: the space has {self.space.num_paths} paths, and {found} may "
                f"be on the board. Pass a `size` of at most {found}"
                + (", or a greater `maximum`." if self.cost is not None else ".")
            )

    @property
    def guided(self) -> str | None:
        """What the supernet is told, in words."""
        return None if self.cost is None else "teachers chosen by their cost"

    def init(self) -> dict[str, Any]:
        means = {"labels": [0.0, 0], "student": [0.0, 0]}  # of losses, and how many
        return {"means": means, "board": []}

    def members(self, state: Any) -> list[Arch]:
        """Return the paths on the board, the best first."""
        return [tuple(arch) for arch, _ in state["board"]]

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        rng = np.random.default_rng([seed, ARCHS, step])
        arch = self.space.sample(rng, 1)[0]
        own = self.space.path_key(arch)
        others = [member for member in self.members(state) if member != own]
        if len(state["board"]) < self.size or not others:
            return (Planned(arch, "labels", path_weight(self.reduce, 1)),)
        weight = path_weight(self.reduce, 2)
        teacher = self._teacher(arch, others)
        return Planned(teacher, "teacher", weight), Planned(arch, "student", weight)

    def _teacher(self, arch: Arch, members: list[Arch]) -> Arch:
        if self.match == "best":
            return members[0]
        read = set(self.space.read(arch))

        def shared(member: Arch) -> int:
            return sum(arch[i] == member[i] for i in read & {*self.space.read(member)})

        return max(members, key=shared)  # the better one of equally near ones

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        """Return the state with the drawn path's loss; this waits for the device."""
        drawn, loss = plan[-1], float(metrics.logged[-1]["loss"])
        if not math.isfinite(loss):  # a path that diverged is no teacher
            return state
        mean, count = state["means"][drawn.role]
        score = loss - mean if count else 0.0
        moved_mean = [moved(mean, count, loss, self.rate), count + 1]
        means = state["means"] | {drawn.role: moved_mean}
        return {"means": means, "board": self._board(state, drawn.arch, score)}

    def _allowed(self, arch: Arch) -> bool:
        if self.cost is None or self.maximum is None:
            return True
        return self.cost(arch) <= self.maximum

    def _board(self, state: Any, arch: Arch, score: float) -> list[Any]:
        kept = 1 - self.forget
        board = {tuple(member): kept * old for member, old in state["board"]}
        key = self.space.path_key(arch)
        if key in board:
            board[key] += self.rate * (score - board[key])
        elif self._allowed(key):
            board[key] = score
        ranked = sorted(board.items(), key=lambda item: item[1])
        return [[list(member), value] for member, value in ranked[: self.size]]
