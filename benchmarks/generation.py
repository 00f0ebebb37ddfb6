"""One generation of evolution as Single Path One-Shot makes it.

Of 50 archs the 10 best are parents. 25 children take each choice from one of two
parents, 25 are a parent with each choice drawn again at probability 0.1; what was seen
before is thrown away, and what is missing after ten tries a child is drawn at random.

Reference:
  Guo et al. Single path one-shot neural architecture search with uniform sampling.
  ECCV 2020. https://arxiv.org/abs/1904.00420
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from oneshot.space import Arch, SearchSpace

SIZE, PARENTS, CROSSOVERS, MUTATIONS, PROBABILITY = 50, 10, 25, 25, 0.1
_TRIES = 10  # for each child


def generation(
    space: SearchSpace, seed: int, loss: Callable[[Sequence[Arch]], Sequence[float]]
) -> list[Arch]:
    """Return the children of a random population: 50 archs with new, distinct paths.

    Args:
      space: The space.
      seed: Fixes the population and the children.
      loss: Ranks the population; the lowest are the parents.
    """
    rng = np.random.default_rng([seed, 2])
    seen: set[Arch] = set()
    first = _fill(space, rng, seen, SIZE)
    order = np.argsort(np.asarray(loss(first)), kind="stable")
    parents = [first[i] for i in order[:PARENTS]]

    def crossed() -> Arch:
        a, b = (parents[i] for i in rng.integers(0, PARENTS, 2))
        return space.crossover(rng, a, b)

    def mutated() -> Arch:
        parent = parents[int(rng.integers(0, PARENTS))]
        drawn = space.sample(rng, 1)[0]
        again = rng.random(len(parent)) < PROBABILITY
        return tuple(
            d if r else p for p, d, r in zip(parent, drawn, again, strict=True)
        )

    children = _tried(space, mutated, seen, MUTATIONS)
    children += _tried(space, crossed, seen, CROSSOVERS)
    return children + _fill(space, rng, seen, SIZE - len(children))


def random_codes(space: SearchSpace, seed: int, n: int = SIZE) -> list[Arch]:
    """Return `n` random archs with distinct paths."""
    return _fill(space, np.random.default_rng([seed, 3]), set(), n)


def _tried(
    space: SearchSpace, make: Callable[[], Arch], seen: set[Arch], n: int
) -> list[Arch]:
    """Make up to `n` archs with new paths, in ten times as many tries."""
    out: list[Arch] = []
    for _ in range(_TRIES * n):
        if len(out) == n:
            break
        key = space.path_key(make())
        if key not in seen:
            seen.add(key)
            out.append(key)
    return out


def _fill(
    space: SearchSpace, rng: np.random.Generator, seen: set[Arch], n: int
) -> list[Arch]:
    n = min(n, space.num_paths - len(seen))
    out: list[Arch] = []
    while len(out) < n:
        out += _tried(space, lambda: space.sample(rng, 1)[0], seen, n - len(out))
    return out
