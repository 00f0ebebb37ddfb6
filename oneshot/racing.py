"""Racing: no more images for a candidate that cannot be among the best any more.

The scored images come in equal parts, in random order. After each part a candidate is
out if it is worse than each of the `top` best so far, by a paired t-test on the images
that both have seen, at a level that holds for all tests of the race together. What is
estimated is the mean over all the scored images, so variances carry the correction for
sampling without replacement.

Maron & Moore, Hoeffding Races, NeurIPS 1993; Birattari et al., A Racing Algorithm for
Configuring Metaheuristics, GECCO 2002 (paired tests; this is neither's procedure).
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Race:
    """When to stop scoring a candidate.

    Args:
      top: How many of the archs of one call are to be told apart from the rest, 1 or
        more.
      confidence: Probability, in 0 to 1, that all of those that would be the best on
        all images are still in at the end.
      parts: Parts that the scored images are cut into, 2 or more; each candidate gets
        at least one.
      metric: What is compared.
      maximise: Whether more of it is better.

    Raises:
      ValueError: If a number is out of its range.

    Example:
      >>> evaluator = Evaluator(net, data, race=Race(top=10, confidence=0.95))
      >>> scores = evaluator(weights, archs)
      >>> scores.images  # how many each was scored on
    """

    top: int
    confidence: float = 0.95
    parts: int = 4
    metric: str = "loss"
    maximise: bool = False

    def __post_init__(self):
        for name, good, what in (
            ("top", self.top >= 1, "at least 1"),
            ("confidence", 0 < self.confidence < 1, "between 0 and 1, both excluded"),
            ("parts", self.parts >= 2, "at least 2"),
        ):
            if not good:
                raise ValueError(
                    f"A race's `{name}` is {what}, but got {getattr(self, name)!r}."
                )

    def losers(self, values: np.ndarray, total: int, candidates: int) -> np.ndarray:
        """Return which candidates are out, bool [m].

        Args:
          values: The metric of the candidates still in, [m, images so far].
          total: Images in all.
          candidates: How many took part when the race began.
        """
        values = values.astype(np.float64) * (-1 if self.maximise else 1)
        m, n = values.shape
        means = np.where(np.isfinite(values).all(1), values.mean(1), np.inf)
        best = np.argsort(means, kind="stable")[: self.top]
        if m <= self.top or n < 2 or not np.isfinite(means[best]).all():
            return np.zeros(m, bool)
        worst = np.full(m, np.inf)
        for i in best:
            worst = np.minimum(worst, _t_values(values, values[i], total))
        out = worst > self._critical(n, candidates)
        out[~np.isfinite(means)] = True
        out[best] = False
        return out

    def _critical(self, n: int, candidates: int) -> float:
        from scipy.special import stdtrit  # slow to import, and seldom needed

        # A true winner is lost only if a test rejects against one that is not better
        # than it: Bonferroni over winners, rivals and rounds bounds that.
        tests = self.top * max(1, candidates - 1) * (self.parts - 1)
        return float(stdtrit(n - 1, 1 - (1 - self.confidence) / tests))


def _t_values(values: np.ndarray, rival: np.ndarray, total: int) -> np.ndarray:
    """Return the paired t statistics of each row being worse than `rival`, [m]."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        differences = values - rival
        n = differences.shape[1]
        error = differences.std(1, ddof=1) * np.sqrt((1 - n / total) / n)
        t = differences.mean(1) / error
    return np.nan_to_num(t, nan=0.0, posinf=np.inf, neginf=-np.inf)


def random_order(n: int) -> np.ndarray:
    """Return a fixed random order of n images: a split may be sorted by class."""
    return np.random.default_rng([0, n]).permutation(n)
