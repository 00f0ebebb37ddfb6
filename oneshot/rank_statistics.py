"""Rank statistics of weighted networks, and so of all bootstrap resamples at once.

A resample of n networks is n counts: how often it holds each. Every statistic here
takes counts [r, n] of r resamples, of which the first may be ones, the networks as they
are, and returns r values. Numbers of pairs are forms w' S w over the signs S of all
pairs, which are one matrix product for all resamples.

References:
  Kendall. Partial rank correlation. Biometrika 32(3/4), 1942.
  Somers. A new asymmetric measure of association for ordinal variables. American
  Sociological Review 27(6), 1962 (the denominator of `tau_within`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from oneshot.correlations import dense_ranks, percentiles

_ROWS = 512  # of the matrix of signs, made at a time
_ENTRIES = 2**19  # of counts, worked on at a time where no matrix product is needed


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A statistic and its bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined (all equal)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self, name: str = "value") -> dict[str, float | None]:
        """Return {`name`, "low", "high"}, with null for NaN."""
        named = {name: self.value, "low": self.low, "high": self.high}
        return {k: None if math.isnan(v) else v for k, v in named.items()}


def estimate(values: np.ndarray, level: float = 0.95) -> Estimate:
    """Return values [1 + resamples], the first that of the networks, as an estimate."""
    if math.isnan(values[0]):
        return Estimate(math.nan, math.nan, math.nan)
    return Estimate(float(values[0]), *percentiles(values[1:], level))


def resample_counts(n: int, seed: int, resamples: int = 2000) -> np.ndarray:
    """Return how often each network is in the sample, once, and in each resample.

    Args:
      n: Number of networks.
      seed: Fixes the resamples, which are those of `bootstrap_interval`.
      resamples: How many.

    Returns:
      float32 counts [1 + resamples, n], the first row ones.

    Example:
      >>> resample_counts(3, seed=0, resamples=2).sum(axis=1)
      array([3., 3., 3.], dtype=float32)
    """
    rng = np.random.default_rng(seed)
    counts = np.ones((1 + resamples, n), np.float32)
    for row in counts[1:]:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
    return counts


def tau(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b of each resample.

    Args:
      counts: [r, n].
      x: Values [n], finite.
      y: Values [n], finite.

    Returns:
      [r], NaN where x or y is constant; time r n², memory r n.

    Example:
      >>> tau(np.ones((1, 4)), [1, 2, 3, 4], [1, 3, 2, 4]).round(3)
      array([0.667])
    """
    ranks = dense_ranks([x, y])
    scale = [np.sqrt(_untied_pairs(counts, r)) for r in ranks]
    return _ratio(_concordant_less_discordant(counts, *ranks), scale[0] * scale[1])


def tau_within(
    counts: np.ndarray, x: np.ndarray, y: np.ndarray, strata: np.ndarray
) -> np.ndarray:
    """Return Kendall's tau over only those pairs whose covariates are all equal.

    It is concordant less discordant over comparable pairs, those of one stratum that y
    tells apart. A pair that x ties counts as neither, so a score that is a function of
    the covariates has 0.

    Args:
      counts: [r, n].
      x: Scores [n].
      y: Truths [n].
      strata: Discrete covariates [n, m].

    Returns:
      [r], NaN where no pair is comparable.

    Example:
      >>> groups = np.array([[0], [0], [1], [1]])
      >>> tau_within(np.ones((1, 4)), [2, 1, 3, 4], [5, 6, 1, 2], groups)
      array([0.])
    """
    left, right = dense_ranks([x, y])
    pairs, comparable = np.zeros(len(counts)), np.zeros(len(counts))
    for members in _members(strata):
        mine = counts[:, members]
        pairs += _concordant_less_discordant(mine, left[members], right[members])
        comparable += _untied_pairs(mine, right[members])
    return _ratio(pairs, comparable)


def comparable_pairs(y: np.ndarray, strata: np.ndarray) -> int:
    """Return the number of pairs that `tau_within` is over."""
    ones, ranks = np.ones((1, len(y))), dense_ranks([y])[0]
    return sum(int(_untied_pairs(ones[:, m], ranks[m])[0]) for m in _members(strata))


def partial(xy: np.ndarray, xz: np.ndarray, yz: np.ndarray) -> np.ndarray:
    """Return the partial tau of x and y given z, from their three taus.

    Args:
      xy: Taus [r] of x and y.
      xz: Taus [r] of x and z.
      yz: Taus [r] of y and z.

    Returns:
      [r], NaN where z is constant, or ranks exactly as x or y does.

    Example:
      >>> partial(np.array([0.5]), np.array([0.5]), np.array([0.5])).round(3)
      array([0.333])
    """
    left = [np.where(1 - t**2 < 1e-12, 0.0, 1 - t**2) for t in (xz, yz)]  # rounding
    return _ratio(xy - xz * yz, np.sqrt(left[0] * left[1]))


def rho(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman's rho [r] of each resample, tied values sharing a mean rank."""
    ranks = dense_ranks([x, y])

    def some(part: np.ndarray) -> np.ndarray:
        left, right = (_centred_ranks(part, r) for r in ranks)
        scale = [np.sqrt((part * side**2).sum(axis=1)) for side in (left, right)]
        return _ratio((part * left * right).sum(axis=1), scale[0] * scale[1])

    return _by_chunks(some, counts)


def precision_at(
    counts: np.ndarray, x: np.ndarray, y: np.ndarray, k: int
) -> np.ndarray:
    """Return the share of the k best by x that are among the k best by y.

    Where the k-th place is tied, it is the mean over all ways to break the tie, so a
    constant x has k / n, as chance does.

    Args:
      counts: [r, n].
      x: Scores [n], higher is better.
      y: Truths [n], higher is better.
      k: How many are best, 1 to n.

    Returns:
      [r], 0 to 1.

    Example:
      >>> precision_at(np.ones((1, 4)), [4, 3, 1, 2], [4, 1, 3, 2], 2)
      array([0.5])
    """
    ranks = dense_ranks([x, y])

    def some(part: np.ndarray) -> np.ndarray:
        left, right = (_share_taken(part, r, k) for r in ranks)
        return (part * left * right).sum(axis=1) / k

    return _by_chunks(some, counts)


def regret_at(counts: np.ndarray, x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Return the best y of all less the best y among the k best by x.

    Where the k-th place by x is tied, it is the mean over all ways to break the tie.

    Args:
      counts: [r, n].
      x: Scores [n], higher is better.
      y: Truths [n], higher is better.
      k: How many are tried, 1 to n.

    Returns:
      [r] in the unit of y, 0 or more.

    Example:
      >>> regret_at(np.ones((1, 4)), [4, 3, 1, 2], [91.0, 92.0, 95.0, 90.0], 2)
      array([3.])
    """
    (ranks,), best_first = dense_ranks([x]), np.argsort(-np.asarray(y), kind="stable")
    truth = np.asarray(y, float)[best_first]
    # Sums of logarithms make binomial coefficients: of a resample's n networks at most.
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(ranks) + 1)))])

    def some(part: np.ndarray) -> np.ndarray:
        share = _share_taken(part, ranks, k)[:, best_first]
        part = part[:, best_first].astype(np.int64)
        best = truth[(part > 0).argmax(axis=1)]
        sure = np.where((part > 0) & (share == 1), truth, truth[-1]).max(axis=1)
        tied = np.where((share > 0) & (share < 1), part, 0)
        seen, drawn = tied.cumsum(axis=1), k - np.where(share == 1, part, 0).sum(axis=1)
        none_yet = _chance_of_none(logs, seen, drawn[:, None])
        first = -np.diff(none_yet, axis=1, prepend=1.0)
        found = (first * np.maximum(truth, sure[:, None])).sum(axis=1)
        return (best - found - none_yet[:, -1] * sure).clip(0)

    return _by_chunks(some, counts)


def _chance_of_none(
    logs: np.ndarray, seen: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """The chance that none of the first `seen` [r, n] of a tie is among those drawn."""
    total = seen[:, -1:]
    left = total - seen - drawn
    chance = logs[total - seen] - logs[left.clip(0)] - logs[total] + logs[total - drawn]
    return np.where(left < 0, 0.0, np.exp(chance))


def _concordant_less_discordant(
    counts: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    x, y = left.astype(np.float32), right.astype(np.float32)
    counts = counts.astype(np.float32)
    total = np.zeros(len(counts))
    for start in range(0, len(x), _ROWS):  # of the symmetric matrix, its upper half
        rows, rest = slice(start, start + _ROWS), slice(start, None)
        signs = np.sign(x[rows, None] - x[rest]) * np.sign(y[rows, None] - y[rest])
        # Both factors are whole numbers that float32 holds; their sum is not.
        part = (counts[:, rows] @ signs) * counts[:, rest]
        inside, beside = part[:, :_ROWS], part[:, _ROWS:]
        total += inside.sum(axis=1, dtype=float) / 2 + beside.sum(axis=1, dtype=float)
    return total


def _untied_pairs(counts: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    def some(part: np.ndarray) -> np.ndarray:
        _, sizes = _groups(part, ranks)
        return (sizes.sum(axis=1) ** 2 - (sizes**2).sum(axis=1)) / 2

    return _by_chunks(some, counts)


def _groups(counts: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each one's group [n], best first, and counts of the groups [r, groups]."""
    worst_first, group = np.unique(-ranks, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(worst_first)))
    return group, np.add.reduceat(counts[:, order].astype(float), starts, axis=1)


def _centred_ranks(counts: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    group, sizes = _groups(counts, ranks)
    middle = sizes.cumsum(axis=1) - sizes / 2
    return (middle - sizes.sum(axis=1, keepdims=True) / 2)[:, group]


def _share_taken(counts: np.ndarray, ranks: np.ndarray, k: int) -> np.ndarray:
    """Return how much of each of the networks [r, n] is among the k best."""
    group, sizes = _groups(counts, ranks)
    left = (k - (sizes.cumsum(axis=1) - sizes)).clip(0)
    return np.minimum(left / np.maximum(sizes, 1), 1)[:, group]


def _members(strata: np.ndarray) -> list[np.ndarray]:
    """Return the indices of each stratum that has a pair."""
    table = np.asarray(strata).reshape(len(strata), -1)
    stratum = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(stratum, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(stratum[order])) + 1)
    return [part for part in parts if len(part) > 1]


def _by_chunks(fn: Callable[[np.ndarray], np.ndarray], counts: np.ndarray):
    step = max(1, _ENTRIES // counts.shape[1])
    starts = range(0, len(counts), step)
    return np.concatenate([fn(counts[start : start + step]) for start in starts])


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        out = np.where(below > 0, above / below, np.nan)
    return np.clip(out, -1.0, 1.0)
