"""What every strategy keeps to: one contract, and arguments refused with a reason."""

import doctest
import importlib
import json
import math
import pkgutil
import subprocess
import sys
import typing

import numpy as np
import pytest
from strategy_cases import (
    DEEP,
    LARGEST,
    SMALLEST,
    SQUARE,
    STRATEGIES,
    Metrics,
    cost,
    metrics_of,
    run,
)

from oneshot import strategies
from oneshot.strategies import (
    Attentive,
    CostBinned,
    DataImportance,
    LossAware,
    OptionMeans,
    PathImportance,
    Phase,
    Planned,
    PriorityBoard,
    PriorPairs,
    Progressive,
    Restricted,
    Role,
    Sandwich,
    StrictFair,
    split,
)

NAMES = list(STRATEGIES)
LEARNING = [name for name in NAMES if isinstance(STRATEGIES[name].init(), dict)]


def through_text(state, step):
    del step  # at each of them
    return json.loads(json.dumps(state))


def test_strategies_load_no_jax():
    code = (
        "import sys, oneshot.strategies; "
        "print([m for m in ('jax', 'flax', 'optax') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr


@pytest.mark.parametrize(
    "name", [m.name for m in pkgutil.iter_modules(strategies.__path__)]
)
def test_examples_show_what_comes(name):
    module = importlib.import_module(f"oneshot.strategies.{name}")
    assert doctest.testmod(module).failed == 0


def test_a_planned_path_compares_with_the_labels_unless_told():
    assert Planned((0, 1)) == ((0, 1), "labels", 1.0)
    assert Planned._fields == ("arch", "role", "weight")


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_a_function_of_state_seed_and_step(name):
    strategy = STRATEGIES[name]
    _, state = run(strategy, 12)
    plans = [strategy.plan(state, 3, step) for step in range(12, 40)]
    assert plans == [strategy.plan(state, 3, step) for step in range(12, 40)]
    varied = name != "fixed"
    assert (len(set(plans)) > 1) == varied
    assert (plans != [strategy.plan(state, 4, s) for s in range(12, 40)]) == varied


@pytest.mark.parametrize("name", NAMES)
def test_plans_hold_archs_of_the_space_known_roles_and_finite_weights(name):
    plans, _ = run(STRATEGIES[name], 40)
    for plan in plans:
        assert plan and isinstance(plan, tuple)
        for arch, role, weight in plan:
            assert DEEP.check(arch) == arch and all(type(v) is int for v in arch)
            assert role in typing.get_args(Role)
            assert type(weight) is float and math.isfinite(weight) and weight > 0
        roles = [p.role for p in plan]
        # Its outputs are there before those that it teaches.
        assert "teacher" not in roles[1:]
        assert roles[0] != "teacher" or "student" in roles


@pytest.mark.parametrize("name", NAMES)
def test_a_run_through_json_is_the_uninterrupted_one(name):
    strategy = STRATEGIES[name]
    plans, state = run(strategy, 40)
    again, restored = run(strategy, 40, between=through_text)
    assert again == plans
    assert json.dumps(restored) == json.dumps(state)


@pytest.mark.parametrize("name", NAMES)
def test_observing_changes_no_state_that_was_handed_out(name):
    strategy = STRATEGIES[name]
    state = strategy.init()
    for step in range(25):
        before = json.dumps(state)
        plan = strategy.plan(state, 0, step)
        following = strategy.observe(state, plan, metrics_of(plan, step))
        assert json.dumps(state) == before
        state = following


@pytest.mark.parametrize("name", LEARNING)
def test_what_is_learnt_shows_in_the_state(name):
    strategy = STRATEGIES[name]
    assert run(strategy, 20)[1] != strategy.init()


@pytest.mark.parametrize("name", LEARNING)
def test_a_path_that_diverged_is_passed_over(name):
    strategy = STRATEGIES[name]
    _, state = run(strategy, 10)
    plan = strategy.plan(state, 0, 10)
    broken = Metrics([{"loss": np.float32("nan")} for _ in plan], np.float32("inf"))
    assert strategy.observe(state, plan, broken) == state


REFUSED = {
    "fair reduce": (lambda: StrictFair(DEEP, "max"), "'mean' or 'sum'.*'max'"),
    "sandwich random": (
        lambda: Sandwich(DEEP, SMALLEST, LARGEST, random=-1),
        "0 or more, but got -1",
    ),
    "sandwich arch": (lambda: Sandwich(DEEP, (9,), LARGEST), "6 option indices"),
    "sandwich reduce": (
        lambda: Sandwich(DEEP, SMALLEST, LARGEST, reduce="all"),
        "'mean' or 'sum'",
    ),
    "phase": (lambda: Phase(0, {}), "one step or more.*steps=0"),
    "phase paths": (lambda: Phase(1, {}, paths=0), "paths=0"),
    "no phases": (lambda: Progressive(DEEP, LARGEST, []), "one phase or more"),
    "progressive role": (
        lambda: Progressive(DEEP, LARGEST, [Phase(1, {})], role="teacher"),
        "'labels' or 'student'.*'teacher'",
    ),
    "unknown choice": (
        lambda: Progressive(DEEP, LARGEST, [Phase(1, {"q*": None})]),
        "Phase 0.*'q\\*'.*no choice.*'depth'",
    ),
    "unknown option": (
        lambda: Progressive(DEEP, LARGEST, [Phase(1, {"depth": (3, 9)})]),
        r"\[9\] for choice 'depth'.*\[1, 2, 3\]",
    ),
    "a word for options": (
        lambda: Progressive(DEEP, LARGEST, [Phase(1, {"op": "conv"})]),
        r"come as a list: \['conv'\]",
    ),
    "without the largest": (
        lambda: Progressive(DEEP, LARGEST, [Phase(1, {"depth": (1,)})]),
        r"takes \[3\] away from choice 'depth'.*only widens",
    ),
    "narrower": (
        lambda: Progressive(
            DEEP, LARGEST, [Phase(1, {"depth": (2, 3)}), Phase(1, {"depth": (3,)})]
        ),
        r"Phase 1 takes \[2\] away",
    ),
    "edges": (lambda: CostBinned(DEEP, cost, (1, 1)), r"ascending.*\[1.0, 1.0\]"),
    "one edge": (lambda: CostBinned(DEEP, cost, (1,)), "two or more"),
    "tries": (lambda: CostBinned(DEEP, cost, (1, 2), tries=0), "at least 1.*0"),
    "width": (
        lambda: Attentive(DEEP, SMALLEST, LARGEST, cost, 0),
        "above 0, but got 0",
    ),
    "up": (
        lambda: Attentive(DEEP, SMALLEST, LARGEST, cost, 1, up="first"),
        "'best' or 'worst'.*'first'",
    ),
    "trials": (
        lambda: Attentive(DEEP, SMALLEST, LARGEST, cost, 1, trials=0),
        "trials=0",
    ),
    "rate": (lambda: OptionMeans(DEEP, 0.0), "above 0 and at most 1"),
    "attentive rate": (
        lambda: Attentive(DEEP, SMALLEST, LARGEST, cost, 1, rate=2.0),
        "at most 1, but got 2.0",
    ),
    "temperature": (lambda: LossAware(DEEP, temperature=0), "temperature=0"),
    "explore": (lambda: LossAware(DEEP, explore=1.5), "explore=1.5"),
    "tau": (lambda: PathImportance(DEEP, 10, tau=2), "in 0 to 1.*tau=2"),
    "data tau": (lambda: DataImportance(5, 10, tau=-1), "tau=-1"),
    "examples": (lambda: DataImportance(0, 10), "examples=0"),
    "size": (lambda: PriorityBoard(DEEP, size=0), "size=0"),
    "match": (lambda: PriorityBoard(DEEP, match="any"), "'nearest' or 'best'"),
    "half a bound": (lambda: PriorityBoard(DEEP, cost=cost), "only a cost"),
    "held choice": (lambda: Restricted(DEEP, {"q": 1}), r"\['q'\]; there are"),
    "held option": (lambda: Restricted(DEEP, {"depth": 9}), "'depth' has options"),
    "nothing held": (lambda: Restricted(DEEP, {}), "none"),
    "held pairs": (
        lambda: Restricted(
            DEEP,
            {DEEP.choices[0].name: DEEP.choices[0].options[0]},
            PriorPairs(DEEP, sum),
        ),
        "wrong one of a pair",
    ),
    "split": (lambda: split(DEEP, "q"), "No choice is called 'q'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused_with_a_reason(case):
    make, reason = REFUSED[case]
    with pytest.raises(ValueError, match=reason):
        make()


def test_a_trainer_that_measures_no_norms_is_refused():
    strategy = PathImportance(SQUARE, steps=10)
    plan = strategy.plan(strategy.init(), 0, 0)
    with pytest.raises(ValueError, match="measured none.*`clip_norm`"):
        strategy.observe(strategy.init(), plan, Metrics([{"loss": 1.0}]))


def test_a_prediction_of_another_length_is_refused():
    strategy = Attentive(DEEP, SMALLEST, LARGEST, cost, 4, lambda archs: [1.0])
    with pytest.raises(ValueError, match="3 archs it returned 1"):
        strategy.plan(None, 0, 0)
