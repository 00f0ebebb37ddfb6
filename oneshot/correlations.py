"""Rank correlations with ties, and intervals of statistics and of proportions.

References:
  Kendall. The treatment of ties in ranking problems. Biometrika 33(3), 1945 (tau-b).
  Wilson. Probable inference, the law of succession, and statistical inference. Journal
  of the American Statistical Association 22, 1927.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def kendall_tau(x: ArrayLike, y: ArrayLike) -> float:
    """Return Kendall's tau-b of two rankings, ties included.

    Args:
      x: Values [n], finite.
      y: Values [n], finite.

    Returns:
      The correlation in -1 to 1; NaN where either is constant. Time n log² n.

    Raises:
      ValueError: If the shapes differ, or a value is not finite.

    Example:
      >>> round(kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]), 3)
      0.667
    """
    left, right = dense_ranks([x, y])
    n = len(left)
    order = np.lexsort((right, left))  # within ties of x by y: no inversions there
    swaps = _inversions(right[order])
    pairs = n * (n - 1) // 2
    tied_x, tied_y = _tied_pairs(left), _tied_pairs(right)
    tied_both = _tied_pairs(left * (n + 1) + right)
    scale = math.sqrt(pairs - tied_x) * math.sqrt(pairs - tied_y)
    if scale == 0:
        return math.nan
    concordant_less_discordant = pairs - tied_x - tied_y + tied_both - 2 * swaps
    return max(-1.0, min(1.0, concordant_less_discordant / scale))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's rho of two rankings, tied values sharing their mean rank.

    Args:
      x: Values [n], finite.
      y: Values [n], finite.

    Returns:
      The correlation in -1 to 1; NaN where either is constant.

    Raises:
      ValueError: If the shapes differ, or a value is not finite.

    Example:
      >>> round(spearman([1, 2, 3, 4], [1, 3, 2, 4]), 3)
      0.8
    """
    left, right = (_mean_ranks(r) for r in dense_ranks([x, y]))
    left, right = left - left.mean(), right - right.mean()
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return math.nan if scale == 0 else max(-1.0, min(1.0, float(left @ right) / scale))


def bootstrap_interval(
    fn: Callable[..., float],
    arrays: Sequence[ArrayLike],
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a statistic.

    Args:
      fn: `fn(*arrays) -> float`.
      arrays: Arrays of one length, whose rows are drawn together with replacement.
      n: Number of resamples.
      seed: Fixes the resamples.
      level: Coverage, between 0 and 1.

    Returns:
      (low, high); resamples where `fn` is NaN are passed over, and (NaN, NaN) if all
      are.

    Raises:
      ValueError: If the lengths differ.

    Example:
      >>> low, high = bootstrap_interval(np.mean, [np.arange(100)])
      >>> low < 49.5 < high
      True
    """
    columns = [np.asarray(a) for a in arrays]
    if len({len(c) for c in columns}) != 1:
        raise ValueError(
            "A bootstrap draws rows of arrays of one length, but the lengths are "
            f"{[len(c) for c in columns]}. Drop the rows that do not belong together."
        )
    rng, size = np.random.default_rng(seed), len(columns[0])
    draws = (rng.integers(size, size=size) for _ in range(n))
    return percentiles([fn(*(c[rows] for c in columns)) for rows in draws], level)


def wilson_interval(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a proportion, such as an accuracy.

    Args:
      correct: Number of successes, 0 to n.
      n: Number of trials; with 0 the interval is (0, 1).
      level: Coverage, between 0 and 1.

    Returns:
      (low, high), within 0 to 1.

    Raises:
      ValueError: If `correct` is not within 0 to n.

    Example:
      >>> [round(v, 3) for v in wilson_interval(90, 100)]
      [0.826, 0.945]
    """
    if not 0 <= correct <= n:
        raise ValueError(
            f"The number correct has to be within 0 and n = {n}, but is {correct}. "
            "Pass counts, not a fraction."
        )
    if n == 0:
        return 0.0, 1.0
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    share, spread = correct / n, z * z / n
    centre = share + spread / 2
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4)
    low, high = (centre - half) / (1 + spread), (centre + half) / (1 + spread)
    return (0.0 if correct == 0 else low), (1.0 if correct == n else high)


def percentiles(values: ArrayLike, level: float) -> tuple[float, float]:
    """Return the middle `level` of `values` as (low, high), passing over NaN."""
    valid = np.asarray(values, float)
    valid = valid[~np.isnan(valid)]
    if not len(valid):
        return math.nan, math.nan
    low, high = np.quantile(valid, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def dense_ranks(arrays: Sequence[ArrayLike]) -> list[np.ndarray]:
    """Return each array as integers 0, 1, ... in its order; equal values share one."""
    columns = [np.asarray(a, float) for a in arrays]
    if any(c.ndim != 1 for c in columns) or len({c.shape for c in columns}) != 1:
        raise ValueError(
            "Rank statistics take arrays [n] of one length, but got shapes "
            f"{[c.shape for c in columns]}."
        )
    if not all(np.isfinite(c).all() for c in columns):
        raise ValueError(
            "Rank statistics take finite values, but some are NaN or infinite. Leave "
            "out the networks that failed, and say how many did."
        )
    return [np.unique(c, return_inverse=True)[1].astype(np.int64) for c in columns]


def _mean_ranks(dense: np.ndarray) -> np.ndarray:
    counts = np.bincount(dense)
    return (np.cumsum(counts) - (counts - 1) / 2)[dense]


def _tied_pairs(ranks: np.ndarray) -> int:
    counts = np.unique(ranks, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(ranks: np.ndarray) -> int:
    """Return the number of pairs i < j with ranks[i] > ranks[j], by bits, high first.

    Two ranks first differ at one bit; there the pair is an inversion if the one before
    has it and the one after has not. Sorting by the bits seen so far, and keeping the
    order otherwise, leaves in one group those that still have to be told apart.
    """
    total = 0
    for bit in reversed(range(int(ranks.max(initial=0)).bit_length())):
        has = (ranks >> bit) & 1
        group = ranks >> (bit + 1)  # ascending, by the sorting of the round before
        ones = np.cumsum(has)
        start = np.searchsorted(group, group)  # first place of each one's group
        before = ones - np.where(start > 0, ones[start - 1], 0)
        total += int(before[has == 0].sum())
        ranks = ranks[np.argsort(ranks >> bit, kind="stable")]
    return total
