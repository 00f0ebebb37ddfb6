"""What each command does, and what it prints."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from oneshot import profiling
from oneshot import quickstart as pipeline
from oneshot.progress import Bars
from oneshot.report.ranked import Ranked
from oneshot.run import Run
from oneshot.rundir import RunDirectory
from oneshot.searched import ranking_score
from oneshot.searching import Objective, Result
from oneshot.settings import ProfileSettings, RunSettings, SearchSettings

_TUNING_SHARE = 0.3  # of the run's highest learning rate


def quickstart(console: Console, out: Path, seed: int) -> None:
    """Run the quickstart, or show the result of a finished one."""
    directory = RunDirectory(out)
    result = directory.read("result.json", {})
    if "ranking" in result and result.get("seed") == seed:
        console.print(
            f"{out} is finished; this is its result (--out DIR for a new run)."
        )
    else:
        result = pipeline.quickstart(out, seed, Bars(console))
    console.print(pipeline.table(result))
    console.print(result["ranking"]["words"], soft_wrap=True)
    seconds = sum(result["seconds"].values())
    console.print(
        f"{seconds:.0f} s in all. Report: {out / 'report.html'}. The best model: "
        f'oneshot.load("{out / "best"}").',
        soft_wrap=True,
    )


def train(console: Console, out: Path, settings: RunSettings) -> None:
    """Train a supernet."""
    run = Run(out, settings, Bars(console))
    if run.adjusted:
        console.print(f"The run goes on with {run.adjusted}.", soft_wrap=True)
    state = run.train(_again(out, run.settings))
    run.report()
    rows = run.directory.metrics()[-50:]
    loss = sum(row["loss"] for row in rows) / max(1, len(rows))
    console.print(
        f"Trained {state.step:,} steps over {run.supernet.space.num_paths:,} paths; "
        f"mean training loss of the last {len(rows)}: {loss:.4f}. Next: oneshot search "
        f"{out}",
        soft_wrap=True,
    )


def _again(out: Path, settings: RunSettings) -> str:
    """Return the command that trains the same from nothing."""
    default = RunSettings().to_json()
    named = {k: v for k, v in settings.to_json().items() if v != default[k]}
    options = (t for k, v in named.items() for t in (f"--{k.replace('_', '-')}", v))
    return shlex.join(["oneshot", "train", "--out", str(out), *map(str, options)])


def search(
    console: Console, path: Path, settings: SearchSettings, as_json: bool = False
) -> None:
    """Search a run and print its front."""
    run = Run(path, None, _bars(console, as_json))
    result = run.search(settings)
    run.report()
    if all(trial.status == "failed" for trial in result.trials):
        raise ValueError(
            f"All {len(result.trials)} subnets failed to be scored, the first because: "
            f"{result.trials[0].reason}"
        )
    objectives = Objective(settings.rank_by), Objective("macs")
    found = Result(result.trials, objectives)
    if as_json:
        console.print_json(data=_front_json(run, found))
        return
    console.print(_front(run, found, settings))
    console.print(
        f"Next: oneshot extract {path} (the best; --arch names another, by the option "
        "indices that --json prints)",
        soft_wrap=True,
    )


def _bars(console: Console, as_json: bool) -> Bars:
    """Return bars that leave the output to what a program reads."""
    return Bars(Console(stderr=True) if as_json else console)


def _front_json(run: Run, found: Result) -> dict[str, Any]:
    rows = [
        {
            "arch": list(trial.path),
            "network": run.network(trial.arch),
            "scores": dict(trial.scores),
            "costs": dict(trial.costs),
        }
        for trial in found.front
    ]
    names = [objective.name for objective in found.objectives]
    return {"trials": len(found.trials), "minimised": names, "front": rows}


def _front(run: Run, found: Result, settings: SearchSettings) -> Table:
    ranked_by, raced = settings.rank_by, settings.race_top is not None
    table = Table(title=f"Front of {len(found.trials)} subnets", title_justify="left")
    table.add_column("subnet")
    headline = run.task.headline
    names = ["multiply-adds", "parameters", "validation loss", headline.words]
    names += ["images"] * raced + [Ranked.of(ranked_by).words] * (ranked_by != "loss")
    for name in names:
        table.add_column(name, justify="right")
    for trial in found.front:
        more = [f"{trial.scores['n']:,.0f}"] * raced
        if ranked_by != "loss":
            more.append(f"{trial.scores[ranked_by]:.4f}")
        table.add_row(
            run.network(trial.arch),
            f"{trial.costs['macs']:,.0f}",
            f"{trial.costs['params']:,.0f}",
            f"{trial.scores['loss']:.4f} ± {trial.scores['loss_se']:.4f}",
            headline.text(trial.scores[headline.metric]),
            *more,
        )
    return table


def extract(console: Console, path: Path, options: dict[str, Any]) -> None:
    """Extract a subnet of a run, tuned if asked for."""
    _check_tuning(options["tune_steps"], options["tune_rate"])
    run = Run(path, None, _bars(console, options["json"]))
    if options["test"] and "test" not in run.data.fingerprint:
        raise ValueError(
            f"The data {run.settings.data!r} has no test split. Leave out --test."
        )
    arch, chosen = options["arch"], options["arch"] is None
    arch = _best(run, options["max_macs"]) if chosen else arch
    arch = run.supernet.space.path_key(run.supernet.space.check(arch))
    with run.bars.phase("tune") as progress:
        rate = options["tune_rate"]
        rate = _TUNING_SHARE * run.settings.learning_rate if rate is None else rate
        weights = run.tuned(arch, options["tune_steps"], rate, progress)
    # Whatever may fail fails before files change, but for the log of the test split.
    scores = _scores_of(run, arch)
    before = run.directory.read("result.json", {})
    try:
        row = scores | _row(run, arch, weights, options["test"])
    finally:
        logged = [*before.get("test_opened", []), *run.data.test_log]
        run.directory.update_result(test_opened=logged)
    run.extract(arch, weights, run.directory.best, tune_steps=options["tune_steps"])
    search = before.get("search")
    # Those of the quickstart's table stay as they are.
    same = [r for r in before.get("rows", []) if _is_of(r, arch)]
    rows = [r for r in before.get("rows", []) if r not in same]
    chosen |= any(r.get("chosen") and r.get("search") == search for r in same)
    row |= {"chosen": chosen, "search": search if chosen else None}
    run.directory.update_result(rows=[*rows, row])
    run.report()
    if options["json"]:
        console.print_json(data={**row, "model": str(run.directory.best)})
        return
    console.print(
        f"Saved {run.network(arch)}: {row['params']:,} parameters, {row['macs']:,} "
        f"multiply-adds, validation loss {row['tuned_loss']:.4f} (inherited "
        f"{row['inherited_loss']:.4f}). {_ranked(run, row)}"
        f"{_tested(run, row) if options['test'] else ''}"
        f'oneshot.load("{run.directory.best}") opens it.',
        soft_wrap=True,
    )


def _check_tuning(steps: int, rate: float | None) -> None:
    if steps < 0:
        raise ValueError(f"`tune_steps` is at least 0, but got {steps}.")
    if rate is not None and not 0 <= rate < float("inf"):
        raise ValueError(f"`tune_rate` is a rate of at least 0, but got {rate}.")
    if rate is not None and not steps:
        raise ValueError(
            f"`tune_rate` is {rate}, but nothing is tuned. Ask for `tune_steps`, or "
            "leave it out."
        )


def _best(run: Run, max_macs: int | None) -> tuple[int, ...]:
    stored = [t for t in run.searched() if t.status == "done"]
    if not stored:
        raise ValueError(
            "The last search of this run has no trial that was scored by its weights "
            "as they are now. Run `oneshot search` first, or name an arch with --arch."
        )
    limits = {} if max_macs is None else {"macs": max_macs}
    name = _ranked_by(run)
    return Result(tuple(stored), (Objective(name),)).best(name, **limits).arch


def _ranked_by(run: Run) -> str:
    return ranking_score(run.directory.read("result.json", {}))


def _row(run: Run, arch: Any, weights: Any, test: bool) -> dict[str, Any]:
    inherited, metric = run.evaluator(run.weights, [arch]), run.task.headline.metric
    row = {
        "role": "extracted",
        "arch": list(arch),
        "network": run.network(arch),
        "params": run.costs.params(arch),
        "macs": run.costs.macs(arch),
        "inherited_loss": float(inherited.loss[0]),
        "inherited_loss_se": float(inherited.standard_error("loss")[0]),
        f"inherited_{metric}": float(inherited.mean(metric)[0]),
        "tuned_loss": float(run.evaluator(weights, [arch]).loss[0]),
    }
    if test:
        scorer = run.test_scorer("oneshot extract --test")
        row |= run.task.headline.row(scorer(weights, [arch]), "tuned")
        row["test_n"] = scorer.n
    return row


def _ranked(run: Run, row: Mapping[str, Any]) -> str:
    by = Ranked.of(_ranked_by(run))
    if by.score == "loss":
        return ""
    return f"The search's {by.words}: {row[f'inherited_{by.score}']:.4f}. "


def _is_of(row: Mapping[str, Any], arch: Sequence[int]) -> bool:
    return row["role"] == "extracted" and list(row["arch"]) == list(arch)


def _scores_of(run: Run, arch: Any) -> dict[str, float]:
    """Return what a row holds of the score that the last search ranked by, if that is
    not the loss: as the search found it, or would have."""
    if (name := _ranked_by(run)) == "loss":
        return {}
    known = (t.scores for t in run.searched() if t.path == arch and t.status == "done")
    found = next(known, None) or run.ranker(name)(run.weights, [arch]).rows()[0]
    return {f"inherited_{key}": found[key] for key in (name, f"{name}_se")}


def _tested(run: Run, row: dict[str, Any]) -> str:
    headline = run.task.headline
    value, low, high = (
        headline.text(row[f"tuned_{name}"]) for name in (headline.metric, "low", "high")
    )
    return f"Test {headline.words}: {value} ({low} to {high}), n = {row['test_n']:,}. "


def report(console: Console, path: Path) -> None:
    """Write the report of a run."""
    RunDirectory(path).require()
    console.print(f"Wrote {Run(path, None, Bars(console)).report()}", soft_wrap=True)


def profile(console: Console, settings: ProfileSettings) -> None:
    """Describe a space."""
    found = profiling.of_settings(settings)
    if settings.json:
        console.print_json(data=found.to_json())
        return
    console.print(profiling.table(settings.supernet, found))
    console.print(profiling.words(found), soft_wrap=True)
