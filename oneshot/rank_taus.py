"""Rank correlations over some networks: of scores, of what is free, and of a seed.

What is free, parameters, multiply-adds and depth, is the floor of a useful score; the
truth of one seed ranked against the truth of others is its ceiling.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oneshot.correlations import kendall_tau
from oneshot.rank_statistics import Estimate, estimate, resample_counts, rho, tau

TRIVIAL = {"params": "parameters", "macs": "multiply-adds", "depth": "depth"}


@dataclasses.dataclass(frozen=True)
class Taus:
    """Kendall's taus with the truth over some networks, of scores and of what is free.

    Args:
      n: Number of networks.
      inherited: Tau of the inherited scores.
      spearman: Spearman's rho of the inherited scores.
      params: Tau of the number of parameters, more being better.
      macs: Tau of the multiply-adds, more being better.
      depth: Tau of the depth, more being better.
      lead: Tau of the inherited scores less that of the best trivial ranking, over
        the same resamples.
      ceiling: Tau of one seed of the truth against others, where known.
    """

    n: int
    inherited: Estimate
    spearman: Estimate
    params: Estimate
    macs: Estimate
    depth: Estimate
    lead: Estimate
    ceiling: float | None = None

    @property
    def baseline(self) -> tuple[str, float]:
        """The best trivial ranking and its tau; a negative one is used reversed."""
        field, sign = _strongest({k: getattr(self, k).value for k in TRIVIAL})
        if field is None:
            return "any trivial ranking", 0.0
        name = TRIVIAL[field] if sign > 0 else f"{TRIVIAL[field]}, reversed"
        return name, sign * getattr(self, field).value

    @property
    def beats_baseline(self) -> bool | None:
        """Whether the scores rank better than it; None if the interval has both."""
        if self.lead.low > 0:
            return True
        return False if self.lead.high < 0 else None  # None for NaN, too

    @property
    def ceiling_share(self) -> float | None:
        """Tau of the scores as a share of the ceiling; None where not known."""
        if self.ceiling is None or math.isnan(self.inherited.value):
            return None
        return self.inherited.value / self.ceiling if self.ceiling > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as strict JSON values (NaN is null)."""
        return {
            **self.inherited.to_json("tau"),
            "n": self.n,
            "spearman": self.spearman.to_json(),
            **{name: getattr(self, name).to_json("tau") for name in TRIVIAL},
            "lead": self.lead.to_json(),
            "beats_baseline": self.beats_baseline,
            "ceiling": self.ceiling,
            "ceiling_share": self.ceiling_share,
        }


def taus_of(
    values: Mapping[str, np.ndarray], spearman: Estimate, n: int, ceiling: float | None
) -> Taus:
    """Return taus [1 + resamples] by name as estimates, with the lead among them."""
    field, sign = _strongest({name: values[name][0] for name in TRIVIAL})
    free = 0.0 if field is None else sign * values[field]
    lead = estimate(values["inherited"] - free)
    numbers = {name: estimate(some) for name, some in values.items()}
    return Taus(n=n, spearman=spearman, lead=lead, ceiling=ceiling, **numbers)


def best_taus(
    scores: Mapping[str, np.ndarray],
    true: np.ndarray,
    quantile: float,
    limit: float | np.ndarray | None,
    seed: int,
) -> Taus:
    """Return the taus over the networks no worse than this quantile of the truth.

    Args:
      scores: Scores [n] by name, "inherited" and those of `TRIVIAL`.
      true: Truths [n].
      quantile: Between 0 and 1.
      limit: What `checked_ceiling` returned.
      seed: Fixes the bootstrap, which resamples these networks.
    """
    kept = true >= np.quantile(true, quantile)
    counts = resample_counts(int(kept.sum()), seed)
    values = {name: tau(counts, v[kept], true[kept]) for name, v in scores.items()}
    spearman = estimate(rho(counts, scores["inherited"][kept], true[kept]))
    return taus_of(values, spearman, int(kept.sum()), ceiling_over(limit, kept))


def seed_ceiling(truths: ArrayLike) -> float:
    """Return how well one seed of the truth ranks as the others do.

    Args:
      truths: Scores [seeds, n] of the networks trained alone, of 2 seeds or more.

    Returns:
      Kendall's tau of each seed with the mean of the others, averaged over the seeds;
      NaN where one is constant.

    Example:
      >>> seed_ceiling([[1, 2, 3, 4], [1, 2, 3, 4]])
      1.0
    """
    table = np.asarray(truths, float)
    others = [np.delete(table, i, axis=0).mean(axis=0) for i in range(len(table))]
    taus = [kendall_tau(*pair) for pair in zip(table, others, strict=True)]
    return float(np.mean(taus))


def ceiling_over(limit: float | np.ndarray | None, kept: Any) -> float | None:
    """Return the ceiling over the networks kept, a slice for all; None if not known."""
    if isinstance(limit, np.ndarray):
        value = seed_ceiling(limit[:, kept])
        return None if math.isnan(value) else value
    return limit if isinstance(kept, slice) else None  # one number is of all networks


def checked_ceiling(
    ceiling: float | ArrayLike | None, n: int
) -> float | np.ndarray | None:
    """Return a ceiling as a number, or as truths [seeds, n] to compute it from."""
    if ceiling is None:
        return None
    table = np.asarray(ceiling, float)
    if table.ndim == 0 and -1 <= table <= 1:
        return float(table)
    if table.ndim == 2 and len(table) > 1 and table.shape[1] == n:
        if np.isfinite(table).all():
            return table
    found = (
        f"{table} was given" if table.ndim == 0 else f"shape {table.shape} was given"
    )
    raise ValueError(
        "A ceiling is a Kendall tau of -1 to 1, or finite truths [seeds, n] of 2 seeds "
        f"or more and n = {n} networks to compute it from, but {found}. Pass None if "
        "it is not known."
    )


def _strongest(values: dict[str, float]) -> tuple[str | None, int]:
    known = {k: v for k, v in values.items() if not math.isnan(v) and v != 0}
    best = max(known, key=lambda k: abs(known[k]), default=None)
    return best, 1 if best is None or known[best] > 0 else -1
