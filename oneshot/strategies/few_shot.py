"""Few-shot search: several supernets, each with one option of a choice for good.

Options of a choice that share the rest of a network disturb each other. Training one
copy of the weights for each option of one choice shares less, at the cost of as many
trainings.

Reference:
  Zhao, Wang, Tian, Fonseca, Guo. Few-shot neural architecture search. ICML 2021.
  https://arxiv.org/abs/2006.06863
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from oneshot.space import Arch, SearchSpace
from oneshot.strategies.pairs import PriorPairs
from oneshot.strategies.plans import Plan, Strategy, guided
from oneshot.strategies.uniform import Uniform
from oneshot.strategies.with_examples import WithExamples


@dataclasses.dataclass(frozen=True)
class Restricted:
    """The plans of another strategy with some choices held at one option.

    Each planned arch gets those options in place of its own, so uniform archs stay
    uniform over the restricted space, and strictly fair rounds stay fair. A student
    that the held options make equal to its teacher learns from the labels instead. What
    the inner strategy observes are the archs that were trained. Costs it aims at and
    weights it gives are those of the archs before: `CostBinned` misses its bins, and
    `PathImportance` is no longer unbiased where a held choice decides what is read.

    Args:
      space: The space that archs are of.
      options: The option of each choice that is held, by name.
      inner: The strategy that is restricted; uniform over archs by default.

    Raises:
      ValueError: If `options` names no choice of the space, or not one of its options,
        or the inner strategy is `PriorPairs` or `WithExamples`.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice("kernel", (3, 5)), Choice("expand", (3, 6))])
      >>> strategy = Restricted(space, {"kernel": 5})
      >>> [strategy.plan(None, 0, step)[0].arch for step in range(4)]
      [(1, 1), (1, 0), (1, 1), (1, 1)]
    """

    space: SearchSpace
    options: Mapping[str, Any]
    inner: Strategy | None = None

    def __post_init__(self):
        unknown = [n for n in self.options if n not in self._names]
        if unknown or not self.options:
            raise ValueError(
                "Restricted holds one choice or more of the space by name, but got "
                f"{unknown or 'none'}; there are: {self._names}."
            )
        self.space.arch(self.options)  # refuses an option that there is not
        if isinstance(self.inner, WithExamples):
            raise ValueError(
                "A strategy that draws examples is the outer one. Write "
                "WithExamples(Restricted(space, options, paths), examples)."
            )
        if isinstance(self.inner, PriorPairs):
            raise ValueError(
                "A held option changes what a prior expects of an arch, so that the "
                "wrong one of a pair could count as the better. Restrict another "
                "strategy, or give PriorPairs a space with fewer options."
            )

    @property
    def _names(self) -> list[str]:
        return [c.name for c in self.space.choices]

    @property
    def _inner(self) -> Strategy:
        return Uniform(self.space) if self.inner is None else self.inner

    def held(self, arch: Arch) -> Arch:
        """Return `arch` with the held options."""
        wanted, out = self.space.arch(self.options), list(arch)
        for name in self.options:
            i = self.space.index(name)
            out[i] = wanted[i]
        return tuple(out)

    @property
    def guided(self) -> str | None:
        """What the supernet is told, in words."""
        return guided(self._inner)

    def init(self) -> Any:
        return self._inner.init()

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        plan = self._inner.plan(state, seed, step)
        held = tuple(p._replace(arch=self.held(p.arch)) for p in plan)
        return self._without_own_teachers(held)

    def _without_own_teachers(self, plan: Plan) -> Plan:
        """Return a plan in which nobody is taught by itself, for nothing."""
        key = self.space.path_key
        teachers = [key(p.arch) for p in plan if p.role == "teacher"]
        students = [p for p in plan if p.role == "student"]
        own = [p for p in students if key(p.arch) in teachers]
        if not own:
            return plan
        if len(own) < len(students):  # the teacher has others, and trains on the labels
            return _a_mean_still(plan, tuple(p for p in plan if p not in own))
        rest = tuple(p for p in plan if p.role not in ("teacher", "student"))
        return _a_mean_still(plan, (*rest, own[-1]._replace(role="labels")))

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        return self._inner.observe(state, plan, metrics)


def _a_mean_still(before: Plan, after: Plan) -> Plan:
    """Return a plan of fewer paths whose weights sum to 1 if those of all did."""
    if not math.isclose(sum(p.weight for p in before), 1):
        return after
    total = sum(p.weight for p in after)
    return tuple(p._replace(weight=p.weight / total) for p in after)


def split(
    space: SearchSpace, choice: str, inner: Strategy | None = None
) -> list[tuple[Any, Restricted]]:
    """Return a strategy for each option of a choice, which holds it.

    First one supernet is trained as a whole, then a copy of its weights for each
    option. An arch is scored by the copy of its option.

    Args:
      space: The space.
      choice: The name of the choice to split at.
      inner: The strategy that each restricts; uniform over archs by default.

    Returns:
      (option, strategy) of each option, in the order of the choice.

    Raises:
      ValueError: If there is no such choice.

    Example:
      >>> weights = {}                                        # doctest: +SKIP
      >>> for option, strategy in split(net.space, "stage1.0.op"):  # doctest: +SKIP
      ...     few = trainer.with_strategy(strategy, cosine(0.1, steps=2000))
      ...     state = few.init(seed=0, x=images[:64], weights=whole.weights)
      ...     for state, rows in fit(few, state, data, steps=2000):
      ...         pass
      ...     weights[option] = state.weights
    """
    names = [c.name for c in space.choices]
    if choice not in names:
        raise ValueError(f"No choice is called {choice!r}; there are: {names}.")
    options = space.choices[space.index(choice)].options
    return [(o, Restricted(space, {choice: o}, inner)) for o in options]
