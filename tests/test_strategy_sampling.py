"""Drawn frequencies are the stated ones, and importance weights leave no bias."""

import collections
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from strategy_cases import DEEP, LARGEST, PHASES, SMALLEST, SQUARE, cost, run

from oneshot.space import Choice, Commuting, SearchSpace
from oneshot.strategies import (
    Attentive,
    CostBinned,
    DataImportance,
    LossAware,
    PathImportance,
    PriorityBoard,
    PriorPairs,
    Progressive,
    Restricted,
    Sandwich,
    Uniform,
    even,
    last_layer_norms,
)
from oneshot.strategies.cost_targets import Target, draw_near
from oneshot.strategies.option_draws import draw_options

DRAWS = 3000
SURE = 1e-3  # seeds are fixed: a test that passes once passes always


def drawn(strategy, role=None, steps=DRAWS, first=0):
    """Return the archs that a state at rest draws, those of one role."""
    state = strategy.init()
    plans = [strategy.plan(state, 5, first + step) for step in range(steps)]
    return [p.arch for plan in plans for p in plan if role in (None, p.role)]


def frequencies_are(archs, probabilities):
    """Check the marginals of each choice against probabilities, [options] each."""
    for column, expected in zip(np.array(archs).T, probabilities, strict=True):
        found = np.bincount(column, minlength=len(expected))
        expected = np.asarray(expected, float)
        assert (found[expected == 0] == 0).all()
        kept = expected > 0
        if kept.sum() > 1:
            assert chisquare(found[kept], expected[kept] * len(archs)).pvalue > SURE


def uniform(space, allowed=None):
    sizes = [len(c.options) for c in space.choices]
    allowed = allowed or [range(n) for n in sizes]
    return [
        np.isin(np.arange(n), list(own)) / len(own)
        for n, own in zip(sizes, allowed, strict=True)
    ]


def test_uniform_fillings_of_a_sandwich_and_drawn_paths_of_a_board():
    frequencies_are(drawn(Uniform(DEEP)), uniform(DEEP))
    strategy = Sandwich(DEEP, SMALLEST, LARGEST)
    archs = [p.arch for s in range(DRAWS) for p in strategy.plan(None, 5, s)[2:]]
    frequencies_are(archs, uniform(DEEP))
    frequencies_are(drawn(PriorityBoard(DEEP)), uniform(DEEP))


def sorts_of(space, over):
    """Return each distinct network with its probability under `over`."""
    kinds = {"canonical": space.canonical, "paths": space.path_key}
    if over == "archs":
        return {arch: 1 / space.size for arch in space.enumerate("archs")}
    found = {kinds[over](arch) for arch in space.enumerate("archs")}
    return {arch: 1 / len(found) for arch in found}


COMMUTING = SearchSpace(
    [Choice(name, ("id", "a", "b")) for name in "xyz"],
    symmetry=Commuting((("x", "y", "z"),)),
)


@pytest.mark.parametrize(
    "space, over",
    [(COMMUTING, "canonical"), (COMMUTING, "archs"), (DEEP, "paths"), (DEEP, "archs")],
)
def test_drawn_networks_are_uniform_over_what_is_asked_for(space, over):
    """Of whole networks rather than of each choice: `over` decides how they go
    together."""
    want = sorts_of(space, over)
    ends = next(iter(space.enumerate("archs"))), list(space.enumerate("archs"))[-1]
    sandwich = Sandwich(space, *ends, over=over)
    filled = [p.arch for s in range(DRAWS) for p in sandwich.plan(None, 5, s)[2:]]
    pairs = drawn(PriorPairs(space, sum, over=over))
    for archs in (drawn(Uniform(space, over)), filled, pairs):
        found = collections.Counter(archs)
        assert set(found) <= set(want)
        counts = np.array([found[arch] for arch in want])
        shares = np.array(list(want.values()))
        assert chisquare(counts, shares * len(archs)).pvalue > SURE


@pytest.mark.parametrize("step", [0, 4, 9])
def test_progressive_is_uniform_over_what_a_phase_allows(step):
    strategy = Progressive(DEEP, LARGEST, PHASES)
    archs = [
        p.arch for seed in range(DRAWS // 2) for p in strategy.plan(None, seed, step)
    ]
    frequencies_are(archs, uniform(DEEP, strategy.allowed(step)))


def test_restricted_is_uniform_over_the_rest():
    allowed = [range(3), (1,), range(2), range(2), (1,), range(3)]
    frequencies_are(
        drawn(Restricted(DEEP, {"op": "conv", "k0": 5})), uniform(DEEP, allowed)
    )


def test_options_are_drawn_with_the_probabilities_given():
    rows = [np.array([0.5, 0.0, 0.5]), np.array([0.1, 0.9]), np.array([0.0, 1.0])]
    rng = np.random.default_rng(0)
    frequencies_are([draw_options(rng, rows) for _ in range(DRAWS)], rows)


def test_loss_aware_draws_with_its_probabilities_and_keeps_its_floor():
    strategy = LossAware(DEEP, temperature=0.1, explore=0.3)
    _, state = run(strategy, 300)
    probabilities = strategy.probabilities(state)
    assert all(row.sum() == pytest.approx(1) for row in probabilities)
    assert all((row >= 0.3 / len(row)).all() for row in probabilities)
    # Losses of the cases grow with the index, so the first options are the best.
    assert all((np.diff(row) < 0).all() for row in probabilities)
    archs = [strategy.plan(state, 1, step)[0].arch for step in range(DRAWS)]
    frequencies_are(archs, probabilities)
    assert strategy.floor == 0.3 / DEEP.size
    few = LossAware(SQUARE, temperature=0.001, explore=0.5)  # one arch, and a floor
    _, state = run(few, 200)
    found = collections.Counter(
        few.plan(state, 1, step)[0].arch for step in range(DRAWS)
    )
    expected = [few.floor * DRAWS] * SQUARE.size
    expected[0] += 0.5 * DRAWS
    assert chisquare([found[a] for a in SQUARE.enumerate()], expected).pvalue > SURE


def test_path_importance_draws_with_its_probabilities():
    strategy = PathImportance(DEEP, steps=100, rate=1e-9)
    state = strategy.init()
    for arch in DEEP.enumerate("archs"):
        state = strategy.norms.update(state, arch, 0.2 + sum(arch))
    assert np.allclose(
        np.concatenate(strategy.probabilities(state, 0)), np.concatenate(uniform(DEEP))
    )
    whole = strategy.probabilities(state, 100)
    for row, half in zip(whole, strategy.probabilities(state, 50), strict=True):
        assert np.allclose(half, (row + 1 / len(row)) / 2)
    assert strategy.probabilities(state, 1000)[0].tolist() == whole[0].tolist()
    # Those norms grow with every index, and so do the probabilities.
    assert all((np.diff(row) > 0).all() for row in whole)
    archs = [strategy.plan(state, 2, 100 + step)[0].arch for step in range(DRAWS)]
    frequencies_are(archs, whole)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 999), st.integers(0, 40))
def test_importance_weights_leave_the_expected_gradient_as_it_is(seed, step):
    rng = np.random.default_rng(seed)
    strategy = PathImportance(DEEP, steps=30)
    state = strategy.init()
    for arch in DEEP.sample(rng, int(rng.integers(60))):
        state = strategy.norms.update(state, arch, float(rng.exponential()))
    probabilities = strategy.probabilities(state, step)
    gradients = {key: rng.normal(size=3) for key in DEEP.paths()}
    archs = list(DEEP.enumerate("archs"))
    chance = [
        math.prod(float(row[o]) for row, o in zip(probabilities, a, strict=True))
        for a in archs
    ]
    assert sum(chance) == pytest.approx(1)
    expected = sum(
        p * strategy.weight(a, probabilities) * gradients[DEEP.path_key(a)]
        for p, a in zip(chance, archs, strict=True)
    )
    plain = np.mean([gradients[DEEP.path_key(a)] for a in archs], axis=0)
    np.testing.assert_allclose(expected, plain, atol=1e-12)


def test_the_plan_of_path_importance_carries_that_weight():
    strategy = PathImportance(DEEP, steps=30)
    _, state = run(strategy, 25)
    [(arch, role, weight)] = strategy.plan(state, 0, 25)
    assert role == "labels"
    assert weight == strategy.weight(arch, strategy.probabilities(state, 25))


def test_a_weight_is_divided_out_of_the_norm_that_it_scaled():
    strategy = PathImportance(SearchSpace([Choice("a", (0, 1))]), steps=10, rate=1.0)
    norms = {0: 5.0, 1: 1.0}
    state = strategy.init()
    for step in range(60):
        plan = strategy.plan(state, 0, step)
        [(arch, _, weight)] = plan
        squared = (norms[arch[0]] * weight) ** 2
        metrics = type("Metrics", (), {"logged": [{}], "squared_norm": squared})
        state = strategy.observe(state, plan, metrics)
        logged = [{"gradient_norm": norms[arch[0]]}]
        metrics = type("Metrics", (), {"logged": logged, "squared_norm": None})
        assert strategy.observe(state, plan, metrics)["means"] == state["means"]
    assert state["means"] == [[pytest.approx(5.0), pytest.approx(1.0)]]


def test_example_weights_leave_the_mean_gradient_as_it_is():
    data = DataImportance(examples=50, steps=10)
    rng = np.random.default_rng(0)
    state = data.update(data.init(), np.arange(40), rng.exponential(size=40))
    gradients = rng.normal(size=(50, 3))
    for step in (0, 5, 10, 99):
        probabilities = data.probabilities(state, step)
        weights = 1 / (50 * probabilities)
        expected = (probabilities * weights) @ gradients
        np.testing.assert_allclose(expected, gradients.mean(0))
        indices, drawn_weights = data.sample(state, 0, step, 5000)
        np.testing.assert_allclose(drawn_weights, weights[indices], rtol=1e-6)
        found = np.bincount(indices, minlength=50)
        assert chisquare(found, probabilities * 5000).pvalue > SURE
    again = data.sample(state.tolist(), 0, 99, 5000)
    assert (again[0] == indices).all() and (again[1] == drawn_weights).all()


def test_example_norms_are_kept_and_bad_ones_passed_over():
    data = DataImportance(examples=3, steps=1)
    first = data.init()
    state = data.update(first, [0, 2, 0, 1], [1.0, 2.0, 4.0, np.nan])
    assert state.tolist() == [4.0, -1.0, 2.0] and (first == -1).all()
    assert data.probabilities(state, 1).tolist() == pytest.approx([4 / 9, 1 / 3, 2 / 9])
    with pytest.raises(ValueError, match="0 or more, but the least.*-1"):
        data.update(state, [0], [-1.0])


def test_last_layer_norms_are_those_of_the_logits_gradient():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(4, 5)), np.array([0, 4, 2, 2])

    def loss(z):
        return np.log(np.exp(z).sum(-1)) - z[np.arange(4), labels]

    steps = 1e-6 * np.eye(5)
    slopes = [(loss(logits + e) - loss(logits - e)) / 2e-6 for e in steps]
    expected = np.linalg.norm(slopes, axis=0)
    np.testing.assert_allclose(last_layer_norms(logits, labels), expected, rtol=1e-6)
    assert last_layer_norms(np.array([[1e4, 0.0]]), np.array([0])) == 0


def test_cost_bins_are_equally_likely_and_archs_uniform_within():
    strategy = CostBinned(SQUARE, sum, even(0, 6, bins=3))
    pairs = [strategy.draw(0, step) for step in range(DRAWS)]
    assert all(near.miss == 0 and near.cost == sum(near.arch) for _, near in pairs)
    bins = np.bincount([i for i, _ in pairs])
    assert chisquare(bins).pvalue > SURE
    for i, inside in enumerate([(0, 1), (2, 3), (4, 5, 6)]):
        archs = [a for a in SQUARE.enumerate() if sum(a) in inside]
        found = collections.Counter(near.arch for j, near in pairs if j == i)
        assert set(found) == set(archs)
        assert chisquare(list(found.values())).pvalue > SURE
    assert strategy.plan(None, 0, 7)[0].arch == pairs[7][1].arch


def test_where_no_arch_fits_the_nearest_is_taken_and_says_how_near():
    rng = np.random.default_rng(0)
    near = draw_near(rng, SQUARE, sum, Target(7, 8), n=3, tries=300)
    assert near[0].arch == (2, 2, 2) and near[0].miss == 1.0
    assert [n.miss for n in near] == sorted(n.miss for n in near)
    below = draw_near(rng, SQUARE, sum, Target(-2, 0), tries=300)
    assert below[0].cost == 0 and 0 < below[0].miss < 1e-300  # `high` is outside
    assert Target(0, 1).miss(math.nan) == math.inf


def test_attentive_targets_are_the_costs_of_uniform_archs():
    strategy = Attentive(SQUARE, (0, 0, 0), (2, 2, 2), sum, width=1, trials=1)
    archs = [
        p.arch
        for step in range(DRAWS // 3)
        for p in strategy.plan(strategy.init(), 0, step)[2:]
    ]
    found = collections.Counter(archs)  # one trial: uniform again
    assert chisquare([found[a] for a in SQUARE.enumerate()]).pvalue > SURE


def test_attentive_candidates_are_of_one_cost():
    strategy = Attentive(DEEP, SMALLEST, LARGEST, cost, width=4, tries=2000)
    rng = np.random.default_rng(0)
    for _ in range(50):
        target = strategy.target(rng)
        near = strategy.candidates(rng, target)
        assert len(near) == 3 and all(one.miss == 0 for one in near)
        assert all(target.low <= cost(one.arch) < target.high for one in near)
