"""Regularised (aging) evolution: tournament, one mutation, the oldest dies.

Reference:
  Real, Aggarwal, Huang, Le. Regularized evolution for image classifier architecture
  search. AAAI 2019. https://arxiv.org/abs/1802.01548
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oneshot.algorithms.base import Proposals, check_chance, told
from oneshot.constraints import Constraints
from oneshot.space import Arch, SearchSpace


class RegularizedEvolution:
    """Minimise the first objective by aging evolution.

    The first `population_size` archs are random; each later one is a mutation of the
    best of `sample_size` members, drawn with replacement as in the paper's code. Failed
    archs do not enter the population, so they age nobody.

    Args:
      space: The space to search.
      population_size: Members alive, at least 1.
      sample_size: Members in a tournament, at least 1.
      mutation: Chance of each read choice to change; at least one does. The default, 0,
        changes exactly one, as in the paper.
      seed: At least 0; fixes every proposal.
      constraints: Hard bounds that every asked arch keeps.

    Raises:
      ValueError: If a size is below 1, or the chance is not in 0 to 1.

    Example:
      >>> from oneshot.space import Choice
      >>> space = SearchSpace([Choice(name, (0, 1, 2)) for name in "abcd"])
      >>> algorithm = RegularizedEvolution(space, population_size=8, sample_size=4)
      >>> best = 8
      >>> for _ in range(40):
      ...     [arch] = algorithm.ask(1)
      ...     algorithm.tell([arch], [[sum(arch)]])
      ...     best = min(best, sum(arch))
      >>> best
      0
    """

    def __init__(
        self,
        space: SearchSpace,
        population_size: int = 50,
        sample_size: int = 10,
        mutation: float = 0.0,
        seed: int = 0,
        constraints: Constraints | None = None,
    ):
        if population_size < 1 or sample_size < 1:
            raise ValueError(
                "Regularised evolution needs a `population_size` and a `sample_size` "
                f"of at least 1, but got {population_size} and {sample_size}."
            )
        check_chance("mutation", mutation)
        self.space = space
        self.population_size = population_size
        self.sample_size = sample_size
        self.mutation = mutation
        self.population: deque[tuple[Arch, float]] = deque(maxlen=population_size)
        self._proposals = Proposals(space, seed, constraints)

    def ask(self, n: int) -> list[Arch]:
        """Return up to `n` archs with new paths, see `Algorithm`."""
        return self._proposals.draw(n, self._make)

    def tell(self, archs: Sequence[Arch], values: ArrayLike) -> None:
        """Add the archs that did not fail; the oldest members leave."""
        table, fine = told(archs, values)
        self._proposals.know(archs)
        for arch, row, ok in zip(archs, table, fine, strict=True):
            if ok:
                self.population.append((self.space.check(arch), float(row[0])))

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, as JSON values."""
        members = [[list(arch), value] for arch, value in self.population]
        return {"proposals": self._proposals.state(), "population": members}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; a ValueError if it is of another space."""
        self._proposals.restore(state["proposals"])
        members = ((tuple(arch), float(value)) for arch, value in state["population"])
        self.population = deque(members, maxlen=self.population_size)

    def _make(self, rng: np.random.Generator) -> Arch:
        if self._proposals.count < self.population_size or not self.population:
            return self.space.sample(rng, 1)[0]
        drawn = rng.integers(len(self.population), size=self.sample_size)
        parent, _ = min((self.population[i] for i in drawn), key=lambda m: m[1])
        return self.space.mutate(rng, parent, self.mutation)
