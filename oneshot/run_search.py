"""The second step of a run: a search by inherited weights, its trials kept."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from oneshot.algorithms import NSGA2, RandomSearch, RegularizedEvolution
from oneshot.bound import bind
from oneshot.constraints import Constraints
from oneshot.cost_tables import Cost, CostTables
from oneshot.evaluate import Evaluator
from oneshot.searched import race_of, record
from oneshot.searching import Objective, Result
from oneshot.searching import search as search_by
from oneshot.settings import SearchSettings
from oneshot.trials import Trials

if TYPE_CHECKING:
    from oneshot.run import Run

_ALGORITHMS = {
    "nsga2": functools.partial(NSGA2, population_size=40),
    "evolution": functools.partial(RegularizedEvolution, population_size=40),
    "random": functools.partial(RandomSearch, over="paths"),
}


def search(run: Run, settings: SearchSettings) -> Result:
    """Search by a run's weights; trials that are stored are not scored again."""
    if run.state.step < run.settings.steps:
        raise ValueError(
            f"Training stands at step {run.state.step} of {run.settings.steps}. "
            f"Finish it first: oneshot train --out {run.directory.path} with the "
            "settings it was started with."
        )
    start, algorithm = time.perf_counter(), _algorithm(run, settings)
    objectives = [Objective(settings.rank_by), Objective("macs")]
    if settings.algorithm != "nsga2":
        objectives = objectives[:1]
    evaluator = _evaluator(run, settings)
    with run.bars.phase("compile scoring programs") as report:
        evaluator.warm_up(report)
    bound, done = bind(evaluator, run.weights), 0
    with Trials(run.directory.trials) as trials, run.bars.phase("search") as report:

        def on_trial(trial) -> None:
            nonlocal done
            if not done:  # a report of what an interrupted search left finds it
                run.directory.update_result(**record(bound, settings))
            done += 1
            report(done, settings.budget)

        result = search_by(
            algorithm,
            bound,
            objectives,
            budget=settings.budget,
            costs={"macs": run.costs.macs, "params": run.costs.params},
            trials=trials,
            batch=settings.batch,
            on_trial=on_trial,
        )
    run.directory.update_result(
        seconds={"search": time.perf_counter() - start},
        **record(bound, settings, result.trials),
    )
    return result


def _algorithm(run: Run, settings: SearchSettings) -> Any:
    space = run.supernet.space
    limits: list[tuple[Cost, int | None]] = [
        ("macs", settings.max_macs),
        ("params", settings.max_params),
    ]
    tables = CostTables(run.supernet, run.data.train.x[:1])
    bounds = [
        tables.constraint(name, limit) for name, limit in limits if limit is not None
    ]
    return _ALGORITHMS[settings.algorithm](
        space, seed=settings.seed, constraints=Constraints(space, bounds)
    )


def _evaluator(run: Run, settings: SearchSettings) -> Evaluator:
    race = race_of(settings)
    return run.ranker(settings.rank_by) if race is None else run.scorer(race=race)
