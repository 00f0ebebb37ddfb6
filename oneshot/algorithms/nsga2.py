"""NSGA-II over discrete archs: elitist survival by front, then by crowding.

Reference:
  Deb, Pratap, Agarwal, Meyarivan. A fast and elitist multiobjective genetic algorithm:
  NSGA-II. IEEE Transactions on Evolutionary Computation 6(2), 2002.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oneshot import pareto
from oneshot.algorithms.base import Proposals, check_chance, told
from oneshot.constraints import Constraints
from oneshot.space import Arch, SearchSpace


class NSGA2:
    """Minimise any number of objectives towards a spread front.

    With batches of `population_size` this is the paper's generation; smaller batches
    make it steady-state, which uses what it was told sooner. The first
    `population_size` archs are random. Failed archs do not enter the population.

    Args:
      space: The space to search.
      population_size: Survivors, at least 2.
      crossover: Chance that a child has two parents, each choice from either; else it
        is a mutation of one.
      mutation: Chance of each read choice of a child to change. A child of one parent
        changes in at least one.
      seed: At least 0; fixes every proposal.
      constraints: Hard bounds that every asked arch keeps.

    Raises:
      ValueError: If `population_size` is below 2, or a chance is not in 0 to 1.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice(name, (0, 1, 2)) for name in "abcd"])
      >>> algorithm = NSGA2(space, population_size=8)
      >>> for _ in range(5):
      ...     archs = algorithm.ask(8)
      ...     algorithm.tell(archs, [[sum(a), -max(a)] for a in archs])
      >>> (0, 0, 0, 0) in [arch for arch, _ in algorithm.population]
      True
    """

    def __init__(
        self,
        space: SearchSpace,
        population_size: int = 50,
        crossover: float = 0.9,
        mutation: float = 0.1,
        seed: int = 0,
        constraints: Constraints | None = None,
    ):
        if population_size < 2:
            raise ValueError(
                "NSGA-II needs a `population_size` of at least 2, but got "
                f"{population_size}."
            )
        check_chance("crossover", crossover)
        check_chance("mutation", mutation)
        self.space = space
        self.population_size = population_size
        self.crossover = crossover
        self.mutation = mutation
        self.population: list[tuple[Arch, tuple[float, ...]]] = []
        self._fitness: list[tuple[int, float]] = []  # (front, -crowding): lower wins
        self._proposals = Proposals(space, seed, constraints)

    def ask(self, n: int) -> list[Arch]:
        """Return up to `n` archs with new paths, see `Algorithm`."""
        return self._proposals.draw(n, self._make)

    def tell(self, archs: Sequence[Arch], values: ArrayLike) -> None:
        """Add the archs that did not fail; the best `population_size` survive."""
        table, fine = told(archs, values)
        if self.population and fine.any():
            expected = len(self.population[0][1])
            if table.shape[1] != expected:
                raise ValueError(
                    f"This search was told {expected} objectives so far, but now "
                    f"{table.shape[1]}. Keep the objectives, or start a new algorithm."
                )
        self._proposals.know(archs)
        for arch, row, ok in zip(archs, table, fine, strict=True):
            if ok:
                value = tuple(float(v) for v in row)
                self.population.append((self.space.check(arch), value))
        self._survive()

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, as JSON values."""
        members = [[list(arch), list(value)] for arch, value in self.population]
        return {"proposals": self._proposals.state(), "population": members}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; a ValueError if it is of another space."""
        self._proposals.restore(state["proposals"])
        self.population = [(tuple(a), tuple(v)) for a, v in state["population"]]
        self._survive()

    def _survive(self) -> None:
        if not self.population:
            self._fitness = []
            return
        fitness = _fitness(np.array([value for _, value in self.population]))
        # A stable sort, and none while all survive: the order is part of the state.
        kept = list(range(len(fitness)))
        if len(fitness) > self.population_size:
            kept = sorted(kept, key=fitness.__getitem__)[: self.population_size]
        self.population = [self.population[i] for i in kept]
        self._fitness = _fitness(np.array([value for _, value in self.population]))

    def _make(self, rng: np.random.Generator) -> Arch:
        if self._proposals.count < self.population_size or not self.population:
            return self.space.sample(rng, 1)[0]
        parent = self._winner(rng)
        if rng.random() >= self.crossover:
            return self.space.mutate(rng, parent, self.mutation)
        child = self.space.crossover(rng, parent, self._winner(rng))
        # `mutate` changes at least one choice, and so is called only with the chance
        # that independent choices give to one or more changes.
        unchanged = (1 - self.mutation) ** len(self.space.read(child))
        if rng.random() < unchanged:
            return child
        return self.space.mutate(rng, child, self.mutation)

    def _winner(self, rng: np.random.Generator) -> Arch:
        first, second = (int(i) for i in rng.integers(len(self.population), size=2))
        wins = self._fitness[first] <= self._fitness[second]
        return self.population[first if wins else second][0]


def _fitness(values: np.ndarray) -> list[tuple[int, float]]:
    ranks = pareto.ranks(values)
    room = np.zeros(len(values))
    for rank in np.unique(ranks):
        room[ranks == rank] = pareto.crowding(values[ranks == rank])
    return [(int(r), -float(c)) for r, c in zip(ranks, room, strict=True)]
