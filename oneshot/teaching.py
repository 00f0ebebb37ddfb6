"""What the paths of one plan have to do with each other: teachers, students, pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from oneshot.distillation import Distillation, SoftCrossEntropy
from oneshot.losses import Metric
from oneshot.paths import Path, together
from oneshot.strategies import Plan

# (mean loss of what ought to be better, of what ought to be worse) -> loss, scalars
RankLoss = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class PairwiseRank:
    """A hinge on two losses that stand in the wrong order, by a prior.

    The prior is in the plan: of each pair, it says which network ought to have the
    lower loss, usually the one of more multiply-adds. A supernet trained so has been
    told part of its ranking: report it as guided, beside the partial correlation given
    the prior (Prior-guided one-shot NAS, Dong et al. 2022, arXiv:2206.13329).

    Args:
      weight: Of the hinge, 0 or more.
      margin: By how much the losses should differ, in nats.

    Raises:
      ValueError: If the weight is negative.

    Example:
      >>> PairwiseRank(weight=2.0)(jnp.float32(1.5), jnp.float32(1.0))
      Array(1., dtype=float32)
    """

    weight: float = 1.0
    margin: float = 0.0

    def __post_init__(self):
        if self.weight < 0:
            raise ValueError(
                f"The weight of a rank loss is 0 or more, but got {self.weight}."
            )

    def __call__(self, better: jax.Array, worse: jax.Array) -> jax.Array:
        return self.weight * jnp.maximum(better - worse + self.margin, 0.0)


@dataclasses.dataclass(frozen=True)
class Teaching:
    """How a trainer treats the roles of a plan that are not plain "labels".

    Args:
      distillation: Loss of a "student": `(outputs, targets, teacher outputs) -> [n]`.
      teacher: Teaches students of plans that have no "teacher" of their own:
        `inputs -> outputs`, such as a compiled large network.
      rank: Loss of a pair of paths, from their two mean losses.

    Example:
      >>> Trainer(net, Sandwich(...), optimizer, 0.1,
      ...         teaching=Teaching(AdaptiveAlphaDivergence()))
    """

    distillation: Distillation = SoftCrossEntropy()
    teacher: Callable[[Any], Any] | None = None
    rank: RankLoss = PairwiseRank()

    def of_loss(self, loss: Metric) -> Teaching:
        """Return this with the trainer's loss where students' labels name none."""
        own = self.distillation
        if not isinstance(own, SoftCrossEntropy) or own.hard is not None:
            return self
        own = dataclasses.replace(own, hard=loss)
        return dataclasses.replace(self, distillation=own)


def check_plan(plan: Plan, teaching: Teaching) -> None:
    """Raise if the roles of a plan do not fit together.

    Raises:
      ValueError: With what is missing.
    """
    roles = [planned.role for planned in plan]
    if not roles:
        raise ValueError("A plan holds at least one path, but got none.")
    known = ("labels", "teacher", "student", "better", "worse")
    if unknown := [role for role in roles if role not in known]:
        raise ValueError(
            f"The role of a planned path is one of {known}, but got {unknown[0]!r}."
        )
    if roles.count("teacher") > 1:
        raise ValueError(
            "A plan has one teacher at most, since its students could not tell which "
            f"to follow, but got {roles.count('teacher')}."
        )
    if "student" in roles and "teacher" not in roles and teaching.teacher is None:
        raise ValueError(
            "A student needs a teacher: a path of role 'teacher' in the same plan, or "
            "Teaching(teacher=...) given to the trainer; there is neither."
        )
    pairs = [role for role in roles if role in ("better", "worse")]
    if pairs != ["better", "worse"] * (len(pairs) // 2):
        raise ValueError(
            "The paths of a pair stand as 'better', 'worse' in a plan, one pair after "
            f"another, but these roles are {pairs}."
        )


def order_of(
    roles: Sequence[str], paths: Sequence[Path]
) -> tuple[list[int], list[int]]:
    """Return the order in which the paths of a plan are run, and what each shares.

    The teacher comes first; paths with a common beginning stand together, except those
    of pairs, which come last and share nothing.

    Returns:
      (places in the plan, number of leading steps in common with the one before).
    """
    if len(paths) == 1:  # most steps of most runs
        return [0], [0]
    alone = [i for i, role in enumerate(roles) if role in ("better", "worse")]
    rest = [i for i in range(len(roles)) if i not in alone]
    rest.sort(key=lambda i: roles[i] != "teacher")
    order, shared = together([paths[i] for i in rest])
    return [*(rest[i] for i in order), *alone], [*shared, *[0] * len(alone)]
