"""Strategies: one contract for all, and the distribution that each one states."""

import collections
import dataclasses
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import chisquare

from oneshot import Choice, SearchSpace
from oneshot.strategies import (
    Attentive,
    CostBinned,
    Fixed,
    LossAware,
    PathImportance,
    Phase,
    PriorityBoard,
    PriorPairs,
    Progressive,
    Restricted,
    Sandwich,
    StrictFair,
    Uniform,
    splits,
)
from oneshot.teaching import Teaching, check_plan

EVEN = SearchSpace([Choice(f"layer{i}.op", ("skip", "a", "b")) for i in range(4)])
UNEVEN = SearchSpace(
    [Choice("k", (3, 5, 7)), Choice("depth", (2, 3, 4, 5)), Choice("wide", (0, 1))]
)
LARGEST, SMALLEST = (2, 3, 1), (0, 0, 0)


def cost(arch):
    return 1.0 + sum(arch)


PHASES = (
    Phase(10),
    Phase(10, {"k": (5, 7)}, paths=2),
    Phase(10, {"k": (3,), "d*": (3, 4)}, paths=3),
)
ENDS = {"largest": LARGEST, "smallest": SMALLEST}
STRATEGIES = {
    "uniform": Uniform(UNEVEN),
    "canonical": Uniform(UNEVEN, "canonical"),
    "fixed": Fixed((1, 2, 0)),
    "fair": StrictFair(UNEVEN),
    "fair, one by one": StrictFair(UNEVEN, one_by_one=True),
    "sandwich": Sandwich(UNEVEN, **ENDS),
    "progressive": Progressive(UNEVEN, LARGEST, PHASES),
    "cost bins": CostBinned(UNEVEN, cost, (1.0, 3.0, 5.0, 7.0)),
    "best-up": Attentive(UNEVEN, **ENDS, cost=cost, width=1.0),
    "worst-up": Attentive(UNEVEN, **ENDS, cost=cost, width=1.0, pick="worst"),
    "predicted": Attentive(
        UNEVEN,
        **ENDS,
        cost=cost,
        width=2.0,
        predict=lambda archs: [a[0] for a in archs],
    ),
    "loss aware": LossAware(UNEVEN),
    "importance": PathImportance(UNEVEN, steps=20),
    "board": PriorityBoard(UNEVEN, size=4),
    "pairs": PriorPairs(UNEVEN, cost),
    "restricted": splits(UNEVEN, "depth")[2],
}
every = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)


def metrics(plan, step):
    """What a trainer would hand over: losses that depend on arch and step."""
    rng = np.random.default_rng(step)
    losses = [2.0 - 0.1 * cost(p.arch) + 0.1 * rng.normal() for p in plan]
    logged = [{"loss": np.float32(loss)} for loss in losses]
    return SimpleNamespace(logged=logged, squared_norm=np.float32(rng.uniform(1, 9)))


def run(strategy, steps, seed=3, interrupt=None):
    state, plans = strategy.init(), []
    for step in range(steps):
        if step == interrupt:
            state = json.loads(json.dumps(state))
        plans.append(strategy.plan(state, seed, step))
        before = json.dumps(state)
        new = strategy.observe(state, plans[-1], metrics(plans[-1], step))
        assert json.dumps(state) == before  # the old state is left alone
        state = new
    return plans


@every
def test_plans_follow_from_state_seed_and_step(strategy):
    plans = run(strategy, 25)
    assert plans == run(strategy, 25)
    assert plans == run(strategy, 25, interrupt=13)  # saved as JSON, and reloaded
    if not isinstance(strategy, Fixed):
        assert run(strategy, 25, seed=4) != plans
        assert len({plan for plan in plans}) > 5


@every
def test_plans_hold_archs_of_the_space_with_roles_that_fit(strategy):
    for plan in run(strategy, 40):
        check_plan(plan, Teaching())
        for planned in plan:
            assert UNEVEN.check(planned.arch) == planned.arch
            assert np.isfinite(planned.weight) and planned.weight > 0


def drawn(strategy, steps, state=None):
    """Return all archs of many plans in one state."""
    state = strategy.init() if state is None else state
    plans = (strategy.plan(state, 0, step) for step in range(steps))
    return [planned.arch for plan in plans for planned in plan]


def fits(counts, probabilities):
    expected = np.asarray(probabilities) * np.sum(counts)
    return chisquare(counts, expected).pvalue > 1e-3


def check_marginals(archs, space, probabilities):
    for i, choice in enumerate(space.choices):
        counts = np.bincount([a[i] for a in archs], minlength=len(choice.options))
        kept = np.asarray(probabilities[i]) > 0
        assert not counts[~kept].any()
        assert kept.sum() == 1 or fits(counts[kept], np.asarray(probabilities[i])[kept])


def uniform_over(space):
    return [np.full(len(c.options), 1 / len(c.options)) for c in space.choices]


@pytest.mark.parametrize("name", ["uniform", "pairs"])
def test_marginals_are_uniform(name):
    check_marginals(drawn(STRATEGIES[name], 3000), UNEVEN, uniform_over(UNEVEN))


@pytest.mark.parametrize("one_by_one", [False, True])
def test_every_round_is_strictly_fair(one_by_one):
    strategy = StrictFair(EVEN, one_by_one=one_by_one)
    archs = drawn(strategy, 300 if one_by_one else 100)
    for i in range(0, 300, 3):
        for own in zip(*archs[i : i + 3], strict=True):
            assert sorted(own) == [0, 1, 2]
    # Decks are shuffled anew and independently: pairs of options are uniform too.
    pairs = collections.Counter((a[0], a[1]) for a in archs[::3])
    pairs = pairs | collections.Counter()
    assert fits([pairs[p] for p in itertools.product(range(3), repeat=2)], [1 / 9] * 9)


def test_options_of_unequal_choices_stay_within_one_of_each_other():
    archs = drawn(StrictFair(UNEVEN), 60)
    for end in range(4, len(archs), 4):
        for i, choice in enumerate(UNEVEN.choices):
            counts = np.bincount(
                [a[i] for a in archs[:end]], minlength=len(choice.options)
            )
            assert counts.max() - counts.min() <= 1
            if end % len(choice.options) == 0:
                assert counts.max() == counts.min()


def test_a_round_of_means_weighs_one_and_a_round_of_sums_each():
    assert sum(p.weight for p in StrictFair(EVEN).plan(None, 0, 0)) == pytest.approx(1)
    assert {p.weight for p in StrictFair(EVEN, "sum").plan(None, 0, 0)} == {1.0}


def test_a_sandwich_holds_both_ends_and_the_largest_teaches():
    strategy = Sandwich(UNEVEN, **ENDS, random=3)
    for step in range(50):
        first, second, *rest = strategy.plan(None, 1, step)
        assert (first.arch, first.role) == (LARGEST, "teacher")
        assert second.arch == SMALLEST and len(rest) == 3
        assert {p.role for p in (second, *rest)} == {"student"}
    archs = [p.arch for s in range(1500) for p in strategy.plan(None, 0, s)[2:]]
    check_marginals(archs, UNEVEN, uniform_over(UNEVEN))
    plain = dataclasses.replace(strategy, distil=False)
    assert {p.role for p in plain.plan(None, 0, 0)} == {"labels"}


def test_progressive_shrinking_only_widens():
    strategy = Progressive(UNEVEN, LARGEST, PHASES)
    assert strategy.allowed(0) == [(2,), (3,), (1,)]
    assert {a for a in drawn(strategy, 10)} == {LARGEST}
    for step in range(60):
        before, after = strategy.allowed(step), strategy.allowed(step + 1)
        assert all(set(b) <= set(a) for b, a in zip(before, after, strict=True))
    assert strategy.allowed(59) == [(0, 1, 2), (1, 2, 3), (1,)]
    assert [len(strategy.plan(None, 0, s)) for s in (0, 10, 20, 500)] == [1, 2, 3, 3]
    archs = [p.arch for s in range(20, 1500) for p in strategy.plan(None, 0, s)]
    thirds, rest = np.full(3, 1 / 3), np.array([0, 1 / 3, 1 / 3, 1 / 3])
    check_marginals(archs, UNEVEN, [thirds, rest, np.array([0.0, 1.0])])


def test_bins_of_cost_are_drawn_equally_often():
    strategy = CostBinned(UNEVEN, cost, (1.0, 3.0, 5.0, 7.0), tries=400)
    found = np.digitize([cost(a) for a in drawn(strategy, 1500)], (3.0, 5.0))
    assert fits(np.bincount(found), [1 / 3] * 3)
    uniform = np.digitize([cost(a) for a in drawn(Uniform(UNEVEN), 1500)], (3.0, 5.0))
    assert not fits(np.bincount(uniform), [1 / 3] * 3)


def test_attentive_sampling_keeps_costs_and_picks_by_quality():
    best, worst = (
        dataclasses.replace(STRATEGIES["predicted"], pick=pick)
        for pick in ("best", "worst")
    )
    rows = [
        [p.arch for s in range(1000) for p in strategy.plan(None, 0, s)[2:]]
        for strategy in (best, worst)
    ]
    quality = [np.mean([a[0] for a in archs]) for archs in rows]
    assert quality[0] > 1.3 and quality[1] < 0.7  # uniform archs have a mean of 1
    everyone = [cost(a) for a in itertools.product(*map(range, (3, 4, 2)))]
    wanted = np.bincount(np.round(np.array(everyone) / 2).astype(int)) / len(everyone)
    for archs in rows:
        bins = np.round([cost(a) / 2 for a in archs]).astype(int)
        counts = np.bincount(bins, minlength=len(wanted))
        assert fits(counts[wanted > 0], wanted[wanted > 0])


def test_effects_are_learnt_from_the_losses():
    strategy = STRATEGIES["loss aware"]
    state = strategy.init()
    for step in range(600):
        plan = strategy.plan(state, 0, step)
        state = strategy.observe(state, plan, metrics(plan, step))
    for own in state["effects"]:  # an option costs 0.1 less than the one before
        np.testing.assert_allclose(np.diff(own), -0.1, atol=0.05)


def test_lower_losses_are_drawn_as_often_as_stated():
    strategy = LossAware(UNEVEN, temperature=0.1, explore=0.4)
    effects = [[0.1, 0.0, -0.1], [0.0, 0.0, 0.0, -0.2], [0.05, -0.05]]
    state = {"level": 1.0, "effects": effects}
    found = strategy.probabilities(state)
    assert all(p.min() >= 0.4 / len(p) - 1e-12 for p in found)
    assert found[0][2] > found[0][1] > found[0][0]
    check_marginals(drawn(strategy, 3000, state), UNEVEN, found)


NORMS = {"level": 2.0, "norms": [[1.0, 2.0, 4.0], [3.0, None, 1.0, 0.5], [2.0, 2.0]]}


def test_importance_is_drawn_as_often_as_stated():
    strategy = PathImportance(UNEVEN, steps=1, most=0.8)
    found = strategy.probabilities(NORMS, 5)
    check_marginals(drawn(strategy, 3000, NORMS), UNEVEN, found)
    uniform = strategy.probabilities(NORMS, 0)
    assert all(np.allclose(p, 1 / len(p)) for p in uniform)


def test_importance_weights_leave_no_bias():
    strategy, step = PathImportance(UNEVEN, steps=10), 7
    found = strategy.probabilities(NORMS, step)
    gradient = np.random.default_rng(0).normal(size=(3, 4, 2))
    weights = {}  # of each arch, as plans give them
    for seed in range(600):
        (planned,) = strategy.plan(NORMS, seed, step)
        weights[planned.arch] = planned.weight
    assert len(weights) == gradient.size
    total = sum(
        np.prod([p[o] for p, o in zip(found, arch, strict=True)])
        * weights[arch]
        * gradient[arch]
        for arch in weights
    )
    assert total == pytest.approx(gradient.mean(), abs=1e-12)


def test_norms_are_those_of_the_unweighted_gradient():
    strategy = PathImportance(UNEVEN, steps=10)
    (planned,) = plan = strategy.plan(NORMS, 0, 7)
    got = SimpleNamespace(logged=[], squared_norm=np.float32(planned.weight**2 * 25))
    new = strategy.observe({**strategy.init(), "level": None}, plan, got)
    assert new["level"] == pytest.approx(5.0)
    with pytest.raises(ValueError, match="`clip_norm`"):
        strategy.observe(NORMS, plan, SimpleNamespace(logged=[], squared_norm=None))


def test_the_board_keeps_the_best_and_the_most_alike_teaches():
    strategy = PriorityBoard(UNEVEN, size=3, cost=cost, most=6.0)
    state = strategy.init()
    for step in range(300):
        plan = strategy.plan(state, 0, step)
        if len(plan) == 2:
            teacher, student = plan
            assert (teacher.role, student.role) == ("teacher", "student")
            alike = [
                sum(x == y for x, y in zip(a, student.arch, strict=True))
                for a, _ in state
            ]
            assert alike[[tuple(a) for a, _ in state].index(teacher.arch)] == max(alike)
        state = strategy.observe(state, plan, metrics(plan, step))
    assert [loss for _, loss in state] == sorted(loss for _, loss in state)
    assert all(4.0 <= cost(arch) <= 6.0 for arch, _ in state)


def test_of_a_pair_the_prior_names_the_better():
    plans = [STRATEGIES["pairs"].plan(None, 0, step) for step in range(300)]
    for plan in plans:
        a, b = (cost(p.arch) for p in plan)
        roles = [p.role for p in plan]
        assert roles == (["better", "worse"] if a > b else ["labels"] * 2) and a >= b
    assert {p[0].role for p in plans} == {"better", "labels"}


def test_splits_are_the_space_cut_by_one_choice():
    parts = splits(UNEVEN, "depth")
    assert len(parts) == 4
    for option, part in enumerate(parts):
        wanted = uniform_over(UNEVEN)
        wanted[1] = np.eye(4)[option]
        check_marginals(drawn(part, 1500), UNEVEN, wanted)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: StrictFair(EVEN, "median"), "'mean'"),
        (lambda: StrictFair(SearchSpace([])), "has none"),
        (lambda: Sandwich(UNEVEN, (9, 9, 9), SMALLEST), "option"),
        (lambda: Sandwich(UNEVEN, **ENDS, random=-1), "random=-1"),
        (lambda: Progressive(UNEVEN, LARGEST, ()), "got none"),
        (lambda: Progressive(UNEVEN, LARGEST, (Phase(0),)), "steps=0"),
        (lambda: Progressive(UNEVEN, LARGEST, (Phase(1, {"z*": (1,)}),)), "'z\\*'"),
        (lambda: Progressive(UNEVEN, LARGEST, (Phase(1, {"k": (9,)}),)), r"\[9\]"),
        (lambda: Progressive(UNEVEN, LARGEST, PHASES, "teacher"), "role='teacher'"),
        (lambda: CostBinned(UNEVEN, cost, (1.0,)), "at least two edges"),
        (lambda: CostBinned(UNEVEN, cost, (1.0, 2.0), tries=0), "got 0"),
        (lambda: Attentive(UNEVEN, **ENDS, cost=cost, width=0), "width=0"),
        (lambda: Attentive(UNEVEN, **ENDS, cost=cost, width=1, pick="x"), "got 'x'"),
        (lambda: LossAware(UNEVEN, temperature=0), "temperature=0"),
        (lambda: LossAware(UNEVEN, rate=2), "got 2"),
        (lambda: PathImportance(UNEVEN, steps=0), "steps=0"),
        (lambda: PriorityBoard(UNEVEN, size=0), "size=0"),
        (lambda: Restricted(UNEVEN, Uniform(UNEVEN), {"k": 3}), "number 3"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()
    with pytest.raises(KeyError, match="No choice is called"):
        splits(UNEVEN, "no such")
