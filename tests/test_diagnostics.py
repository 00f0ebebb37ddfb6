"""Rank statistics against scipy, intervals against their definition, the words."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from oneshot import rank_statistics as statistics
from oneshot.diagnostics import (
    bootstrap_interval,
    kendall_tau,
    ranking,
    seed_ceiling,
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
        "drawn": "at random",
        "ceiling": None,
    }
    inherited = truth + noise * rng.normal(size=n)
    return ranking(inherited, truth, **{**free, **options})


def test_intervals_are_those_of_resampled_taus():
    """The matrix form of the bootstrap draws the same resamples as the plain one."""
    rng = np.random.default_rng(0)
    x, y, z = rng.integers(0, 8, (3, 30)).astype(float)
    free = {"params": x, "macs": z, "depth": x}
    found = ranking(x, y, **free, drawn="at random", ceiling=None, seed=7)
    expected = bootstrap_interval(kendall_tau, [x, y], seed=7)
    assert found.interval == pytest.approx(expected, abs=1e-9)
    assert found.tau == pytest.approx(kendall_tau(x, y))
    for part, quantile in ((found.top_half, 0.5), (found.top_tenth, 0.9)):
        top = y >= np.quantile(y, quantile)
        assert part.n == top.sum()
        for name, scores in (("inherited", x), ("macs", z)):
            expected = kendall_tau(scores[top], y[top])
            assert getattr(part, name).value == pytest.approx(expected, nan_ok=True)

    def given(a, b, c):
        xy, xz, yz = kendall_tau(a, b), kendall_tau(a, c), kendall_tau(b, c)
        return (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))

    assert found.partial.value == pytest.approx(given(x, y, z))
    counts = statistics.resample_counts(30, seed=7)
    taus = [statistics.tau(counts, *p) for p in ((x, y), (x, z), (y, z))]
    assert found.partial == statistics.estimate(statistics.partial(*taus))


def test_words_follow_the_lead():
    better, same, worse = make(0.02), make(0.6), make(20.0)
    assert better.overall.baseline == ("multiply-adds", better.overall.macs.value)
    best = "the best trivial baseline, multiply-adds"
    assert f"On all networks the supernet ranks better than {best}" in better.words()
    assert f"On the better half the supernet ranks better than {best}" in better.words()
    assert f"On all networks its lead over {best}" in same.words()
    assert f"On all networks the supernet ranks worse than {best}" in worse.words()
    beats = [found.overall.beats_baseline for found in (better, same, worse)]
    assert beats == [True, None, False]
    for found in (better, same, worse):
        assert "40 networks (at random)" in found.words()
        assert "depth undefined (all equal)" in found.words()
        assert "seed against seed, is not known" in found.words()
        assert list(found.precision) == list(found.regret) == [10]


def test_the_lead_is_of_the_same_resamples():
    found = make(0.6).overall
    assert found.lead.value == pytest.approx(found.inherited.value - found.macs.value)
    up = np.arange(30.0) % 11
    equal = ranking(
        up, np.arange(30), params=up, macs=up, depth=up, drawn="all", ceiling=None
    ).overall
    assert (equal.lead.low, equal.lead.high) == (0, 0) and not equal.beats_baseline


def test_a_ceiling_is_a_number_or_computed_or_not_known():
    named = make(0.1, ceiling=0.895)
    assert "seed against seed, is 0.895." in named.words()
    share = named.tau / 0.895
    assert named.overall.ceiling_share == pytest.approx(share)
    assert f"It reaches {share:.0%} of the ceiling." in named.words()
    assert named.top_half.ceiling is None and make(0.1).overall.ceiling is None
    truth = np.random.default_rng(1).normal(size=40)
    seeds = truth + 0.3 * np.random.default_rng(2).normal(size=(3, 40))
    found = make(0.1, ceiling=seeds)
    top = truth >= np.median(truth)
    for part, kept in ((found.overall, truth > -9), (found.top_half, top)):
        one = [
            scipy.stats.kendalltau(a[kept], (b + c)[kept]).statistic
            for a, b, c in (seeds, seeds[[1, 0, 2]], seeds[[2, 0, 1]])
        ]
        assert part.ceiling == pytest.approx(np.mean(one))
    assert "on the better half" in found.words().partition("It reaches")[2]
    with pytest.raises(TypeError, match="ceiling"):
        ranking([1], [1], params=[1], macs=[1], depth=[1], drawn="")  # type: ignore


@pytest.mark.parametrize(
    "ceiling",
    [1.5, math.nan, np.ones((1, 40)), np.ones((2, 3)), np.full((2, 40), np.inf)],
)
def test_a_bad_ceiling_is_explained(ceiling):
    with pytest.raises(ValueError, match="Pass None if it is not known"):
        make(0.1, ceiling=ceiling)


def test_a_reversed_baseline_counts():
    up = np.arange(20.0)
    free = {"params": -up, "macs": up % 2, "depth": up % 5}
    found = ranking(up % 3, up, **free, drawn="all", ceiling=None)
    assert found.overall.baseline == ("parameters, reversed", 1.0)
    words = "ranks worse than the best trivial baseline, parameters, reversed"
    assert words in found.words()


def test_what_a_supernet_was_told_is_said():
    found = make(0.1)
    told = found.guided_by("paths drawn by their cost")
    assert "was guided (paths drawn by their cost)" in told.words()
    assert told.to_json()["guided"] == "paths drawn by their cost"
    assert "guided" not in found.words() and found.to_json()["guided"] is None


def test_the_better_networks_have_a_rho_of_their_own():
    found, everything = make(0.5), make(0.5).overall.spearman
    assert found.spearman == everything and found.to_json()["spearman"]
    for part in (found.top_half, found.top_tenth):
        assert part.spearman != everything
        assert part.to_json()["spearman"] == part.spearman.to_json()


def test_constant_scores_rank_nothing():
    found = make(0.1, depth=np.zeros(40))
    one = np.ones(20)
    free = {"params": one, "macs": one, "depth": one, "strata": one[:, None]}
    flat = ranking(np.zeros(20), np.arange(20), **free, drawn="all", ceiling=0.5)
    assert "rank nothing" in flat.words() and flat.overall.baseline[1] == 0
    assert found.to_json()["depth"] == {"tau": None, "low": None, "high": None}
    same = ranking(np.arange(20), one, **free, drawn="all", ceiling=np.ones((2, 20)))
    assert same.overall.ceiling is None and same.pairs_within == 0
    assert "no pair has equal covariates and unequal truths" in same.words()
    for one in (flat, same):
        assert json.loads(json.dumps(one.to_json(), allow_nan=False))["n"] == 20


def test_json_has_every_number():
    strata = np.arange(40)[:, None] % 3
    found = make(0.3, strata=strata, ceiling=0.9, ks=(1, 5, 39, 40, 50)).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found["precision"]) == list(found["regret"]) == ["1", "5", "39"]
    assert set(found["precision"]["5"]) == {"value", "low", "high"}
    for part in (found, found["top_half"], found["top_tenth"]):
        assert {"tau", "low", "high", "n", "params", "macs", "depth"} <= set(part)
        assert {"lead", "beats_baseline", "ceiling", "ceiling_share"} <= set(part)
    assert found["tau_within"]["pairs"] == 247  # of strata of 14, 13 and 13
    assert make(0.3).to_json()["tau_within"] is None
    assert set(found["partial_given_macs"]) == {"tau", "low", "high"}


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match="A ranking of 3 networks means nothing"):
        make(0.1, n=3)
    with pytest.raises(ValueError, match="one row a network, one column a covariate"):
        make(0.1, strata=np.zeros(40))
    with pytest.raises(ValueError, match="k at least 1"):
        make(0.1, ks=(0, 5))
    with pytest.raises(ValueError, match="Leave out the networks that failed"):
        make(0.1, depth=np.full(40, np.nan))


@pytest.mark.parametrize("n", [4, 5, 11])
def test_few_networks_are_measured(n):
    found = make(0.1, n=n, ceiling=np.random.default_rng(0).normal(size=(2, n)))
    assert json.dumps(found.to_json(), allow_nan=False)
    assert found.top_half.n == n - n // 2


def test_nas_bench_macro_is_ranked_as_measured_apart(data_dir):
    """Over its 3,969 distinct networks, as measured with another tool."""
    file = data_dir / "nas_bench_macro.npz"
    if not file.exists():
        pytest.skip(f"{data_dir} holds no nas_bench_macro.npz")
    with np.load(file) as data:
        archs, accuracy = data["arch"], data["test_acc"].astype(float)
        params, macs = data["params"], data["flops"]
    # Within a stage, identities of the layers after the first commute.
    kept = np.ones(len(archs), bool)
    for first, second in [(3, 4), (6, 7)]:
        kept &= ~((archs[:, first] == 0) & (archs[:, second] != 0))
    assert kept.sum() == 3969
    depth, seeds = (archs > 0).sum(axis=1)[kept], accuracy[kept].T
    truth = seeds.mean(axis=0)
    free = {"params": params[kept], "macs": macs[kept], "depth": depth}
    top = truth >= np.median(truth)
    for where, expected, ceiling in (
        (truth > 0, [0.215, 0.546, 0.679], 0.895),
        (top, [0.113, 0.365, 0.435], 0.724),
    ):
        taus = [kendall_tau(v[where], truth[where]) for v in free.values()]
        assert [round(tau, 3) for tau in taus] == expected
        assert round(seed_ceiling(seeds[:, where]), 3) == ceiling
    some = np.random.default_rng(0).permutation(3969)[:800]
    found = ranking(
        seeds[0][some],
        truth[some],
        **{name: v[some] for name, v in free.items()},
        drawn="at random",
        ceiling=seeds[:, some],
    )
    assert found.overall.baseline[0] == "depth" and found.overall.beats_baseline
    assert found.overall.ceiling == pytest.approx(0.895, abs=0.01)
