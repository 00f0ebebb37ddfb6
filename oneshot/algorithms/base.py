"""What every ask/tell algorithm is, and how it proposes archs.

An algorithm knows a space and numbers, and nothing of networks. All randomness of the
proposal with number i comes from (seed, i), so the state is what was asked and told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from oneshot.constraints import Constraints, InfeasibleError
from oneshot.space import Arch, SearchSpace

_STREAM = 3  # keeps these draws apart from others made with the same seed
_TRIES = 50  # proposals by the algorithm itself before a fallback
_REPAIRS = 5  # proposals that are led back into the constraints
_WALK = 500  # steps in search of an unasked path, where a space is too large to list


class Algorithm(Protocol):
    """An ask/tell search.

    `ask` never repeats a path and never leaves the constraints; when no path is left it
    returns fewer archs than wanted, in the end none. Before any path was asked that is
    an error, `InfeasibleError`. `tell` takes archs in any order and batch, also ones
    that were never asked; a row that is not finite is a failure, which never wins.
    """

    space: SearchSpace

    def ask(self, n: int) -> list[Arch]:
        """Return up to `n` archs with new paths."""
        ...

    def tell(self, archs: Sequence[Arch], values: ArrayLike) -> None:
        """Learn the values [n, m], minimised, of `archs`."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, as JSON values."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`: the next asks are those that it would have made."""
        ...


class Proposals:
    """Draws archs that keep the constraints and whose path was not asked before.

    Args:
      space: The space.
      seed: At least 0; with the number of the proposal it fixes every draw.
      constraints: Hard bounds, of the same space; None for none.

    Raises:
      ValueError: If the constraints are of another space, or no `Constraints`.
      InfeasibleError: If a bound is known to exclude every arch.
    """

    def __init__(self, space: SearchSpace, seed: int, constraints: Constraints | None):
        if not isinstance(constraints, Constraints | None):
            raise ValueError(
                "An algorithm's constraints are Constraints(space, [Constraint(...), "
                f"...]), but got {constraints!r}."
            )
        if constraints is not None and constraints.space != space:
            raise ValueError(
                "The constraints are of the space "
                f"{constraints.space.fingerprint}, but the algorithm searches "
                f"{space.fingerprint}. Build both with one space."
            )
        self.space = space
        self.seed = seed
        self.constraints = constraints or Constraints(space)
        self.constraints.refuse()
        self.count = 0
        self._known: set[Arch] = set()

    def draw(self, n: int, make: Callable[[np.random.Generator], Arch]) -> list[Arch]:
        """Return up to `n` new archs; fewer only when no path is left.

        Args:
          n: How many are wanted.
          make: `make(rng) -> arch`, the algorithm's own proposal.

        Raises:
          InfeasibleError: If no arch at all keeps the constraints.
        """
        archs: list[Arch] = []
        while len(archs) < n:
            rng = np.random.default_rng([self.seed, _STREAM, self.count])
            arch = self._new(rng, make)
            if arch is None:
                break
            self.count += 1
            self.know([arch])
            archs.append(arch)
        if n > 0 and not self._known and self.constraints.constraints:
            raise self.constraints.infeasible()
        return archs

    def know(self, archs: Iterable[Arch]) -> None:
        """Never propose the paths of `archs` again."""
        self._known.update(map(self.space.path_key, archs))

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON values."""
        return {
            "space": self.space.fingerprint,
            "seed": self.seed,
            "count": self.count,
            "known": sorted(map(list, self._known)),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; a ValueError if it is of another space."""
        if state["space"] != self.space.fingerprint:
            raise ValueError(
                f"This state is of a search over the space {state['space']}, but the "
                f"algorithm searches {self.space.fingerprint}. Restore it into an "
                "algorithm over the same choices."
            )
        self.seed, self.count = int(state["seed"]), int(state["count"])
        self._known = {tuple(arch) for arch in state["known"]}

    def _fits(self, arch: Arch) -> bool:
        new = self.space.path_key(arch) not in self._known
        return new and self.constraints.feasible(arch)

    def _new(
        self, rng: np.random.Generator, make: Callable[[np.random.Generator], Arch]
    ) -> Arch | None:
        for _ in range(_TRIES):
            if self._fits(arch := make(rng)):
                return arch
        for _ in range(_REPAIRS if self.constraints.constraints else 0):
            if self._fits(arch := self.constraints.repair(rng, make(rng))):
                return arch
        if self.constraints.paths is not None:
            left = [k for k in self.constraints.paths if k not in self._known]
            return left[int(rng.integers(len(left)))] if left else None
        return self._walk(rng)

    def _walk(self, rng: np.random.Generator) -> Arch | None:
        feasible = self.constraints.feasible
        try:
            arch = self.constraints.sample(rng, 1)[0]
            for _ in range(_WALK):
                if self._fits(arch):
                    return arch
                around = [a for a in self.space.neighbours(arch) if feasible(a)]
                if not around:  # an isolated arch: start elsewhere
                    around = self.constraints.sample(rng, 1)
                arch = around[int(rng.integers(len(around)))]
        except InfeasibleError:
            if not self._known:
                raise
        return None  # as good as exhausted: nothing new within reach


def check_chance(name: str, value: float) -> None:
    """Raise a ValueError if an argument is no probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` is a chance from 0 to 1, but got {value}.")


def told(archs: Sequence[Arch], values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return `values` as a table [n, m] and a mask [n] of the rows that did not fail.

    Raises:
      ValueError: If there is not one row for each arch, or no column.
    """
    table = np.asarray(values, float)
    if len(archs) == 0 and table.size == 0:
        return np.zeros((0, 0)), np.zeros(0, bool)
    if table.ndim != 2 or len(table) != len(archs) or table.shape[1] == 0:
        raise ValueError(
            f"`tell` takes values [n, m], one row for each of the {len(archs)} archs "
            f"and one column for each objective, but got shape {table.shape}. For one "
            "objective, use `values[:, None]`."
        )
    return table, np.asarray(np.isfinite(table).all(axis=1))
