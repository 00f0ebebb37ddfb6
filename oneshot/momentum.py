"""Momentum kept apart for groups of archs, so that one does not push the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import optax

from oneshot.programs import MakeOptimizer
from oneshot.space import Arch, SearchSpace
from oneshot.strategies import Plan

# Of each module, what the optimizer keeps for each group.
Grouped = Mapping[str, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Separated:
    """An optimizer that keeps a state of its own for each option of one choice.

    Archs with unlike options have unlike gradients also in the modules that they share;
    with one momentum a step of the one moves those weights on along the gradients of
    the other. Here each step uses and updates the momentum of its own group of archs
    only, in all modules. The optimizer's states take as many times the memory as the
    choice has options.

    It stands outermost: `Separated(Freeze(...), ...)`, `Separated(Averaged(...), ...)`.
    A step trains archs of one group only: use it with strategies of one path a step.

    Args:
      optimizer: `learning_rate -> optax.GradientTransformation`.
      space: The space of the archs.
      choice: The name of the choice that groups them.

    Raises:
      ValueError: If no choice has that name, or the optimizer is a `Separated` itself.

    Example:
      >>> kept_apart = Separated(sgd(), net.space, "stage1.0.op")
      >>> trainer = Trainer(net, Uniform(net.space), kept_apart, 0.1)

    Reference:
      Complexity-aware learning rate and momentum separation for one-shot search.
      https://arxiv.org/abs/2503.10740
    """

    optimizer: MakeOptimizer
    space: SearchSpace
    choice: str

    def __post_init__(self):
        if isinstance(self.optimizer, Separated):
            raise ValueError(
                "Momentum is kept apart by the options of one choice, but the optimizer"
                f" of Separated is one itself, by {self.optimizer.choice!r}. Name one "
                "choice."
            )
        names = [c.name for c in self.space.choices]
        if self.choice not in names:
            raise ValueError(
                f"Momentum is kept apart by the options of one choice, but none is "
                f"called {self.choice!r}; there are: {names}."
            )

    def __call__(self, learning_rate: Any) -> optax.GradientTransformation:
        """Return the transformation of any one group."""
        return self.optimizer(learning_rate)

    @property
    def groups(self) -> int:
        """Number of groups, the options of the choice."""
        return len(self.space.choices[self.space.index(self.choice)].options)

    def group(self, arch: Arch) -> int:
        """Return the group of an arch; archs of one path have the same."""
        return self.space.path_key(arch)[self.space.index(self.choice)]

    def group_of(self, plan: Plan) -> int:
        """Return the one group of a plan's archs.

        Raises:
          ValueError: If there are several, whose gradients have no common momentum.
        """
        found = {self.group(planned.arch) for planned in plan}
        if len(found) > 1:
            raise ValueError(
                "Separated momentum needs steps whose archs have the same option of "
                f"{self.choice!r}, but this step's have the options {sorted(found)}. "
                "Use a strategy of one path a step, such as Uniform or "
                "StrictFair(one_by_one=True)."
            )
        return found.pop()


def of_group(states: Grouped, group: int) -> dict[str, Any]:
    """Return the optimizer state of each module for one group."""
    return {name: own[group] for name, own in states.items()}


def with_group(
    states: Grouped, group: int, new: Mapping[str, Any]
) -> dict[str, tuple[Any, ...]]:
    """Return the states of all groups, those of one group replaced."""
    return {
        name: (*own[:group], new[name], *own[group + 1 :])
        for name, own in states.items()
    }
