"""Rank statistics against scipy, intervals against their definition, the words."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from oneshot.diagnostics import (
    bootstrap_interval,
    kendall_tau,
    ranking,
    spearman,
    wilson_interval,
)

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(-3, 3)), min_size=2)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PAIRS)
def test_ties_are_treated_as_in_scipy(pairs):
    x, y = np.array(pairs, float).T
    if min(len(set(x)), len(set(y))) < 2:
        assert math.isnan(kendall_tau(x, y)) and math.isnan(spearman(x, y))
        return
    tau, rho = scipy.stats.kendalltau(x, y), scipy.stats.spearmanr(x, y)
    assert kendall_tau(x, y) == pytest.approx(tau.statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(rho.statistic, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 64, 1000, 20_000])
def test_long_rankings_agree_with_scipy(n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=n)
    y = x + rng.normal(size=n)
    for left in (x, np.round(x)):
        expected = scipy.stats.kendalltau(left, y).statistic
        np.testing.assert_allclose(kendall_tau(left, y), expected, atol=1e-12)


def test_perfect_rankings_are_exactly_one():
    x = np.random.default_rng(0).normal(size=97)
    assert kendall_tau(x, np.exp(x)) == 1 and kendall_tau(x, -x) == -1
    assert spearman(x, np.exp(x)) == pytest.approx(1)


def test_bad_arrays_are_explained():
    with pytest.raises(ValueError, match="Leave out the networks that failed"):
        kendall_tau([1, np.nan], [1, 2])
    with pytest.raises(ValueError, match="arrays \\[n\\] of one length"):
        spearman([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="the lengths are \\[2, 3\\]"):
        bootstrap_interval(kendall_tau, [[1, 2], [1, 2, 3]])


def test_bootstrap_of_a_mean_is_the_textbook_one():
    x = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(np.mean, [x])
    half = 1.96 * x.std() / np.sqrt(400)
    assert low == pytest.approx(x.mean() - half, abs=0.01)
    assert high == pytest.approx(x.mean() + half, abs=0.01)
    assert bootstrap_interval(np.mean, [x]) == (low, high)
    narrow = bootstrap_interval(np.mean, [x], level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_wilson_interval():
    expected = scipy.stats.binomtest(87, 100).proportion_ci(method="wilson")
    assert wilson_interval(87, 100) == pytest.approx((expected.low, expected.high))
    expected = scipy.stats.binomtest(3, 9).proportion_ci(0.9, method="wilson")
    assert wilson_interval(3, 9, 0.9) == pytest.approx((expected.low, expected.high))
    assert wilson_interval(0, 5)[0] == 0 and wilson_interval(5, 5)[1] == 1
    assert wilson_interval(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="Pass counts"):
        wilson_interval(7, 5)


def make(noise, n=40, **options):
    rng = np.random.default_rng(1)
    truth = rng.normal(size=n)
    free = {
        "params": truth + 3 * rng.normal(size=n),
        "macs": truth + 0.6 * rng.normal(size=n),
        "depth": np.ones(n),
    }
    inherited = truth + noise * rng.normal(size=n)
    return ranking(inherited, truth, **{**free, "drawn": "at random", **options})


def test_intervals_are_those_of_resampled_taus():
    """The matrix form of the bootstrap draws the same resamples as the plain one."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, (2, 30)).astype(float)
    found = ranking(x, y, params=x, macs=y, depth=x, drawn="at random", seed=7)
    expected = bootstrap_interval(kendall_tau, [x, y], seed=7)
    assert found.interval == pytest.approx(expected, abs=1e-12)
    assert found.tau == kendall_tau(x, y)
    top = y >= np.median(y)
    assert found.top_half.value == kendall_tau(x[top], y[top])


def test_words_follow_the_interval():
    better, same, worse = make(0.02), make(0.6), make(20.0)
    assert better.baseline == ("multiply-adds", better.macs.value)
    assert "lies above the best trivial baseline, multiply-adds" in better.words()
    assert "contains the best trivial baseline, multiply-adds" in same.words()
    assert "lies below the best trivial baseline, multiply-adds" in worse.words()
    for found in (better, same, worse):
        assert "40 networks (at random)" in found.words()
        assert "depth undefined (all equal)" in found.words()
        assert "seed against seed, is not known" in found.words()
    assert "seed against seed, is 0.895" in make(0.1, ceiling=0.895).words()


def test_a_reversed_baseline_counts():
    up = np.arange(20.0)
    found = ranking(up % 3, up, params=-up, macs=up % 2, depth=up % 5, drawn="all")
    assert found.baseline == ("parameters, reversed", 1.0)
    assert "lies below the best trivial baseline, parameters, reversed" in found.words()


def test_constant_scores_rank_nothing():
    found = make(0.1, depth=np.zeros(40))
    flat = ranking(
        np.zeros(20), np.arange(20), params=np.ones(20), macs=np.ones(20),
        depth=np.ones(20), drawn="all",
    )  # fmt: skip
    assert "rank nothing" in flat.words() and flat.baseline[1] == 0
    assert found.to_json()["depth"] == {"tau": None, "low": None, "high": None}
    assert json.loads(json.dumps(flat.to_json(), allow_nan=False))["n"] == 20


def test_too_few_networks_are_refused():
    with pytest.raises(ValueError, match="A ranking of 3 networks means nothing"):
        make(0.1, n=3)


def test_trivial_rankings_of_nas_bench_macro(data_dir):
    """Over its 3,969 distinct networks, as measured apart with another tool."""
    file = data_dir / "nas_bench_macro.npz"
    if not file.exists():
        pytest.skip(f"{data_dir} holds no nas_bench_macro.npz")
    with np.load(file) as data:
        archs, accuracy = data["arch"], data["test_acc"].astype(float).mean(axis=1)
        params, macs = data["params"], data["flops"]
    # Within a stage, identities of the layers after the first commute.
    kept = np.ones(len(archs), bool)
    for first, second in [(3, 4), (6, 7)]:
        kept &= ~((archs[:, first] == 0) & (archs[:, second] != 0))
    assert kept.sum() == 3969
    depth = (archs > 0).sum(axis=1)
    taus = [kendall_tau(v[kept], accuracy[kept]) for v in (params, macs, depth)]
    assert [round(tau, 3) for tau in taus] == [0.215, 0.546, 0.679]
