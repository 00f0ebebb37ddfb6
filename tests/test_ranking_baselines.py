"""What rankings are read against, and how recipes are compared."""

import dataclasses

import numpy as np
import pytest

from benchmarks import ranking_baselines, ranking_table
from benchmarks.network_truth import NetworkTruth, first_of_a_permutation
from benchmarks.ranking_best import best_of
from benchmarks.ranking_table import Found
from oneshot import Choice, SearchSpace
from oneshot.correlations import kendall_tau


def known_truth(archs, scores):
    """What is known of networks whose costs say nothing of them."""
    ones = np.arange(len(archs)) % 7
    return NetworkTruth(
        "a truth",
        archs,
        np.stack([scores, scores]),
        *(ones, ones, ones),
        "depth",
        choosing=first_of_a_permutation(len(archs), len(archs) // 3),
    )


@pytest.fixture
def counted():
    """Networks that are better the fewer of their choices are b, and their space."""
    space = SearchSpace([Choice(n, ("a", "b", "c")) for n in "wxyz"])
    space = SearchSpace([*space.choices, Choice("size", (1, 2))])
    archs = np.array(list(space.enumerate("archs")))
    rng = np.random.default_rng(0)
    scores = -(archs[:, :4] == 1).sum(1) + rng.normal(scale=0.1, size=len(archs))
    return known_truth(archs, scores), space


def test_the_count_that_ranks_best_is_named(counted):
    truth, space = counted
    words, counts = ranking_baselines.told_count(truth, space)
    assert words == "how few choices are b"
    np.testing.assert_array_equal(counts, -(truth.archs[:, :4] == 1).sum(1))
    found = ranking_baselines.free(truth, space)
    assert found["free_count_tau"] == kendall_tau(counts, truth.truth)
    assert found["free_count_tau"] > 0.8 and abs(found["free_params_tau"]) < 0.2


def test_a_line_is_fitted_to_some_networks_and_ranks_the_others(counted):
    truth, space = counted
    effects = np.random.default_rng(1).normal(size=(5, 3))
    sums = sum(effects[i][truth.archs[:, i]] for i in range(5))
    added = dataclasses.replace(truth, seeds=np.stack([sums, sums]))
    found = ranking_baselines.free(added, space)
    assert found["linear_50"] > 0.95 and found["linear_54"] > 0.95
    noise = np.random.default_rng(1).normal(size=len(truth.archs))
    blind = dataclasses.replace(truth, seeds=np.stack([noise, noise]))
    found = ranking_baselines.free(blind, space)
    assert abs(found["linear_50"]) < 0.2 and abs(found["linear_54"]) < 0.2
    fewer = dataclasses.replace(truth, choosing=np.arange(30))
    assert not [k for k in ranking_baselines.free(fewer, space) if "linear" in k]
    few = truth.only(np.arange(40))  # all are to choose by: there are no others
    assert not [k for k in ranking_baselines.free(few, space) if "linear" in k]


def test_recipes_are_compared_over_the_same_networks(counted):
    truth, _ = counted
    noise = np.random.default_rng(2).normal(size=(2, len(truth.archs)))
    scores = {"uniform": truth.truth + noise[0], "fair": truth.truth + noise[0] / 2}
    found = [
        Found(name, (), {"loss": [one]}, (), truth) for name, one in scores.items()
    ]
    more = ranking_table.over_uniform(found, truth)
    taus = {name: kendall_tau(one, truth.truth) for name, one in scores.items()}
    np.testing.assert_allclose(more["fair_more"], taus["fair"] - taus["uniform"])
    assert 0 < more["fair_more_low"] < more["fair_more"] < more["fair_more_high"]
    # Each is known less well than their difference, since they share their networks.
    apart = truth.rank(scores["fair"], np.arange(len(truth.archs)), "all").interval
    assert more["fair_more_high"] - more["fair_more_low"] < apart[1] - apart[0]
    assert not ranking_table.over_uniform(found[1:], truth)
    both = Found("fair", (), {"loss": [scores["fair"], scores["uniform"]]}, (), truth)
    half = ranking_table.over_uniform([found[0], both], truth)
    np.testing.assert_allclose(half["fair_more"], more["fair_more"] / 2)


def test_results_of_several_seeds_are_means(counted):
    truth, _ = counted
    noise = np.random.default_rng(2).normal(size=(2, len(truth.archs)))
    scores = [truth.truth + noise[0] / 4, truth.truth + noise[1]]
    kept = ({"cpu": 60.0}, {"cpu": 60.0})
    found = Found("uniform", kept, {"loss": scores}, (), truth)
    best = best_of([found], truth, "_50k", minutes=1)
    everything = np.arange(len(truth.archs))
    each = [truth.rank(one, everything, "all") for one in scores]
    taus = [one.tau for one in each]
    assert best["best_tau_50k"] == pytest.approx(np.mean(taus))
    low, high = np.mean([one.interval for one in each], axis=0)
    assert best["best_tau_low_50k"] == pytest.approx(low)
    assert best["best_tau_high_50k"] == pytest.approx(high)
    ends = best["best_tau_least_50k"], best["best_tau_most_50k"]
    assert ends == pytest.approx((min(taus), max(taus))) and ends[0] < ends[1]
    assert best["n_50k"] == len(truth.archs) and best["best_seeds_50k"] == 2
    assert best["best_together_tau_50k"] > min(taus) and best["best_supernets_50k"] == 1
    more = best_of([found], truth, "_50k", minutes=2)
    better = more["best_together_choosing_tau_50k"] > best["best_choosing_tau_50k"]
    assert better and more["best_supernets_50k"] == 2
    for key in ("tau", "tau_low", "reporting_tau", "top_half_tau"):
        assert more[f"best_{key}_50k"] == more[f"best_together_{key}_50k"]
        assert more[f"best_alone_{key}_50k"] == best[f"best_{key}_50k"]
    assert more["top_half_tau_50k"] == more["best_top_half_tau_50k"]
    assert ranking_table.means([{"a": None, "b": 1.0}, {"a": 2.0, "b": 2.0}]) == {
        "a": None,
        "b": 1.5,
    }
