"""The search loop: nothing scored twice, nothing lost, failures recorded, resumable."""

import math

import numpy as np
import pytest

from oneshot.algorithms import NSGA2, RandomSearch, RegularizedEvolution
from oneshot.constraints import Constraint, Constraints
from oneshot.searching import Objective, Result, search
from oneshot.space import Choice, Commuting, Reader, SearchSpace
from oneshot.trials import Trials

NAMES = ("a", "b", "c", "d")
SPACE = SearchSpace(
    [Choice(n, (0, 1, 2)) for n in NAMES], canonical=Commuting((NAMES,))
)
OBJECTIVES = [Objective("loss"), Objective("size", direction="max")]


class Table:
    """An evaluator that counts, and fails where it is told to."""

    def __init__(self, fails=lambda arch: False, weights="w"):
        self.fails = fails
        self.weights_digest = weights
        self.calls: list[list[tuple[int, ...]]] = []

    @property
    def scored(self):
        return [arch for call in self.calls for arch in call]

    def __call__(self, archs):
        self.calls.append(list(archs))
        if any(map(self.fails, archs)):
            raise MemoryError("the device is full")
        return [{"loss": float(np.float32(1 / (1 + sum(a)))), "n": 1} for a in archs]


def run(algorithm, evaluate, budget=30, **options):
    options = {"costs": {"size": sum}, "batch": 8, **options}
    return search(algorithm, evaluate, OBJECTIVES, budget=budget, **options)


def test_scores_each_path_once_and_within_budget():
    table, seen = Table(), []
    result = run(NSGA2(SPACE, 10), table, 30, on_trial=seen.append)
    assert len(result.trials) == 30 and list(result.trials) == seen
    assert len(set(table.scored)) == len(table.scored) == 30
    assert [t.step for t in result.trials] == list(range(30))
    assert [len(call) for call in table.calls] == [8, 8, 8, 6]
    first = result.trials[0]
    assert first.costs == {"size": sum(first.arch)} and first.weights_digest == "w"
    assert first.canonical == SPACE.canonical(first.arch) and first.seconds >= 0


def test_ends_with_the_space():
    assert len(run(RandomSearch(SPACE), Table(), 10**6).trials) == 81


def test_an_algorithm_that_repeats_itself_ends_and_costs_nothing():
    class Stubborn:
        space = SPACE
        told = 0

        def ask(self, n):
            return [(1, 1, 1, 1)] * n

        def tell(self, archs, values):
            assert values.shape == (len(archs), 2)
            self.told += 1

    table = Table()
    assert len(run(Stubborn(), table).trials) == 1
    assert len(table.scored) == 1


def test_archs_with_one_path_are_scored_once():
    readers = [Reader((0,)), Reader((1,), ((0, (1,)),))]
    space = SearchSpace([Choice("deep", (0, 1)), Choice("k", (3, 5))], readers)

    class Both:
        asked = [[(0, 0), (0, 1)], [(1, 1), (0, 1)]]

        def __init__(self):
            self.space, self.told = space, []

        def ask(self, n):
            return self.asked.pop(0) if self.asked else []

        def tell(self, archs, values):
            self.told.append((archs, values.tolist()))

    table, algorithm = Table(), Both()
    run(algorithm, table, 10)
    assert table.scored == [(0, 0), (1, 1)]
    assert algorithm.told[0][0] == [(0, 0), (0, 1)]
    assert algorithm.told[0][1] == [[1.0, 0.0]] * 2
    assert algorithm.told[1][1] == [[float(np.float32(1 / 3)), -2.0], [1.0, 0.0]]


# --- failures ---------------------------------------------------------------------


def test_one_bad_arch_does_not_lose_its_batch():
    table = Table(fails=lambda arch: arch[0] == 2)
    result = run(RegularizedEvolution(SPACE, 10, 4), table, 60)
    assert len(result.trials) == 60
    for trial in result.trials:
        bad = trial.arch[0] == 2
        assert trial.status == ("failed" if bad else "done")
        assert trial.reason == ("MemoryError: the device is full" if bad else "")
    assert all(trial.arch[0] != 2 for trial in result.front)
    assert np.isnan(result.values[[t.arch[0] == 2 for t in result.trials]]).all()


def test_a_nan_score_fails():
    result = run(RandomSearch(SPACE), lambda archs: [{"loss": math.nan}] * len(archs))
    assert {t.status for t in result.trials} == {"failed"} and result.front == []
    with pytest.raises(
        ValueError, match="None of the 30 trials succeeded.*'loss' is nan"
    ):
        result.best("loss")


def test_a_wrong_number_of_results_fails():
    result = run(RandomSearch(SPACE), lambda archs: [], 3)
    assert "returned 0 results for 1 archs" in result.trials[0].reason


def test_a_failing_cost_fails():
    def size(arch):
        return 1 / sum(arch)

    result = run(RandomSearch(SPACE), Table(), 81, costs={"size": size})
    failed = [t for t in result.trials if t.status == "failed"]
    assert [t.arch for t in failed] == [(0, 0, 0, 0)]
    assert "a cost failed: ZeroDivisionError" in failed[0].reason


def test_an_interrupt_is_no_failure_and_loses_nothing(tmp_path):
    def interrupt(archs):
        if len(table.calls) == 2:
            raise KeyboardInterrupt
        return table(archs)

    table = Table()
    interrupt.weights_digest = "w"
    with Trials(tmp_path / "t.sqlite") as store:
        with pytest.raises(KeyboardInterrupt):
            run(RandomSearch(SPACE), interrupt, trials=store)
        assert len(store) == 16


# --- resuming ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [RandomSearch, NSGA2, RegularizedEvolution])
def test_resuming_equals_not_stopping(tmp_path, make):
    def algorithm():
        options = {} if make is RandomSearch else {"population_size": 10}
        return make(SPACE, seed=4, **options)

    fails = lambda arch: arch[:2] == (1, 2)  # noqa: E731
    whole_search = algorithm()
    whole = run(whole_search, Table(fails), 50)
    with Trials(tmp_path / "t.sqlite") as store:
        run(algorithm(), Table(fails), 21, trials=store)
    resumed, table = algorithm(), Table(fails)
    with Trials(tmp_path / "t.sqlite") as store:
        result = run(resumed, table, 50, trials=store)
    assert resumed.state() == whole_search.state()
    np.testing.assert_array_equal(result.values, whole.values)
    assert [t.arch for t in result.trials] == [t.arch for t in whole.trials]
    stored = {t.path for t in whole.trials[:21]}
    assert not stored & set(table.scored)


def test_other_weights_are_scored_again():
    with Trials(":memory:") as store:
        run(RandomSearch(SPACE), Table(weights="w"), 10, trials=store)
        table = Table(weights="v")
        run(RandomSearch(SPACE), table, 10, trials=store)
        assert len(table.scored) == 10 and len(store) == 20


def test_a_new_cost_is_added_to_stored_trials():
    with Trials(":memory:") as store:
        run(RandomSearch(SPACE), Table(), 10, trials=store)
        table, costs = Table(), {"size": lambda arch: -1.0, "first": lambda a: a[0]}
        result = run(RandomSearch(SPACE), table, 10, trials=store, costs=costs)
        assert table.scored == []
        assert result.trials[0].costs.keys() == {"size", "first"}
        assert result.trials[0].costs["size"] >= 0  # the stored value is kept
        assert store.all() == list(result.trials)


def test_a_store_of_another_space_is_refused():
    with Trials(":memory:", SearchSpace([Choice("x", (0, 1))])) as store:
        with pytest.raises(ValueError, match="holds trials of the space"):
            run(RandomSearch(SPACE), Table(), trials=store)


# --- objectives and results -------------------------------------------------------


def test_best_keeps_limits_and_directions():
    result = run(RandomSearch(SPACE), Table(), 81)
    assert result.best().arch == result.best("loss").arch == (2, 2, 2, 2)
    assert result.best("size").costs["size"] == 8
    assert result.best(Objective("size"), loss=0.3).costs["size"] == 3  # 1 / (1 + 3)
    named = Result(result.trials, (*result.objectives, Objective("n")))
    assert named.best("loss", n=1).arch == (2, 2, 2, 2)  # at most one n
    # `size` is maximised: its limit is a lower one.
    assert result.best(Objective("loss", direction="max"), size=5).costs["size"] == 5
    with pytest.raises(ValueError, match=r"loss \(limit 0.01\) goes from 0.11"):
        result.best("size", loss=0.01)
    with pytest.raises(ValueError, match="no score or cost called 'speed'"):
        result.best("loss", speed=1)
    # Nobody said whether more of it is better.
    for ask in (lambda: result.best("n"), lambda: result.best("loss", n=1)):
        with pytest.raises(ValueError, match="'n' was not searched for"):
            ask()


def test_front_and_history():
    objectives = [Objective("loss"), Objective("size")]
    table, costs = Table(), {"size": sum}
    result = search(RandomSearch(SPACE), table, objectives, budget=81, costs=costs)
    assert len({t.costs["size"] for t in result.front}) == 9  # every size is on it
    losses = [t.scores["loss"] for t in result.front]
    assert losses == sorted(losses)
    history = run(RandomSearch(SPACE), table, 81).history
    assert (np.diff(history[:, 0]) <= 0).all() and (np.diff(history[:, 1]) >= 0).all()
    assert history[-1].tolist() == [float(np.float32(1 / 9)), 8]


def test_objectives_are_functions_of_the_trial():
    flipped = Objective(
        "first", lambda t: t.arch[0] + t.scores["loss"], direction="max"
    )
    result = search(RandomSearch(SPACE), Table(), [flipped], budget=81)
    assert result.best().arch == (2, 0, 0, 0)


def test_constraints_of_the_algorithm_hold():
    few = Constraints(SPACE, [Constraint("size", sum, maximum=2)])
    result = run(NSGA2(SPACE, 6, constraints=few), Table(), 50)
    assert len(result.trials) == 15 and max(t.costs["size"] for t in result.trials) == 2


def test_the_test_split_is_refused():
    for arguments in [("test_loss",), ("quality", "Test accuracy"), ("test", len)]:
        with pytest.raises(ValueError, match="is on the test split"):
            Objective(*arguments)
    table = Table()
    table.split = "test"
    with pytest.raises(ValueError, match="scores on the test split"):
        run(RandomSearch(SPACE), table)


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match="'min' or 'max', but got 'up'"):
        Objective("loss", direction="up")
    with pytest.raises(ValueError, match="no score or cost called 'lost'"):
        search(RandomSearch(SPACE), Table(), [Objective("lost")], budget=3)
    with pytest.raises(ValueError, match="needs a list of objectives"):
        search(RandomSearch(SPACE), Table(), [], budget=3)
    for objectives in ("loss", ["loss"], Objective("loss")):
        with pytest.raises(ValueError, match=r"such as \[Objective\('loss'\)\], but"):
            search(RandomSearch(SPACE), Table(), objectives, budget=3)
    with pytest.raises(ValueError, match="`batch` of at least 1"):
        run(RandomSearch(SPACE), Table(), batch=0)
