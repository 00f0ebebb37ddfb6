"""How far a ranking of archs can be trusted: rank statistics beside what is free.

A Kendall tau alone says little: parameters, multiply-adds or depth often rank as well
as a supernet does. `ranking` therefore measures all of them on the same networks, all
and the better half, with bootstrap intervals, and says in words whether the supernet
beats the best of them, and how much of what seeds allow it reaches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oneshot import rank_statistics as statistics
from oneshot.correlations import bootstrap_interval as bootstrap_interval
from oneshot.correlations import dense_ranks
from oneshot.correlations import kendall_tau as kendall_tau
from oneshot.correlations import spearman as spearman
from oneshot.correlations import wilson_interval as wilson_interval
from oneshot.rank_statistics import Estimate as Estimate
from oneshot.rank_statistics import estimate
from oneshot.rank_taus import Taus as Taus
from oneshot.rank_taus import best_taus, ceiling_over, checked_ceiling, taus_of
from oneshot.rank_taus import seed_ceiling as seed_ceiling
from oneshot.ranking_words import words


@dataclasses.dataclass(frozen=True)
class Ranking:
    """How well inherited scores rank networks, beside what ranks them for free.

    Args:
      overall: Correlations over all networks.
      top_half: Those over the better half by truth.
      top_tenth: Those over the best tenth by truth.
      precision: By k, the share of the k best by score among the k best by truth.
      regret: By k, the best truth of all less the best among the k best by score.
      partial: Tau of the inherited scores given the multiply-adds. It need not be 0 for
        scores that know no more than those: `within` is the stricter test.
      within: Tau over pairs of networks with equal covariates, where there are any.
      pairs_within: Number of those pairs.
      drawn: How the networks were drawn, in words.
      guided: What the supernet was told of costs or another prior, in words, or None.
    """

    overall: Taus
    top_half: Taus
    top_tenth: Taus
    precision: Mapping[int, Estimate]
    regret: Mapping[int, Estimate]
    partial: Estimate
    within: Estimate | None
    pairs_within: int
    drawn: str
    guided: str | None = None

    @property
    def tau(self) -> float:
        """Tau of the inherited scores over all networks."""
        return self.overall.inherited.value

    @property
    def interval(self) -> tuple[float, float]:
        """Bootstrap interval of `tau`."""
        return self.overall.inherited.low, self.overall.inherited.high

    @property
    def spearman(self) -> Estimate:
        """Spearman's rho of the inherited scores over all networks."""
        return self.overall.spearman

    def guided_by(self, words: str | None) -> Ranking:
        """Return this ranking as that of a supernet that was told of costs or a prior.

        Args:
          words: What it was told, such as `trainer.guided`; None for nothing.

        Example:
          >>> found = ranking(scores, truth, ...).guided_by(trainer.guided)
        """
        return dataclasses.replace(self, guided=words)

    def words(self) -> str:
        """Return the finding as prose, with every number that belongs beside it."""
        return words(self)

    def to_json(self) -> dict[str, Any]:
        """Return every number and the words, as strict JSON values (NaN is null).

        What `Taus.to_json` has over all networks, and again under "top_half" and
        "top_tenth"; {"value", "low", "high"} by k under "precision" and "regret";
        {"tau", "low", "high"} under "partial_given_macs" and, with "pairs",
        "tau_within" (null without covariates); "drawn", "guided" and "words".
        """
        within = self.within and self.within.to_json("tau")
        return {
            **self.overall.to_json(),
            "top_half": self.top_half.to_json(),
            "top_tenth": self.top_tenth.to_json(),
            "precision": {str(k): v.to_json() for k, v in self.precision.items()},
            "regret": {str(k): v.to_json() for k, v in self.regret.items()},
            "partial_given_macs": self.partial.to_json("tau"),
            "tau_within": within and {**within, "pairs": self.pairs_within},
            "drawn": self.drawn,
            "guided": self.guided,
            "words": self.words(),
        }


def ranking(
    inherited: ArrayLike,
    truth: ArrayLike,
    *,
    params: ArrayLike,
    macs: ArrayLike,
    depth: ArrayLike,
    drawn: str,
    ceiling: float | ArrayLike | None,
    ks: Sequence[int] = (10, 50),
    strata: ArrayLike | None = None,
    seed: int = 0,
) -> Ranking:
    """Measure how well inherited scores rank networks, and what trivial ranks do.

    Args:
      inherited: Scores [n] by inherited weights, higher is better: pass minus a loss.
      truth: Scores [n] of the networks trained alone, higher is better.
      params: Numbers of parameters [n].
      macs: Numbers of multiply-adds [n].
      depth: Depths [n], such as numbers of layers that are not skipped.
      drawn: How the n were drawn, in words.
      ceiling: Tau of the truth with itself over other seeds; or truths [seeds, n] to
        compute it from, for the better networks, too; or None, if it is not known.
      ks: Where to measure precision and regret; those not below n are left out.
      strata: Discrete covariates [n, m], such as numbers of layers by stage; `within`
        compares only networks that have all of them equal.
      seed: Fixes the bootstrap.

    Returns:
      The statistics with 95 % intervals over resamples of the networks; those of the
      better half and tenth resample that part. Time is in proportion to n².

    Raises:
      ValueError: If the lengths differ, a value is not finite, n is below 4, a k is
        below 1, or a ceiling is no tau.

    Example:
      >>> up = np.arange(20.0)
      >>> free = {"params": -up, "macs": up % 2, "depth": up // 7}
      >>> found = ranking(up, up, **free, drawn="all", ceiling=None)
      >>> found.tau, found.overall.baseline[0]
      (1.0, 'parameters, reversed')

    Reference:
      Kendall. Partial rank correlation. Biometrika 32(3/4), 1942.
    """
    score, true = np.asarray(inherited, float), np.asarray(truth, float)
    scores = {"inherited": score, "params": params, "macs": macs, "depth": depth}
    scores = {name: np.asarray(v, float) for name, v in scores.items()}
    groups = None if strata is None else np.asarray(strata)
    _check(scores, true, groups, ks)
    limit = checked_ceiling(ceiling, true.size)
    counts = statistics.resample_counts(true.size, seed)
    taus = {name: statistics.tau(counts, v, true) for name, v in scores.items()}
    rho = estimate(statistics.rho(counts, score, true))
    size = statistics.tau(counts, score, scores["macs"])
    some = sorted({int(k) for k in ks if k < true.size})

    def at(fn) -> dict[int, Estimate]:
        return {k: estimate(fn(counts, score, true, k)) for k in some}

    within = None
    if groups is not None:
        within = estimate(statistics.tau_within(counts, score, true, groups))
    return Ranking(
        overall=taus_of(taus, rho, true.size, ceiling_over(limit, slice(None))),
        top_half=best_taus(scores, true, 0.5, limit, seed),
        top_tenth=best_taus(scores, true, 0.9, limit, seed),
        precision=at(statistics.precision_at),
        regret=at(statistics.regret_at),
        partial=estimate(statistics.partial(taus["inherited"], size, taus["macs"])),
        within=within,
        pairs_within=0 if groups is None else statistics.comparable_pairs(true, groups),
        drawn=drawn,
    )


def _check(
    scores: dict[str, np.ndarray],
    true: np.ndarray,
    strata: np.ndarray | None,
    ks: Sequence[int],
) -> None:
    if true.size < 4:
        raise ValueError(
            f"A ranking of {true.size} networks means nothing; measure at least 4, and "
            "better 30 or more."
        )
    dense_ranks([true, *scores.values()])
    if strata is not None and (strata.ndim != 2 or len(strata) != true.size):
        raise ValueError(
            f"Covariates are an array [n, m] of n = {true.size} networks, but shape "
            f"{strata.shape} was given. Pass one row a network, one column a covariate."
        )
    if any(k < 1 for k in ks):
        raise ValueError(
            f"Precision and regret are of the k best, k at least 1, but ks = {ks}. "
            "Leave the others out."
        )
