"""The search loop: ask, look up, evaluate, store, tell; and its result.

Example:
  A table as the evaluator, two objectives, a store that makes the search resumable::

    def evaluate(archs):
        return [{"loss": table[arch]} for arch in archs]

    result = search(
        NSGA2(space, seed=0), evaluate, [Objective("loss"), Objective("macs")],
        budget=200, costs={"macs": macs}, trials=Trials("run/trials.sqlite"),
    )
    result.best("loss", macs=2e6)
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from oneshot import pareto
from oneshot.algorithms.base import Algorithm
from oneshot.objectives import Objective
from oneshot.space import Arch, SearchSpace
from oneshot.trials import Trial, Trials

Evaluate = Callable[[Sequence[Arch]], Sequence[Mapping[str, float]]]
Costs = Mapping[str, Callable[[Arch], float]]
_PATIENCE = 100  # asks without a new path after which the algorithm is taken as done


@dataclasses.dataclass(frozen=True)
class Result:
    """What a search found.

    Args:
      trials: Every distinct path asked, in order, failed ones included.
      objectives: What was searched for, in the order of the columns of `values`.
    """

    trials: tuple[Trial, ...]
    objectives: tuple[Objective, ...]

    @property
    def values(self) -> np.ndarray:
        """Objective values [n, m], minimised; NaN in rows that failed."""
        rows = [[o.minimised(t) for o in self.objectives] for t in self.trials]
        table = np.array(rows, float).reshape(len(rows), len(self.objectives))
        table[~np.isfinite(table).all(axis=1)] = np.nan
        return table

    @property
    def front(self) -> list[Trial]:
        """The trials that no other dominates, the best of the first objective first."""
        values = self.values
        best = sorted(pareto.front(values), key=lambda i: tuple(values[i]))
        return [self.trials[i] for i in best]

    @property
    def history(self) -> np.ndarray:
        """Best value so far [n, m] of each objective, in its own direction."""
        signs = [1.0 if o.direction == "min" else -1.0 for o in self.objectives]
        return np.fmin.accumulate(self.values, axis=0) * signs  # fmin passes over NaN

    def best(self, objective: str | Objective | None = None, **limits: float) -> Trial:
        """Return the best trial of one objective within limits on others.

        Args:
          objective: An objective, or the name of one searched for, of the loss or of a
            cost; the first objective if None.
          **limits: Bounds, themselves included, by such names. A maximised objective
            has to be at least its bound, all else at most.

        Raises:
          ValueError: If no trial fits, a name is unknown, or it is of a score that was
            not searched for, so that nobody said whether more of it is better.
        """
        if objective is None:
            objective = self.objectives[0]
        elif isinstance(objective, str):
            objective = self._named(objective)
        done = [t for t in self.trials if math.isfinite(objective.value(t))]
        fitting = done
        for name, bound in limits.items():
            limit = self._named(name)
            most = bound if limit.direction == "min" else -bound
            fitting = [t for t in fitting if limit.minimised(t) <= most]
        if not fitting:
            raise ValueError(self._none_fits(done, limits))
        return min(fitting, key=objective.minimised)

    def _named(self, name: str) -> Objective:
        """Return the objective of a name that tells in which direction it is better."""
        known = {o.name: o for o in self.objectives}
        if name in known:
            return known[name]
        if name != "loss" and any(name in t.scores for t in self.trials):
            raise ValueError(
                f"{name!r} was not searched for, so whether more of it is better is "
                f"not known. Say so by Objective({name!r}, direction=...), 'min' or "
                "'max': pass it in place of the name; for a limit, ask "
                "Result(found.trials, (*found.objectives, that))."
            )
        return Objective(name)

    def _none_fits(self, done: Sequence[Trial], limits: Mapping[str, float]) -> str:
        if not done:
            reasons = Counter(t.reason for t in self.trials if t.reason).most_common(1)
            why = f", most often because: {reasons[0][0]}" if reasons else ""
            return (
                f"None of the {len(self.trials)} trials succeeded{why}. Mend the "
                "evaluator, call `Trials.forget_failed()` and search again."
            )
        found = []
        for name, bound in limits.items():
            values = [self._named(name).value(t) for t in done]
            found.append(
                f"{name} (limit {bound:,.6g}) goes from {min(values):,.6g} to "
                f"{max(values):,.6g}"
            )
        return (
            f"None of the {len(done)} trials keeps all limits: {'; '.join(found)}. "
            "Loosen a limit, or search with it as a constraint."
        )


def search(
    algorithm: Algorithm,
    evaluate: Evaluate,
    objectives: Sequence[Objective],
    *,
    budget: int,
    costs: Costs | None = None,
    trials: Trials | None = None,
    batch: int = 16,
    on_trial: Callable[[Trial], None] | None = None,
) -> Result:
    """Search until `budget` distinct paths were asked or none is left.

    A search is resumed by calling it again with a new algorithm of the same seed, the
    same batch and the same store: what is stored is told again and not evaluated again.
    `budget` may then be larger.

    Args:
      algorithm: What asks and is told. Hard constraints are its own.
      evaluate: `evaluate(archs) -> [{score name: value}]`, one mapping for each arch.
        Its attributes `weights_digest` and `settings_digest`, where it has them, are
        part of the key of a stored trial; a function without them counts as the same
        function for ever. An exception makes it be called again with each arch alone;
        an arch that fails alone is a failed trial, and the search goes on.
      objectives: One or more; they become the columns of the values told.
      budget: Number of distinct paths, stored ones included.
      costs: Functions of a path key by name; their values are kept with the trial.
      trials: The store; without one, trials are kept in memory.
      batch: How many archs to ask and evaluate at once.
      on_trial: Called with each trial in order, stored ones included.

    Returns:
      The trials and what can be read from them.

    Raises:
      ValueError: If there is no objective, one needs a score that is not measured, the
        evaluator is on the test split, or the store is of another space.
      InfeasibleError: If no arch keeps the algorithm's constraints.
    """
    _check(evaluate, objectives, batch)
    if trials is None:
        with Trials(":memory:") as trials:
            return search(
                algorithm, evaluate, objectives, budget=budget, costs=costs,
                trials=trials, batch=batch, on_trial=on_trial,
            )  # fmt: skip
    trials.bind(algorithm.space)
    scorer = _Scorer(algorithm.space, evaluate, costs or {}, trials)
    seen: dict[Arch, Trial] = {}
    idle = 0
    while len(seen) < budget and idle < _PATIENCE:
        archs = algorithm.ask(min(batch, budget - len(seen)))
        if not archs:
            break
        paths = [algorithm.space.path_key(arch) for arch in archs]
        new: dict[Arch, Arch] = {}
        for path, arch in zip(paths, archs, strict=True):
            if path not in seen:
                new.setdefault(path, arch)
        idle = 0 if new else idle + 1
        for trial in scorer(new, first_step=len(seen)):
            seen[trial.path] = trial
            if on_trial is not None:
                on_trial(trial)
        told = Result(tuple(seen[p] for p in paths), tuple(objectives))
        algorithm.tell(archs, told.values)
    return Result(tuple(seen.values()), tuple(objectives))


@dataclasses.dataclass(frozen=True)
class _Scorer:
    """Turns new paths into trials: from the store where it has them, else evaluated."""

    space: SearchSpace
    evaluate: Evaluate
    costs: Costs
    trials: Trials

    def __call__(self, new: Mapping[Arch, Arch], first_step: int) -> list[Trial]:
        digests = _digests(self.evaluate)
        stored = self.trials.lookup(new, **digests)
        missing = [arch for path, arch in new.items() if path not in stored]
        start = time.perf_counter()
        outcomes = dict(zip(missing, _outcomes(self.evaluate, missing), strict=True))
        seconds = (time.perf_counter() - start) / max(len(missing), 1)
        out, changed = [], []
        for step, (path, arch) in enumerate(new.items(), start=first_step):
            if path in stored:
                trial = dataclasses.replace(stored[path], arch=arch, step=step)
            else:
                trial = Trial(
                    arch, path, self.space.canonical(arch), seconds=seconds, step=step,
                    **_fields(outcomes[arch]), **digests,
                )  # fmt: skip
            priced = self._with_costs(trial)
            if path not in stored or priced is not trial:
                changed.append(priced)
            out.append(priced)
        if changed:
            self.trials.add(changed)
        return out

    def _with_costs(self, trial: Trial) -> Trial:
        # Measured costs, such as a latency, are kept as they were stored.
        missing = {n: fn for n, fn in self.costs.items() if n not in trial.costs}
        if not missing or trial.status == "failed":
            return trial
        try:
            found = {name: float(fn(trial.path)) for name, fn in missing.items()}
        except Exception as error:
            reason = f"a cost failed: {type(error).__name__}: {error}"
            return dataclasses.replace(trial, status="failed", reason=reason)
        return dataclasses.replace(trial, costs={**trial.costs, **found})


def _outcomes(
    evaluate: Evaluate, archs: Sequence[Arch]
) -> list[dict[str, float] | Exception]:
    """Return scores or the exception for each arch; one bad arch costs only itself."""
    if not archs:
        return []
    try:
        rows = list(evaluate(archs))
        if len(rows) != len(archs):
            raise ValueError(
                f"the evaluator returned {len(rows)} results for {len(archs)} archs"
            )
        return [{str(k): float(v) for k, v in row.items()} for row in rows]
    except Exception as error:  # KeyboardInterrupt passes
        if len(archs) == 1:
            return [error]
    return [outcome for arch in archs for outcome in _outcomes(evaluate, [arch])]


def _fields(outcome: dict[str, float] | Exception) -> dict[str, Any]:
    if isinstance(outcome, Exception):
        return {"status": "failed", "reason": f"{type(outcome).__name__}: {outcome}"}
    return {"scores": outcome}


def _digests(evaluate: Evaluate) -> dict[str, Any]:
    names = ("weights_digest", "settings_digest")
    return {name: str(getattr(evaluate, name, "")) for name in names}


def _check(evaluate: Evaluate, objectives: Sequence[Objective], batch: int) -> None:
    listed = objectives if isinstance(objectives, Sequence) else ()
    if not listed or not all(isinstance(o, Objective) for o in listed):
        raise ValueError(
            "A search needs a list of objectives, such as [Objective('loss')], but got "
            f"{objectives!r}."
        )
    if batch < 1:
        raise ValueError(f"A search needs a `batch` of at least 1, but got {batch}.")
    if str(getattr(evaluate, "split", "")).lower().startswith("test"):
        raise ValueError(
            "The evaluator scores on the test split, which a search must not see, or "
            "its final report is worthless. Build one on the validation split."
        )
