"""Progressive shrinking: what may be chosen widens, phase by phase.

Reference:
  Cai, Gan, Wang, Zhang, Han. Once-for-all: train one network and specialize it for
  efficient deployment. ICLR 2020. https://arxiv.org/abs/1908.09791
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from oneshot.choices import freeze
from oneshot.randomness import ARCHS
from oneshot.space import Arch, Choice, SearchSpace
from oneshot.strategies.plans import Plan, Planned, Reduce, path_weight

Allowed = tuple[tuple[int, ...], ...]  # option indices of each choice


@dataclasses.dataclass(frozen=True)
class Phase:
    """What a stretch of training adds to what may be chosen.

    Args:
      steps: How many steps it takes, at least 1; the last phase goes on for ever.
      allowed: Options by choice name or by a pattern of names (`*`, `?`, `[...]`); None
        for all options of a choice. Of two that match a choice, the later counts.
      paths: Paths a step, at least 1.

    Raises:
      ValueError: If there are no steps or no paths.
    """

    steps: int
    allowed: Mapping[str, Sequence[Any] | None]
    paths: int = 1

    def __post_init__(self):
        if self.steps < 1 or self.paths < 1:
            raise ValueError(
                "A phase takes one step or more and trains one path or more a step, but"
                f" got steps={self.steps} and paths={self.paths}."
            )


@dataclasses.dataclass(frozen=True)
class Progressive:
    """Uniform archs over options that widen from the largest arch, phase by phase.

    Before the first phase that names it a choice stands at the option of `largest`;
    what a phase allows stays allowed. The paper trains the largest network first, then
    makes kernels, depths and widths elastic with 1, 2 and 4 paths a step, which distil
    that trained network. Before widths become elastic it sorts channels, as
    `sort_channels` does: end one training there, and begin the next with those weights.

    Args:
      space: The space.
      largest: Where every choice starts, such as the larger of `ends(space, cost)`.
      phases: One or more, in order.
      role: "labels", or "student" for a trainer with an external teacher.
      reduce: "mean" weighs each path by 1 / paths; "sum" by 1, as in the paper's code.

    Raises:
      ValueError: If a phase names no choice or no option of the space, takes away what
        an earlier one allowed, or another argument is out of range.

    Example:
      >>> choices = Choice("a.kernel", (3, 5, 7)), Choice("a.depth", (2, 3))
      >>> space = SearchSpace(choices)
      >>> phases = [
      ...     Phase(1000, {}),  # the largest arch alone
      ...     Phase(1000, {"*.kernel": (5, 7)}),
      ...     Phase(1000, {"*.kernel": None, "*.depth": None}, paths=2),
      ... ]
      >>> strategy = Progressive(space, (2, 1), phases)
      >>> strategy.allowed(0), strategy.allowed(1000), strategy.allowed(2000)
      (((2,), (1,)), ((1, 2), (1,)), ((0, 1, 2), (0, 1)))
    """

    space: SearchSpace
    largest: Arch
    phases: Sequence[Phase]
    role: Literal["labels", "student"] = "labels"
    reduce: Reduce = "mean"

    def __post_init__(self):
        object.__setattr__(self, "largest", self.space.check(self.largest))
        object.__setattr__(self, "phases", tuple(self.phases))
        path_weight(self.reduce, 1)
        if not self.phases:
            raise ValueError("Progressive needs one phase or more, but got none.")
        if self.role not in ("labels", "student"):
            raise ValueError(
                "The paths of Progressive have the role 'labels' or 'student', but got "
                f"{self.role!r}."
            )
        _ = self._widening  # names and options are refused before training starts

    @functools.cached_property
    def _widening(self) -> tuple[Allowed, ...]:
        allowed: Allowed = tuple((index,) for index in self.largest)
        out = []
        for number, phase in enumerate(self.phases):
            allowed = _widened(self.space.choices, allowed, phase, number)
            out.append(allowed)
        return tuple(out)

    def phase(self, step: int) -> int:
        """Return the number of the phase that `step` is in."""
        stops = np.cumsum([phase.steps for phase in self.phases[:-1]])
        return int(np.searchsorted(stops, step, side="right"))

    def allowed(self, step: int) -> Allowed:
        """Return the option indices that each choice may take at `step`."""
        return self._widening[self.phase(step)]

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # phases are counted by the step
        rng = np.random.default_rng([seed, ARCHS, step])
        allowed, n = self.allowed(step), self.phases[self.phase(step)].paths
        sizes = [len(options) for options in allowed]
        drawn = rng.integers(0, sizes, (n, len(sizes)))
        weight = path_weight(self.reduce, n)
        archs = (
            tuple(options[i] for options, i in zip(allowed, row, strict=True))
            for row in drawn
        )
        return tuple(Planned(arch, self.role, weight) for arch in archs)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # the schedule is fixed
        return state


def _widened(
    choices: Sequence[Choice], before: Allowed, phase: Phase, number: int
) -> Allowed:
    named: dict[int, tuple[int, ...]] = {}
    for pattern, options in phase.allowed.items():
        matched = [
            i
            for i, choice in enumerate(choices)
            if choice.name == pattern or fnmatch.fnmatchcase(choice.name, pattern)
        ]
        if not matched:
            raise ValueError(
                f"Phase {number} allows options for {pattern!r}, but no choice has such"
                f" a name; there are: {[c.name for c in choices]}."
            )
        named |= {i: _indices(choices[i], options, number) for i in matched}
    for i, after in named.items():
        if lost := set(before[i]) - set(after):
            options = [choices[i].options[k] for k in sorted(lost)]
            raise ValueError(
                f"Phase {number} takes {options} away from choice {choices[i].name!r}. "
                "A phase only widens: allow what was allowed before, which for a choice"
                " named for the first time is the option of `largest`."
            )
    return tuple(named.get(i, own) for i, own in enumerate(before))


def _indices(
    choice: Choice, options: Sequence[Any] | None, number: int
) -> tuple[int, ...]:
    if isinstance(options, str):  # would be taken for its letters
        raise ValueError(
            f"Phase {number} allows {options!r} for choice {choice.name!r}, but "
            f"options come as a list: [{options!r}]."
        )
    if options is None:
        return tuple(range(len(choice.options)))
    wanted = freeze(tuple(options))
    if unknown := [option for option in wanted if option not in choice.options]:
        raise ValueError(
            f"Phase {number} allows {unknown} for choice {choice.name!r}, which has "
            f"the options {list(choice.options)}. Give some of those, or None for all."
        )
    return tuple(sorted({choice.options.index(option) for option in wanted}))
