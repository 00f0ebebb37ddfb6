"""What one training step does: paths, each with a loss role and a weight."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

from oneshot.space import Arch

# "labels"   its loss compares with the labels
# "teacher"  labels too, and its outputs teach the students of the same plan
# "student"  distils the plan's teacher or, where there is none, an external one
# "better", "worse"  labels too, and a rank loss between the two, which stand in this
#            order: by some prior, the first is expected to have the lower loss
Role = Literal["labels", "teacher", "student", "better", "worse"]
Reduce = Literal["mean", "sum"]


class Planned(NamedTuple):
    """One path of a training step.

    Attributes:
      arch: Which subnet.
      role: What its loss compares with, see `Role`.
      weight: Factor of its loss in the step's gradient.
    """

    arch: Arch
    role: Role = "labels"
    weight: float = 1.0


Plan = tuple[Planned, ...]


class Strategy(Protocol):
    """Draws plans; all it remembers is in its state, a JSON value that is saved.

    Numpy arrays in a state are saved as lists, and come back so.

    Three functions without side effects: a state that was handed out is not changed.
    A strategy whose plans depend on costs or another prior says so by an attribute
    `guided`, in words.
    """

    def init(self) -> Any:
        """Return the first state."""
        ...

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        """Return what step `step` trains: the same for equal arguments, anywhere."""
        ...

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        """Return the next state; reading `metrics` waits for the device."""
        ...


def guided(strategy: Strategy) -> str | None:
    """Return what a strategy's plans know of costs or another prior, in words."""
    return getattr(strategy, "guided", None)


def path_weight(reduce: Reduce, n: int) -> float:
    """Return the weight of each of `n` paths whose gradients are averaged or added.

    Raises:
      ValueError: If `reduce` is another word.

    Example:
      >>> path_weight("mean", 4), path_weight("sum", 4)
      (0.25, 1.0)
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(
            "`reduce` says how the gradients of a plan's paths become one: 'mean' or "
            f"'sum', but got {reduce!r}."
        )
    return 1.0 / n if reduce == "mean" else 1.0
