"""Bounds on functions of an arch, and how to draw archs that keep them.

Nothing here loops without end: rejection is bounded, then comes exact enumeration
where the space is small and a randomised descent on the violation where it is not, and
then an error that says how far the bounds are from what the space holds.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from oneshot.space import Arch, SearchSpace

ENUMERABLE = 200_000  # up to this many paths, a space is searched exactly
_REJECTIONS = 100  # random tries for each arch before anything cleverer
_DESCENTS = 12  # random starts of a descent before giving up


class InfeasibleError(ValueError):
    """No arch keeps the constraints; the message says by how far."""


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A bound, or two, on a function of an arch.

    Args:
      name: What is bounded, for messages.
      fn: `fn(arch) -> float`, a function of the path: it is given the path key, in
        which choices that are not read stand at 0.
      maximum: Largest value allowed, itself included.
      minimum: Smallest value allowed, itself included.
      known_range: The least and greatest value of `fn` over the space, where somebody
        knows them exactly, such as `CostTables`: then a bound that no arch keeps is
        refused at once.

    Raises:
      ValueError: If there is no bound, a bound is NaN, or they exclude each other.

    Example:
      >>> Constraint("depth", sum, maximum=3).bounds
      'at most 3'
    """

    name: str
    fn: Callable[[Arch], float]
    maximum: float | None = None
    minimum: float | None = None
    known_range: tuple[float, float] | None = None

    def __post_init__(self):
        given = [b for b in (self.minimum, self.maximum) if b is not None]
        if not given or any(math.isnan(b) for b in given) or given != sorted(given):
            raise ValueError(
                f"Constraint {self.name!r} needs a `maximum`, a `minimum` not above "
                f"it, or both, but got maximum={self.maximum!r} and "
                f"minimum={self.minimum!r}."
            )

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        low = [] if self.minimum is None else [f"at least {self.minimum:,.12g}"]
        high = [] if self.maximum is None else [f"at most {self.maximum:,.12g}"]
        return " and ".join(low + high)

    @property
    def impossible(self) -> bool:
        """Whether the known range, if there is one, is outside a bound."""
        if self.known_range is None:
            return False
        low, high = self.known_range
        above = self.maximum is not None and low > self.maximum
        return above or (self.minimum is not None and high < self.minimum)

    def excess(self, cost: float) -> float:
        """Return how far `cost` is outside, relative to the bound; 0 if inside."""
        if math.isnan(cost):
            return math.inf
        total = 0.0
        if self.maximum is not None and cost > self.maximum:
            total += (cost - self.maximum) / (abs(self.maximum) or 1.0)
        if self.minimum is not None and cost < self.minimum:
            total += (self.minimum - cost) / (abs(self.minimum) or 1.0)
        return total


class Constraints:
    """Hard constraints on the archs of a space; none at all is allowed, too.

    Args:
      space: The space that the archs are from.
      constraints: The bounds, all of which hold together.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice("a", (0, 1, 2)), Choice("b", (0, 1, 2))])
      >>> few = Constraints(space, [Constraint("sum", sum, maximum=1)])
      >>> few.feasible((0, 1)), few.feasible((1, 1))
      (True, False)
    """

    def __init__(self, space: SearchSpace, constraints: Sequence[Constraint] = ()):
        self.space = space
        self.constraints = tuple(constraints)
        self._costs: dict[Arch, tuple[float, ...]] = {}

    def refuse(self) -> None:
        """Raise an InfeasibleError if a bound is known to exclude every arch.

        That no arch keeps several bounds together is found later, by drawing.
        """
        if any(c.impossible for c in self.constraints):
            raise self.infeasible()

    def costs(self, arch: Sequence[int]) -> tuple[float, ...]:
        """Return the value of each constraint's function, remembered by path."""
        key = self.space.path_key(arch)
        if key not in self._costs:
            self._costs[key] = tuple(float(c.fn(key)) for c in self.constraints)
        return self._costs[key]

    def violation(self, arch: Sequence[int]) -> float:
        """Return the sum of the relative excesses over the bounds; 0 if feasible."""
        if not self.constraints:
            return 0.0
        pairs = zip(self.constraints, self.costs(arch), strict=True)
        return sum(c.excess(cost) for c, cost in pairs)

    def feasible(self, arch: Sequence[int]) -> bool:
        """Return whether `arch` keeps every bound."""
        return self.violation(arch) == 0

    @functools.cached_property
    def paths(self) -> tuple[Arch, ...] | None:
        """Every feasible path key, or None where there are too many to enumerate."""
        if self.space.num_paths > ENUMERABLE:
            return None
        return tuple(k for k in self.space.enumerate() if self.feasible(k))

    def sample(self, rng: np.random.Generator, n: int) -> list[Arch]:
        """Draw `n` feasible archs.

        Uniform over feasible archs while rejection finds them; after that uniform over
        feasible paths where the space is small, else the ends of descents, which reach
        every region but not with equal chance.

        Args:
          rng: The source of randomness.
          n: How many, at least 0. Repetitions are possible.

        Returns:
          The archs.

        Raises:
          InfeasibleError: If none was found, which is a proof in a small space only.
        """
        return [self._one(rng) for _ in range(n)]

    def _one(self, rng: np.random.Generator) -> Arch:
        for _ in range(_REJECTIONS):
            if self.feasible(arch := self.space.sample(rng, 1)[0]):
                return arch
        if self.paths is not None:
            if self.paths:
                return self.paths[int(rng.integers(len(self.paths)))]
            raise self.infeasible()
        for _ in range(_DESCENTS):
            if self.feasible(arch := self.repair(rng, self.space.sample(rng, 1)[0])):
                return arch
        raise self.infeasible()

    def repair(self, rng: np.random.Generator, arch: Arch) -> Arch:
        """Return a nearby arch, feasible if a greedy walk from `arch` gets there.

        Each step moves to the first neighbour, in random order, that violates less, so
        the walk ends; it may end in an infeasible arch.
        """
        return _descend(rng, arch, self.violation, self.space)

    def infeasible(self) -> InfeasibleError:
        """Return the error that names the bounds and what the space holds."""
        ranges = [self._range(i) for i in range(len(self.constraints))]
        found = "; ".join(
            f"{c.name!r} is bounded to {c.bounds}, and in the space goes from "
            f"{low:,.12g} to {high:,.12g}"
            for c, (low, high) in zip(self.constraints, ranges, strict=True)
        )
        listed = self.space.num_paths <= ENUMERABLE
        if all(c.known_range for c in self.constraints):
            how = "exactly, from the costs of each layer"
        elif listed:
            how = f"exactly, over all {self.space.num_paths:,} paths"
        else:
            how = (
                f"by coordinate descent both ways from {_DESCENTS} starts, so that the "
                "true range may be wider"
            )
        proved = listed or any(c.impossible for c in self.constraints)
        return InfeasibleError(
            f"{'No arch keeps' if proved else 'No arch was found that keeps'} the "
            f"constraints: {found} (minimum and maximum found {how}). "
            f"{self._advice(ranges)}"
        )

    def _range(self, index: int) -> tuple[float, float]:
        if (known := self.constraints[index].known_range) is not None:
            return known
        ends = extremes(self.space, lambda a: self.costs(a)[index])
        low, high = (self.costs(a)[index] for a in ends)
        return low, high

    def _advice(self, ranges: Sequence[tuple[float, float]]) -> str:
        advice, listed = [], self.space.num_paths <= ENUMERABLE
        for c, (low, high) in zip(self.constraints, ranges, strict=True):
            sure = "feasible" if listed or c.known_range else "found"
            end = f"; that is the nearest {sure} value."
            if c.maximum is not None and low > c.maximum:
                advice.append(
                    f"Raise the maximum of {c.name!r} to {low:,.12g} or more{end}"
                )
            if c.minimum is not None and high < c.minimum:
                advice.append(
                    f"Lower the minimum of {c.name!r} to {high:,.12g} or less{end}"
                )
        return " ".join(advice) or "Relax a bound: together they exclude every arch."


def extremes(
    space: SearchSpace, cost: Callable[[Arch], float], exact: int = ENUMERABLE
) -> tuple[Arch, Arch]:
    """Return an arch of the least and one of the greatest cost.

    Args:
      space: The space.
      cost: A function of an arch; NaN counts as neither.
      exact: Up to this many paths all are looked at; in larger spaces both ends are
        found by coordinate descent from random starts, and may not be the true ones.

    Returns:
      (least, greatest), as path keys.
    """
    if space.num_paths <= exact:
        ends = list(space.enumerate())
    else:
        rng = np.random.default_rng(0)  # the same each time
        ends = [
            space.path_key(_descend(rng, s, lambda a, sign=sign: sign * cost(a), space))
            for s in space.sample(rng, _DESCENTS)
            for sign in (1, -1)
        ]
    valid = [a for a in ends if not math.isnan(cost(a))] or ends
    return min(valid, key=cost), max(valid, key=cost)


def _descend(
    rng: np.random.Generator,
    arch: Arch,
    loss: Callable[[Arch], float],
    space: SearchSpace,
) -> Arch:
    """Move to the first better neighbour, in random order, until there is none."""
    value = loss(arch)
    better = True
    while better:
        around = space.neighbours(arch)
        better = False
        for i in rng.permutation(len(around)):
            if (reached := loss(around[i])) < value:
                arch, value, better = around[i], reached, True
                break
    return arch
