"""Progressive shrinking: choices open one after another, from the largest network."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, SearchSpace
from oneshot.strategies.plans import Plan, Planned, Reduce, Role, share


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a schedule.

    Args:
      steps: How many steps it lasts, at least 1; the last phase goes on for ever.
      opens: Options that may be drawn from now on, by the choice's name, where `*`
        stands for any characters.
      paths: Paths in a plan, at least 1.
    """

    steps: int
    opens: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    paths: int = 1


@dataclasses.dataclass(frozen=True)
class Progressive:
    """A schedule that widens what is drawn (Cai et al. 2020, Once-for-All,
    arXiv:1908.09791).

    Every choice stands at the largest arch's option until a phase opens others; what is
    open stays open. Open options are drawn uniformly.

    Args:
      space: The space to draw from.
      largest: The arch that training starts from.
      phases: In order.
      role: "labels", or "student" of the trainer's external teacher, in the paper the
        largest network after it was trained alone.
      reduce: A plan's gradient is the "mean" over its paths, or the "sum".

    Raises:
      ValueError: If there is no phase, one opens what does not exist, or lasts less
        than a step.

    Example:
      >>> Progressive(net.space, ends.largest, (
      ...     Phase(1000),
      ...     Phase(1000, {"*.kernel": (3, 5, 7)}),
      ...     Phase(500, {"*.depth": (3, 4)}, paths=2),
      ...     Phase(1000, {"*.depth": (2, 3, 4)}, paths=2)))
    """

    space: SearchSpace
    largest: Arch
    phases: tuple[Phase, ...]
    role: Role = "labels"
    reduce: Reduce = "mean"

    def __post_init__(self):
        share(self.reduce, 1)
        self.space.check(self.largest)
        if self.role not in ("labels", "student"):
            raise ValueError(
                "Paths of progressive shrinking learn from 'labels', or as 'student', "
                f"but got role={self.role!r}."
            )
        if not self.phases:
            raise ValueError("A schedule has at least one phase, but got none.")
        for i, phase in enumerate(self.phases):
            self._check(i, phase)

    def _check(self, i: int, phase: Phase) -> None:
        if phase.steps < 1 or phase.paths < 1:
            raise ValueError(
                f"A phase lasts at least 1 step and has at least 1 path, but phase {i} "
                f"has steps={phase.steps}, paths={phase.paths}."
            )
        for pattern, options in phase.opens.items():
            found = [c for c in self.space.choices if fnmatch.fnmatch(c.name, pattern)]
            if not found:
                names = ", ".join(c.name for c in self.space.choices[:6])
                raise ValueError(
                    f"Phase {i} opens {pattern!r}, but no choice has a name like that; "
                    f"there are {names} and so on."
                )
            for choice in found:
                if unknown := [o for o in options if o not in choice.options]:
                    raise ValueError(
                        f"Phase {i} opens {unknown} for {choice.name!r}, which has the "
                        f"options {list(choice.options)}."
                    )

    def phase(self, step: int) -> int:
        """Return the number of the phase that a step belongs to."""
        end = 0
        for i, phase in enumerate(self.phases):
            end += phase.steps
            if step < end:
                return i
        return len(self.phases) - 1

    def allowed(self, step: int) -> list[tuple[int, ...]]:
        """Return the option indices that may be drawn at a step, for each choice."""
        opened = [{option} for option in self.largest]
        for phase in self.phases[: self.phase(step) + 1]:
            for pattern, options in phase.opens.items():
                for i, choice in enumerate(self.space.choices):
                    if fnmatch.fnmatch(choice.name, pattern):
                        opened[i] |= {choice.options.index(o) for o in options}
        return [tuple(sorted(options)) for options in opened]

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # the schedule follows from the step
        rng, n = (
            np.random.default_rng([seed, ARCHS, step]),
            self.phases[self.phase(step)].paths,
        )
        allowed, weight = self.allowed(step), share(self.reduce, n)
        return tuple(
            Planned(tuple(int(rng.choice(own)) for own in allowed), self.role, weight)
            for _ in range(n)
        )

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # a schedule, whatever happens
        return state
