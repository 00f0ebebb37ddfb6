"""Plans: which archs a training step trains, as a function of (seed, step)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

from oneshot.space import Arch

Role = Literal["labels", "teacher", "student", "better", "worse"]


class Planned(NamedTuple):
    """One path of a training step.

    Attributes:
      arch: Which subnet.
      role: What its loss compares with: "labels"; the labels as a "teacher", whose
        outputs then teach; those outputs as a "student"; or the labels as the "better"
        or "worse" of a pair, whose losses are then compared.
      weight: Factor of its loss in the step's gradient.
    """

    arch: Arch
    role: Role = "labels"
    weight: float = 1.0


Plan = tuple[Planned, ...]


Reduce = Literal["mean", "sum"]


def share(reduce: Reduce, n: int) -> float:
    """Return the weight of each of n paths, so that a plan is their mean or sum.

    Raises:
      ValueError: If `reduce` is another word.
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(
            "`reduce` is 'mean', the rate then being that of one path, or 'sum', but "
            f"got {reduce!r}."
        )
    return 1.0 / n if reduce == "mean" else 1.0


class Strategy(Protocol):
    """Draws plans; all it remembers is in its state, a JSON value that is saved."""

    def init(self) -> Any:
        """Return the first state."""
        ...

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        """Return what step `step` trains: the same for equal arguments, anywhere."""
        ...

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        """Return the next state; reading `metrics` waits for the device."""
        ...
