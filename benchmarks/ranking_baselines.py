"""What ranks networks without a supernet: costs, counts of options, other trainings.

A supernet is worth having where it ranks better than what is free, and than what some
of the networks say that were trained alone. So three kinds of rows stand below recipes:

- parameters, multiply-adds and depth;
- how often a network has one option: of all options the one whose count ranks best the
  networks to choose by, so that it has been told of their truth as recipes have;
- a ridge regression on options, fitted to the truth of networks trained alone: of 50,
  which is 50 trainings and more dear than a supernet, and of all to choose by.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV

from benchmarks.network_truth import NetworkTruth
from oneshot.correlations import kendall_tau
from oneshot.space import SearchSpace

FEW, DRAWS = 50, 20
STRENGTHS = np.logspace(-2, 3, 11)


def free(truth: NetworkTruth, space: SearchSpace) -> dict[str, Any]:
    """Return flat results of what ranks the networks without a supernet.

    Args:
      truth: What is known of the networks.
      space: Whose archs they are, for the options' names.
    """
    found = truth.rank(truth.macs, np.arange(len(truth.archs)), "all")
    out = {"truth": truth.words, "free_ceiling": found.overall.ceiling}
    for field, words in free_words(truth).items():
        out[f"free_{field}"] = words
        out[f"free_{field}_tau"] = known(getattr(found.overall, field).value)
        out[f"free_{field}_top_half"] = known(getattr(found.top_half, field).value)
    words, counts = told_count(truth, space)
    out |= {"free_count": words, "free_count_tau": kendall_tau(counts, truth.truth)}
    for number in (FEW, len(truth.choosing)):
        if FEW <= number <= len(truth.choosing) and number < len(truth.archs):
            out[f"linear_{number}"] = linear(truth, space, number)
    return out


def free_words(truth: NetworkTruth) -> dict[str, str]:
    """Return what ranks for free, in words."""
    depth = truth.depth_words
    return {"params": "parameters", "macs": "multiply-adds", "depth": depth}


def told_count(truth: NetworkTruth, space: SearchSpace) -> tuple[str, np.ndarray]:
    """Return the option whose count ranks best the networks to choose by, and its
    counts [n], negated where fewer are better. Choices of equal options count together.
    """
    few, true, found = truth.choosing, truth.truth, []
    for options in dict.fromkeys(c.options for c in space.choices):
        places = [i for i, c in enumerate(space.choices) if c.options == options]
        for index, option in enumerate(options):
            counts = (truth.archs[:, places] == index).sum(axis=1).astype(float)
            tau = kendall_tau(counts[few], true[few])
            if math.isnan(tau):  # of all networks equal
                continue
            how, sign = ("many", 1) if tau > 0 else ("few", -1)
            name = option if isinstance(option, str) else _among(option, options)
            found.append((abs(tau), f"how {how} choices are {name}", sign * counts))
    return max(found, key=lambda one: one[0])[1:]


def linear(truth: NetworkTruth, space: SearchSpace, number: int) -> float:
    """Return the mean tau, over the other networks, of ridge regressions on options.

    Args:
      truth: What is known of the networks.
      space: Whose archs they are.
      number: How many of the networks to choose by it is fitted to; where that is not
        all of them, 20 draws are taken.
    """
    sizes = [len(c.options) for c in space.choices]
    x = np.concatenate([np.eye(n)[truth.archs[:, i]] for i, n in enumerate(sizes)], 1)
    rng, few, taus = np.random.default_rng(0), truth.choosing, []
    for _ in range(DRAWS if number < len(few) else 1):
        fitted = rng.permutation(few)[:number]
        others = np.setdiff1d(np.arange(len(x)), fitted)
        model = RidgeCV(STRENGTHS).fit(x[fitted], truth.truth[fitted])
        taus.append(kendall_tau(model.predict(x[others]), truth.truth[others]))
    return float(np.mean(taus))


def _among(option: Any, options: tuple[Any, ...]) -> str:
    return f"{json.dumps(option)} of {', '.join(map(json.dumps, options))}"


def known(value: Any) -> Any:
    """Return None for a number that is not defined, which JSON cannot hold."""
    return None if isinstance(value, float) and math.isnan(value) else value
