"""Strategies: which archs a training step trains, as a function of (seed, step)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from oneshot.randomness import ARCHS
from oneshot.space import Arch, Over, SearchSpace

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


@dataclasses.dataclass(frozen=True)
class Uniform:
    """One path a step, drawn uniformly (Guo et al. 2020, Single Path One-Shot,
    1904.00420).

    Args:
      space: The space to draw from.
      over: Uniform over "archs", distinct "paths", or distinct "canonical" archs.

    Example:
      >>> Uniform(supernet.space).plan((), seed=0, step=7)[0].arch
    """

    space: SearchSpace
    over: Over = "archs"

    def init(self) -> None:
        return None

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del state  # nothing to remember
        rng = np.random.default_rng([seed, ARCHS, step])
        return (Planned(self.space.sample(rng, 1, self.over)[0]),)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # uniform, whatever happens
        return state


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The same arch at every step: tunes or retrains one subnet by the same engine.

    Args:
      arch: The subnet. It is the strategy's state, so
        `state._replace(strategy=list(arch))` turns a trainer to another one.
    """

    arch: Arch

    def init(self) -> list[int]:
        return list(self.arch)

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del seed, step  # always the same
        return (Planned(tuple(state)),)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # always the same
        return state
