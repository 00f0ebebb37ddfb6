"""Racing: no more images for a candidate that cannot be among the best any more.

The scored images come in equal parts, in random order. After each part a candidate is
out if it is worse than each of the `top` best so far, by a paired t-test on the images
that both have seen, at a level that holds for all tests of the race together. What is
estimated is the mean over all the scored images, so variances carry the correction for
sampling without replacement.

A t-test trusts the spread that it has seen, and losses have long tails: a network that
fails badly on one image in a hundred looks good, and reliably so, until that image
comes. So each test counts one image more than were seen, on which the candidate beats
its rival by as much as any two candidates have been apart on an image. That matters
among few images and fades as 1/n. (Without it, a race at 95 % lost one of the best in
up to a third of simulated races; with it, in fewer than 1 %.)

Maron & Moore, Hoeffding Races, NeurIPS 1993; Birattari et al., A Racing Algorithm for
Configuring Metaheuristics, GECCO 2002 (paired tests; this is neither's procedure).
"""

from __future__ import annotations

import dataclasses

import numpy as np

_ROUNDING = 1e-5  # relative; below it, float32 does not tell two networks apart


@dataclasses.dataclass(frozen=True)
class Race:
    """When to stop scoring a candidate.

    A race is among the archs of one call, so `search` holds one for each batch that it
    asks for. Its confidence is that of each race, not of all of them together; and
    since images come in one fixed random order, the same archs race to the same end.

    Who is out keeps the score it has, over fewer images and with the larger standard
    error. With several objectives it may still be on the front, as a small network of
    high loss; and an objective other than `metric` (a group's loss, say) may have
    wanted those whom a race by `metric` stopped early.

    Args:
      top: How many of the archs of one call are to be told apart from the rest, 1 or
        more. With no more archs than that, all are scored on all images.
      confidence: Least probability, in 0 to 1, over random orders of the images, that
        those that would be the best on all images are all still in at the end. It
        rests on means of n images being about normal: for images unlike all that were
        seen before, no test can vouch.
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

        Those with a value that is not finite have failed, and are out without a test.
        Only whole parts are tested, so that the number of tests, and who is out, do not
        depend on how many images fit the memory at once.

        Args:
          values: The metric of the candidates still in, [m, images so far].
          total: Images in all.
          candidates: How many took part when the race began.
        """
        out = np.asarray(~np.isfinite(values).all(1))
        part = -(-total // self.parts)
        n = values.shape[1] // part * part
        seen = values[:, :n].astype(np.float64) * (-1 if self.maximise else 1)
        while 2 <= n < total:
            alive = np.flatnonzero(~out)
            if len(alive) <= self.top:
                break
            beaten = self._beaten(seen[alive], total, candidates)
            if not beaten.any():
                break
            out[alive[beaten]] = True  # and their distance counts no more: test again
        return out

    def _beaten(self, values: np.ndarray, total: int, candidates: int) -> np.ndarray:
        best = np.argsort(values.mean(1), kind="stable")[: self.top]
        spread = float((values.max(0) - values.min(0)).max())
        least = np.full(len(values), np.inf)
        for i in best:
            least = np.minimum(least, _t_values(values, values[i], spread, total))
        out = least > self._critical(values.shape[1], candidates)
        out[best] = False
        return out

    def _critical(self, n: int, candidates: int) -> float:
        from scipy.special import stdtrit  # slow to import, and seldom needed

        # Whoever is out was found worse than all `top` best so far. If it was of the
        # true best, one of those is not: that test erred. Bonferroni over the pairs of
        # one that is with one that is not, and over the rounds, bounds all such errors
        # together, whoever the best so far are each time.
        tests = self.top * (candidates - self.top) * (self.parts - 1)
        return float(stdtrit(n - 1, 1 - (1 - self.confidence) / tests))


def _t_values(
    values: np.ndarray, rival: np.ndarray, spread: float, total: int
) -> np.ndarray:
    """Return the paired t statistics of each row being worse than `rival`, [m].

    They include one image more, on which each row is better by `spread`.
    """
    differences = values - rival
    n, means = differences.shape[1], differences.mean(1)
    squares = n * differences.var(1) + n / (n + 1) * np.square(means + spread)
    errors = np.sqrt(squares / n * (1 - n / total) / (n + 1))
    floor = _ROUNDING * np.abs(rival).mean() + np.finfo(np.float64).tiny
    return (n * means - spread) / (n + 1) / np.maximum(errors, floor)


def random_order(n: int) -> np.ndarray:
    """Return a fixed random order of n images: a split may be sorted by class."""
    return np.random.default_rng([0, n]).permutation(n)
