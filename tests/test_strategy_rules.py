"""What single strategies promise: ends, schedules, boards, picks, estimates."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategy_cases import (
    DEEP,
    LARGEST,
    PHASES,
    SMALLEST,
    SQUARE,
    Metrics,
    cost,
    metrics_of,
    run,
)

from oneshot.space import Choice, SearchSpace
from oneshot.strategies import (
    Attentive,
    CostBinned,
    DataImportance,
    LossAware,
    OptionEffects,
    OptionMeans,
    Phase,
    Planned,
    PriorityBoard,
    PriorPairs,
    Progressive,
    Restricted,
    Sandwich,
    StrictFair,
    Uniform,
    WithExamples,
    ends,
    even,
    guided,
    split,
)

# --- sandwich ---------------------------------------------------------------------


def test_ends_are_those_of_the_cost():
    costs = [cost(key) for key in DEEP.paths()]
    assert (cost(SMALLEST), cost(LARGEST)) == (min(costs), max(costs)) == (3, 19)
    assert DEEP.path_key(SMALLEST) == SMALLEST and DEEP.path_key(LARGEST) == LARGEST
    long = SearchSpace([Choice(f"c{i}", (0, 1, 2)) for i in range(30)])
    assert ends(long, sum) == ((0,) * 30, (2,) * 30)


@pytest.mark.parametrize("random", [0, 1, 5])
def test_a_sandwich_holds_both_ends_and_the_largest_teaches(random):
    for step in range(20):
        plan = Sandwich(DEEP, SMALLEST, LARGEST, random).plan(None, 0, step)
        assert plan[0] == (LARGEST, "teacher", 1.0)
        assert plan[1] == (SMALLEST, "student", 1.0)
        assert len(plan) == 2 + random
        assert all(p.role == "student" and p.weight == 1.0 for p in plan[1:])


def test_a_sandwich_without_distillation_compares_all_with_the_labels():
    strategy = Sandwich(DEEP, SMALLEST, LARGEST, distil=False, reduce="mean")
    plan = strategy.plan(None, 0, 0)
    assert [p.arch for p in plan[:2]] == [LARGEST, SMALLEST]
    assert {(p.role, p.weight) for p in plan} == {("labels", 0.25)}


# --- progressive ------------------------------------------------------------------


def test_progressive_starts_at_the_largest_and_only_widens():
    strategy = Progressive(DEEP, LARGEST, PHASES)
    allowed = [strategy.allowed(step) for step in range(40)]
    for before, after in itertools.pairwise(allowed):
        assert all(set(x) <= set(y) for x, y in zip(before, after, strict=True))
    assert allowed[0] == ((2,), (1,), (1,), (1,), (1,), (2,))
    assert allowed[3] != allowed[4] == allowed[8] != allowed[9] == allowed[39]
    assert allowed[4] == ((1, 2), (0, 1), (0, 1), (0, 1), (1,), (2,))
    assert allowed[9] == tuple(tuple(range(len(c.options))) for c in DEEP.choices)
    for step in range(40):
        plan = strategy.plan(None, 0, step)
        assert len(plan) == (1 if step < 4 else 2 if step < 9 else 3)
        assert sum(p.weight for p in plan) == pytest.approx(1)
        for planned in plan:
            pairs = zip(planned.arch, allowed[step], strict=True)
            assert all(index in options for index, options in pairs)


@given(st.data())
def test_no_schedule_narrows(data):
    """Any schedule either only widens, or is refused."""
    some = st.lists(st.sampled_from([3, 5]), min_size=1, max_size=2, unique=True)
    phases = []
    for steps in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)):
        names = data.draw(
            st.lists(st.sampled_from(["k0", "k1", "k*", "op"]), max_size=3)
        )
        allowed = {
            name: data.draw(st.one_of(st.none(), some)) if name != "op" else None
            for name in names
        }
        phases.append(Phase(steps, allowed))
    try:
        strategy = Progressive(DEEP, LARGEST, phases)
    except ValueError:
        return
    reached = [strategy.allowed(step) for step in range(15)]
    for before, after in itertools.pairwise(reached):
        assert all(set(x) <= set(y) for x, y in zip(before, after, strict=True))


def test_progressive_students_have_their_teacher_elsewhere():
    strategy = Progressive(DEEP, LARGEST, PHASES, role="student", reduce="sum")
    assert {p[1:] for p in strategy.plan(None, 0, 30)} == {("student", 1.0)}


def test_the_later_of_two_patterns_counts():
    phase = Phase(1, {"k*": None, "k1": [5]})
    assert Progressive(DEEP, LARGEST, [phase]).allowed(0)[1:4] == ((0, 1), (1,), (0, 1))


# --- few-shot ---------------------------------------------------------------------


def test_a_split_holds_each_option_once():
    parts = split(DEEP, "depth")
    assert [option for option, _ in parts] == [1, 2, 3]
    for i, (_, strategy) in enumerate(parts):
        plans = [strategy.plan(strategy.init(), 0, step) for step in range(50)]
        assert {p.arch[0] for plan in plans for p in plan} == {i}
        assert len({plan[0].arch for plan in plans}) > 10


def test_restricted_keeps_the_rest_of_the_inner_plan():
    inner = Sandwich(DEEP, SMALLEST, LARGEST)
    plan = Restricted(DEEP, {"op": "conv", "e": 2}, inner).plan(None, 0, 0)
    for held, free in zip(plan, inner.plan(None, 0, 0), strict=True):
        assert held.arch == (*free.arch[:4], 1, 1) and held[1:] == free[1:]
    rounds = Restricted(SQUARE, {"a": 1}, StrictFair(SQUARE))
    columns = np.array([p.arch for p in rounds.plan(None, 0, 0)]).T
    assert columns[0].tolist() == [1, 1, 1]
    assert sorted(columns[1]) == sorted(columns[2]) == [0, 1, 2]


@pytest.mark.parametrize("held", [{"a": 1}, {"a": 1, "b": 2}])
def test_held_options_make_nobody_its_own_teacher(held):
    """A board's student may differ from its teacher in what is held only."""
    plans, _ = run(Restricted(SQUARE, held, PriorityBoard(SQUARE, size=3)), 200)
    taught = [plan for plan in plans if len(plan) == 2]
    alone = [plan for plan in plans[20:] if len(plan) == 1]
    assert taught and alone and all(plan[0].role == "labels" for plan in alone)
    for teacher, student in taught:
        assert (teacher.role, student.role) == ("teacher", "student")
        assert teacher.arch != student.arch


def test_a_teacher_keeps_those_students_that_differ():
    inner = Sandwich(SQUARE, (0, 0, 0), (2, 2, 2), random=6)
    plans = [
        Restricted(SQUARE, {"a": 2, "b": 2}, inner).plan(None, 0, step)
        for step in range(20)
    ]
    assert any(len(plan) < 8 for plan in plans)
    for plan in plans:
        assert plan[0] == ((2, 2, 2), "teacher", 1.0)
        assert {p.arch for p in plan[1:]} <= {(2, 2, 0), (2, 2, 1)}


@pytest.mark.parametrize(("reduce", "each"), [("sum", 1.0), ("mean", None)])
def test_a_mean_of_fewer_paths_is_a_mean(reduce, each):
    """As long a step as any other, though some students are left out."""
    inner = Sandwich(SQUARE, (0, 0, 0), (2, 2, 2), random=6, reduce=reduce)
    board = PriorityBoard(SQUARE, size=3, reduce=reduce)
    for whole, held in ((inner, {"a": 2, "b": 2}), (board, {"a": 1, "b": 2})):
        plans, _ = run(Restricted(SQUARE, held, whole), 60)
        assert len({len(plan) for plan in plans}) > 1
        for plan in plans:
            want = each or 1 / len(plan)
            assert [p.weight for p in plan] == pytest.approx([want] * len(plan))


# --- what is told of costs --------------------------------------------------------


def test_strategies_say_what_they_are_told_of_costs():
    plain = Uniform(DEEP), StrictFair(DEEP), PriorityBoard(DEEP), LossAware(DEEP)
    assert {guided(strategy) for strategy in plain} == {None}
    told = PriorPairs(DEEP, cost), CostBinned(DEEP, cost, even(3, 19, bins=4))
    bounded = PriorityBoard(DEEP, cost=cost, maximum=12)
    for strategy in (*told, bounded):
        assert guided(strategy)
    inner = told[1]
    assert guided(Restricted(DEEP, {"depth": 2}, inner)) == guided(inner)
    examples = WithExamples(inner, DataImportance(examples=4, steps=10))
    assert guided(examples) == guided(inner)


# --- trials ------------------------------------------------------------------------


def test_loss_aware_sampling_starts_from_trials():
    trials = [((0, 0, 0), 1.0), ((1, 1, 1), 2.0), ((2, 2, 2), 3.0)]
    strategy = LossAware(SQUARE, temperature=0.5, history=trials)
    for row in strategy.probabilities(strategy.init()):
        assert (np.diff(row) < 0).all()
    fresh = LossAware(SQUARE, temperature=0.5)
    for row in fresh.probabilities(fresh.init()):
        np.testing.assert_allclose(row, 1 / 3)
    with pytest.raises(ValueError):
        LossAware(SQUARE, history=[((0, 0, 7), 1.0)])


# --- the board of good paths ------------------------------------------------------


def test_a_board_teaches_when_full_and_holds_good_paths():
    strategy = PriorityBoard(SQUARE, size=3, forget=0.0)
    plans, state = run(strategy, 300)
    taught = [len(plan) == 2 for plan in plans]
    assert not any(taught[:3]) and all(taught[10:])
    members = strategy.members(state)
    assert len(members) == 3 and [s for _, s in state["board"]] == sorted(
        s for _, s in state["board"]
    )
    # Losses of the cases grow with the sum of the arch.
    assert all(sum(member) <= 1 for member in members)
    for teacher, student in plans[10:]:
        assert (teacher.role, student.role) == ("teacher", "student")
        assert teacher.arch != student.arch


def test_a_student_has_the_nearest_member_for_a_teacher_or_the_best():
    board = [[[2, 2, 2], -0.3], [[0, 0, 0], -0.2], [[0, 1, 1], -0.1]]
    for match in ("nearest", "best"):
        strategy = PriorityBoard(SQUARE, size=3, match=match)
        state = strategy.init() | {"board": board}
        for step in range(60):
            teacher, student = strategy.plan(state, 0, step)
            others = [tuple(m) for m, _ in board if tuple(m) != student.arch]
            near = [
                sum(a == b for a, b in zip(m, student.arch, strict=True))
                for m in others
            ]
            first = near.index(max(near)) if match == "nearest" else 0
            assert teacher.arch == others[first]


def test_paths_above_the_bound_never_teach():
    strategy = PriorityBoard(DEEP, size=3, cost=cost, maximum=8)
    plans, state = run(strategy, 200)
    assert {cost(m) <= 8 for m in strategy.members(state)} == {True}
    students = [p.arch for plan in plans for p in plan if p.role != "teacher"]
    assert max(map(cost, students)) > 8


def test_a_board_that_never_fills_is_refused():
    few = SearchSpace([Choice("a", (0, 1, 2))])
    with pytest.raises(ValueError, match="has 3 paths, and 3 may be.*at most 3"):
        PriorityBoard(few)
    with pytest.raises(ValueError, match="1 may be on the board.*a greater `maximum`"):
        PriorityBoard(few, size=2, cost=sum, maximum=0)
    PriorityBoard(few, size=1, cost=sum, maximum=0)


def test_scores_are_relative_to_their_time_and_role():
    strategy = PriorityBoard(SQUARE, size=2, rate=0.5, forget=0.1)
    state = strategy.init()
    for arch, loss in (((0, 0, 0), 4.0), ((1, 1, 1), 2.0)):
        state = strategy.observe(state, (Planned(arch),), Metrics([{"loss": loss}]))
    assert state["board"] == [[[1, 1, 1], -2.0], [[0, 0, 0], 0.0]]
    assert state["means"]["labels"] == [3.0, 2]
    plan = strategy.plan(state, 0, 0)
    state = strategy.observe(state, plan, Metrics([{"loss": 9.0}, {"loss": 50.0}]))
    assert state["means"] == {"labels": [3.0, 2], "student": [50.0, 1]}
    assert state["board"][0] == [[1, 1, 1], -1.8]  # what it knew has faded


# --- pairs ------------------------------------------------------------------------


def test_of_a_pair_the_prior_names_the_better():
    plans = [PriorPairs(DEEP, cost).plan(None, 0, step) for step in range(200)]
    for plan in plans:
        first, second = (cost(p.arch) for p in plan)
        roles = [p.role for p in plan]
        expected = ["better", "worse"] if first > second else ["labels", "labels"]
        assert roles == expected and first >= second
    assert {plan[0].role for plan in plans} == {"better", "labels"}


def test_a_prior_that_is_no_number_names_nobody():
    plan = PriorPairs(DEEP, lambda arch: float("nan")).plan(None, 0, 0)
    assert [p.role for p in plan] == ["labels", "labels"]


# --- attentive --------------------------------------------------------------------


@pytest.mark.parametrize("up", ["best", "worst"])
def test_attentive_picks_the_best_or_the_worst_of_its_trials(up):
    def quality(archs):
        return [a[0] + 10 * a[4] for a in archs]

    strategy = Attentive(
        DEEP, SMALLEST, LARGEST, cost, 4, quality, up=up, picked=1, trials=4
    )
    for step in range(40):
        plan = strategy.plan(None, 0, step)
        assert plan[0] == (LARGEST, "teacher", 1.0)
        assert plan[1] == (SMALLEST, "student", 1.0)
        rng = np.random.default_rng([0, 0, step])  # as the strategy draws
        near = strategy.candidates(rng, strategy.target(rng))
        values = quality([one.arch for one in near])
        picked = quality([plan[2].arch])[0]
        assert picked == (max(values) if up == "best" else min(values))


def test_attentive_learns_from_the_run_which_options_are_better():
    strategy = Attentive(SQUARE, (0, 0, 0), (2, 2, 2), sum, width=20, trials=6)
    _, state = run(strategy, 200)
    plans = [strategy.plan(state, 0, step) for step in range(200, 300)]
    sums = [sum(p.arch) for plan in plans for p in plan[2:]]
    assert np.mean(sums) < 2  # 3 where it knows nothing; losses grow with the sum


def test_what_cannot_be_predicted_is_not_picked():
    def quality(archs):
        return [0.0 if a[0] == 0 else np.nan for a in archs]

    strategy = Attentive(
        SQUARE, (0, 0, 0), (2, 2, 2), sum, 6, quality, trials=20, tries=20
    )
    for step in range(10):
        assert all(p.arch[0] == 0 for p in strategy.plan(None, 0, step)[2:])


# --- option effects ---------------------------------------------------------------


def test_means_are_those_of_the_values_and_then_move():
    means, values = OptionMeans(SQUARE, rate=0.1), [3.0, 1.0, 4.0, 1.0, 5.0]
    state = means.init()
    for value in values:
        state = means.update(state, (0, 1, 2), value)
    assert state["means"][0] == [pytest.approx(np.mean(values)), 0, 0]
    assert state["counts"] == [[5, 0, 0], [0, 5, 0], [0, 0, 5]]
    for _ in range(200):
        state = means.update(state, (0, 1, 2), 7.0)
    assert state["means"][2][2] == pytest.approx(7.0, abs=1e-6)


def test_unread_choices_learn_nothing():
    state = OptionMeans(DEEP).update(OptionMeans(DEEP).init(), (0, 1, 1, 1, 0, 2), 2.0)
    assert [sum(row) for row in state["counts"]] == [1, 1, 0, 0, 1, 0]


def test_effects_are_those_of_an_additive_loss_that_falls():
    effects = OptionEffects(SQUARE, rate=0.01)
    true = np.array([[-0.3, 0.0, 0.3], [0.2, 0.0, -0.2], [0.0, 0.0, 0.0]])
    rng, state = np.random.default_rng(0), effects.init()
    for step in range(4000):
        arch = SQUARE.sample(rng, 1)[0]
        loss = 2 * np.exp(-step / 1000) + sum(true[i][o] for i, o in enumerate(arch))
        state = effects.update(state, [arch], [loss + 0.1 * rng.normal()])
    np.testing.assert_allclose(np.array(effects.effects(state)), true, atol=0.1)
    archs = list(SQUARE.enumerate())
    predicted = effects.predict(state, archs)
    sums = [sum(true[i][o] for i, o in enumerate(a)) for a in archs]
    assert np.corrcoef(predicted, sums)[0, 1] > 0.97


def test_the_losses_of_one_step_are_of_one_time():
    effects = OptionEffects(SearchSpace([Choice("a", (0, 1))]))
    for archs in ([(0,), (1,)], [(1,), (0,)]):
        losses = [float(a[0]) for a in archs]
        state = effects.update(effects.init(), archs, losses)
        assert effects.effects(state)[0].tolist() == [-0.5, 0.5]
    assert effects.update(state, [(0,)], [np.nan]) == state


def test_made_up_metrics_are_a_function_of_the_plan_and_the_step():
    plan = Sandwich(DEEP, SMALLEST, LARGEST).plan(None, 0, 0)
    assert metrics_of(plan, 3) == metrics_of(plan, 3) != metrics_of(plan, 4)
