"""Statistics of weighted networks against scipy and brute force over the resamples."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from oneshot import rank_statistics as statistics
from oneshot.correlations import bootstrap_interval, kendall_tau, spearman

NAN = math.nan


def drawn(n, levels, seed=0, resamples=12):
    """Two columns with ties, counts of the resamples, and their rows spelled out."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, levels, (2, n)).astype(float)
    counts = statistics.resample_counts(n, seed, resamples)
    rows = [np.repeat(np.arange(n), row.astype(int)) for row in counts]
    return x, y, counts, rows


CASES = pytest.mark.parametrize("n, levels", [(4, 2), (9, 3), (30, 5), (1300, 400)])


@CASES
def test_weighted_correlations_are_those_of_repeated_rows(n, levels):
    x, y, counts, rows = drawn(n, levels)
    for ours, scipys in (
        (statistics.tau, scipy.stats.kendalltau),
        (statistics.rho, scipy.stats.spearmanr),
    ):
        found = ours(counts, x, y)
        for value, some in zip(found, rows, strict=True):
            if len(set(x[some])) > 1 and len(set(y[some])) > 1:
                expected = scipys(x[some], y[some]).statistic
                assert value == pytest.approx(expected, abs=1e-9)
            else:
                assert math.isnan(value)
    for ours, plain in ((statistics.tau, kendall_tau), (statistics.rho, spearman)):
        found = ours(counts[:1], x, y)[0]
        assert found == pytest.approx(plain(x, y), nan_ok=True)


def test_resamples_are_those_of_the_plain_bootstrap():
    x, y, _, _ = drawn(25, 6)
    counts = statistics.resample_counts(25, seed=3)
    found = statistics.estimate(statistics.tau(counts, x, y))
    plain = bootstrap_interval(kendall_tau, [x, y], seed=3)
    assert (found.low, found.high) == pytest.approx(plain, abs=1e-9)


def brute_within(x, y, strata):
    signs = [
        (np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]), y[i] != y[j])
        for i, j in itertools.combinations(range(len(x)), 2)
        if (strata[i] == strata[j]).all()
    ]
    comparable = sum(c for _, c in signs)
    return sum(s for s, _ in signs) / comparable if comparable else NAN, comparable


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_tau_within_strata_is_that_of_its_pairs(columns):
    x, y, counts, rows = drawn(26, 6)
    strata = np.random.default_rng(1).integers(0, 3, (26, columns))
    found = statistics.tau_within(counts, x, y, strata)
    for value, some in zip(found, rows, strict=True):
        expected, _ = brute_within(x[some], y[some], strata[some])
        np.testing.assert_allclose(value, expected, atol=1e-12)
    pairs = statistics.comparable_pairs(y, strata)
    assert pairs == brute_within(x, y, strata)[1]


def test_one_stratum_without_ties_is_the_plain_tau():
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    ones = np.ones((1, 40))
    found = statistics.tau_within(ones, x, y, np.zeros((40, 2)))
    assert found[0] == pytest.approx(kendall_tau(x, y))


def test_scores_that_follow_from_the_covariates_have_none_within():
    _, y, _, _ = drawn(30, 9)
    strata = np.arange(30)[:, None] // 5
    ones = np.ones((1, 30))
    assert statistics.tau_within(ones, 2.0 * strata[:, 0], y, strata)[0] == 0
    alone = statistics.tau_within(ones, y, y, np.arange(30)[:, None])
    assert math.isnan(alone[0])
    assert statistics.comparable_pairs(y, np.arange(30)[:, None]) == 0


def every_choice(x, k):
    """All sets of k that are best by x, one for each way to break ties."""
    edge = np.sort(x)[-k]
    sure, tied = np.flatnonzero(x > edge), np.flatnonzero(x == edge)
    for rest in itertools.combinations(tied, k - len(sure)):
        yield {*sure.tolist(), *map(int, rest)}


@pytest.mark.parametrize("k", [1, 3, 5, 8])
@pytest.mark.parametrize("levels", [1, 3, 100])
def test_precision_and_regret_average_over_ways_to_break_ties(levels, k):
    x, y, counts, rows = drawn(9, levels, seed=levels)
    precision = statistics.precision_at(counts, x, y, k)
    regret = statistics.regret_at(counts, x, y, k)
    for i, some in enumerate(rows):
        left, right = x[some], y[some]
        mine, truths = list(every_choice(left, k)), list(every_choice(right, k))
        shares = [len(a & b) / k for a in mine for b in truths]
        assert precision[i] == pytest.approx(np.mean(shares))
        lost = [right.max() - max(right[j] for j in a) for a in mine]
        assert regret[i] == pytest.approx(np.mean(lost), abs=1e-9)


def test_a_constant_score_chooses_by_chance():
    truth, ones = np.arange(20.0), np.ones((1, 20))
    assert statistics.precision_at(ones, np.zeros(20), truth, 5)[0] == 0.25
    # The expected best of 5 of 0, ..., 19 is 5 * 21 / 6 - 1.
    found = statistics.regret_at(ones, np.zeros(20), truth, 5)[0]
    assert found == pytest.approx(19 - (5 * 21 / 6 - 1))
    assert math.isnan(statistics.tau(ones, np.zeros(20), truth)[0])
    assert math.isnan(statistics.rho(ones, np.zeros(20), truth)[0])


def test_partial_tau_is_the_phi_of_pairs_given_the_third():
    """Kendall's definition: concordances with z as a fourfold table of all pairs."""
    x, y, z = np.random.default_rng(2).normal(size=(3, 15))
    pairs = np.array(list(itertools.combinations(range(15), 2))).T
    agree = [(v[pairs[0]] > v[pairs[1]]) == (z[pairs[0]] > z[pairs[1]]) for v in (x, y)]
    expected = np.corrcoef(*agree)[0, 1]
    margins = np.mean(agree, axis=1)
    taus = [np.array([kendall_tau(*p)]) for p in ((x, y), (x, z), (y, z))]
    assert margins == pytest.approx([(1 + taus[1][0]) / 2, (1 + taus[2][0]) / 2])
    assert statistics.partial(*taus)[0] == pytest.approx(expected)


@pytest.mark.parametrize("taus", [(0.5, 1.0, 0.5), (0.5, 0.5, -1.0), (0.5, NAN, NAN)])
def test_partial_tau_is_undefined_where_nothing_is_left(taus):
    assert math.isnan(statistics.partial(*(np.array([t]) for t in taus))[0])


@pytest.mark.parametrize("n", range(50, 60))
def test_partial_tau_given_the_score_itself_is_undefined(n):
    x, y, counts, _ = drawn(n, 20)
    taus = [statistics.tau(counts, *pair) for pair in ((x, y), (x, x), (y, x))]
    assert np.isnan(statistics.partial(*taus)).all()


def test_estimates_pass_over_undefined_resamples():
    found = statistics.estimate(np.array([0.5, NAN, 0.2, 0.2]))
    assert (found.value, found.low, found.high) == (0.5, 0.2, 0.2)
    assert str(found) == "0.500 [0.200, 0.200]"
    none = statistics.estimate(np.array([NAN, 0.1]))
    assert str(none) == "undefined (all equal)"
    assert none.to_json("tau") == {"tau": None, "low": None, "high": None}
