"""How far a ranking of archs can be trusted: rank correlations with their intervals.

A Kendall tau alone says little: parameters, multiply-adds or depth often rank as well
as a supernet does. `ranking` therefore measures all of them on the same networks, with
bootstrap intervals, and says in words whether the supernet beats the best of them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oneshot.correlations import bootstrap_interval as bootstrap_interval
from oneshot.correlations import dense_ranks, percentiles
from oneshot.correlations import kendall_tau as kendall_tau
from oneshot.correlations import spearman as spearman
from oneshot.correlations import wilson_interval as wilson_interval

_RESAMPLES = 2000
_MATRIX_ROWS = 5000  # up to this n, all resamples are weighted by one matrix product


@dataclasses.dataclass(frozen=True)
class Tau:
    """A Kendall tau and its bootstrap interval; NaN where a ranking was constant."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined (all equal)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclasses.dataclass(frozen=True)
class Ranking:
    """How well inherited scores rank networks, beside what ranks them for free.

    Args:
      inherited: Tau of the inherited scores.
      params: Tau of the number of parameters, more being better.
      macs: Tau of the multiply-adds, more being better.
      depth: Tau of the depth, more being better.
      top_half: Tau of the inherited scores on the better half by truth.
      n: Number of networks.
      drawn: How they were drawn, in words.
      ceiling: Tau of one seed of the truth against others, where known.
    """

    inherited: Tau
    params: Tau
    macs: Tau
    depth: Tau
    top_half: Tau
    n: int
    drawn: str
    ceiling: float | None = None

    @property
    def tau(self) -> float:
        """Tau of the inherited scores."""
        return self.inherited.value

    @property
    def interval(self) -> tuple[float, float]:
        """Bootstrap interval of `tau`."""
        return self.inherited.low, self.inherited.high

    @property
    def baseline(self) -> tuple[str, float]:
        """The best trivial ranking and its tau; a negative one is used reversed."""
        names = {"params": "parameters", "macs": "multiply-adds", "depth": "depth"}
        best, strength = "any trivial ranking", 0.0
        for field, name in names.items():
            value = getattr(self, field).value
            if abs(value) > strength:  # false for NaN
                best, strength = name if value > 0 else f"{name}, reversed", abs(value)
        return best, strength

    def words(self) -> str:
        """Return the finding as prose, with every number that belongs beside it."""
        ceiling = "not known" if self.ceiling is None else f"{self.ceiling:.3f}"
        return (
            "Kendall's tau of inherited scores with the truth is "
            f"{self.inherited} over {self.n} networks ({self.drawn}), and "
            f"{self.top_half} on their better half; parameters alone reach "
            f"{self.params}, multiply-adds {self.macs}, depth {self.depth}; the "
            f"ceiling, seed against seed, is {ceiling}. "
            f"{self._verdict()}"
        )

    def _verdict(self) -> str:
        name, value = self.baseline
        beside = f"the best trivial baseline, {name} ({value:.3f})"
        if math.isnan(self.tau):
            return "The inherited scores are all equal and so rank nothing."
        if self.inherited.low > value:
            return f"The interval lies above {beside}: the supernet ranks better."
        if self.inherited.high < value:
            return f"The interval lies below {beside}: the supernet ranks worse."
        return (
            f"The interval contains {beside}: these networks do not show that the "
            "supernet ranks better."
        )

    def to_json(self) -> dict[str, Any]:
        """Return every number and the words, as strict JSON values (NaN is null).

        {"tau", "low", "high", "n", "drawn", "ceiling", "words"} and {"tau", "low",
        "high"} for each of "params", "macs", "depth" and "top_half".
        """

        def numbers(tau: Tau) -> dict[str, float | None]:
            named = {"tau": tau.value, "low": tau.low, "high": tau.high}
            return {k: None if math.isnan(v) else v for k, v in named.items()}

        return {
            **numbers(self.inherited),
            "n": self.n,
            "drawn": self.drawn,
            "ceiling": self.ceiling,
            "words": self.words(),
            "params": numbers(self.params),
            "macs": numbers(self.macs),
            "depth": numbers(self.depth),
            "top_half": numbers(self.top_half),
        }


def ranking(
    inherited: ArrayLike,
    truth: ArrayLike,
    *,
    params: ArrayLike,
    macs: ArrayLike,
    depth: ArrayLike,
    drawn: str,
    ceiling: float | None = None,
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
      ceiling: Tau of the truth with itself over other seeds, if known.
      seed: Fixes the bootstrap.

    Returns:
      The taus with 95 % intervals, all of the same resamples.

    Raises:
      ValueError: If the lengths differ, a value is not finite, or n is below 4.

    Example:
      >>> up = np.arange(20.0)
      >>> found = ranking(up, up, params=-up, macs=up % 2, depth=up // 7, drawn="all")
      >>> found.tau, found.baseline[0]
      (1.0, 'parameters, reversed')
    """
    score, true = np.asarray(inherited, float), np.asarray(truth, float)
    if true.size < 4:
        raise ValueError(
            f"A ranking of {true.size} networks means nothing; measure at least 4, and "
            "better 30 or more."
        )
    top = true >= np.median(true)
    trivial = {"params": params, "macs": macs, "depth": depth}
    dense_ranks([score, true, *trivial.values()])  # for its checks, before long work
    return Ranking(
        inherited=_tau(score, true, seed),
        top_half=_tau(score[top], true[top], seed),
        n=len(true),
        drawn=drawn,
        ceiling=ceiling,
        **{name: _tau(np.asarray(v, float), true, seed) for name, v in trivial.items()},
    )


def _tau(x: np.ndarray, y: np.ndarray, seed: int) -> Tau:
    value = kendall_tau(x, y)
    if math.isnan(value):
        return Tau(math.nan, math.nan, math.nan)
    if len(x) > _MATRIX_ROWS:
        return Tau(value, *bootstrap_interval(kendall_tau, [x, y], seed=seed))
    # A resample is a vector of counts w, and its numbers of pairs are forms w' S w over
    # the signs of all pairs: one matrix product does for all resamples.
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(x), size=len(x)) for _ in range(_RESAMPLES))
    counts = np.array([np.bincount(d, minlength=len(x)) for d in draws], np.float32)
    signs_x = np.sign(x[:, None] - x).astype(np.float32)
    signs_y = np.sign(y[:, None] - y).astype(np.float32)

    def form(signs: np.ndarray) -> np.ndarray:
        return ((counts @ signs).astype(float) * counts).sum(axis=1)

    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(form(np.abs(signs_x)) * form(np.abs(signs_y)))
        return Tau(value, *percentiles(form(signs_x * signs_y) / scale, 0.95))
