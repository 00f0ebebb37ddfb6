"""Random search without repetition: the baseline that every other search must beat.

Reference:
  Li, Talwalkar. Random search and reproducibility for neural architecture search. UAI
  2019. https://arxiv.org/abs/1902.07638
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from oneshot.algorithms.base import Proposals, told
from oneshot.constraints import Constraints
from oneshot.space import Arch, Over, SearchSpace


class RandomSearch:
    """Ask for archs drawn at random, each path once.

    Args:
      space: The space to search.
      seed: At least 0; fixes every proposal.
      constraints: Hard bounds that every asked arch keeps.
      over: What the draws are uniform over, see `SearchSpace.sample`.

    Example:
      >>> from oneshot.space import Choice
      >>> algorithm = RandomSearch(SearchSpace([Choice("kernel", (3, 5, 7))]))
      >>> sorted(algorithm.ask(9))
      [(0,), (1,), (2,)]
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        constraints: Constraints | None = None,
        over: Over = "archs",
    ):
        self.space = space
        self.over: Over = over
        self._proposals = Proposals(space, seed, constraints)

    def ask(self, n: int) -> list[Arch]:
        """Return up to `n` archs with new paths, see `Algorithm`."""
        return self._proposals.draw(
            n, lambda rng: self.space.sample(rng, 1, self.over)[0]
        )

    def tell(self, archs: Sequence[Arch], values: ArrayLike) -> None:
        """Note that `archs` are known; their values change nothing."""
        told(archs, values)  # for its check only
        self._proposals.know(archs)

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, as JSON values."""
        return {"proposals": self._proposals.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; a ValueError if it is of another space."""
        self._proposals.restore(state["proposals"])
