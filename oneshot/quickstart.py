"""The main job in one call: digits to three tuned subnets and an honest table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from oneshot.constraints import extremes
from oneshot.diagnostics import ranking
from oneshot.progress import Bars
from oneshot.run import Run
from oneshot.searching import Result
from oneshot.settings import RunSettings, SearchSettings
from oneshot.space import Arch
from oneshot.supernet import Weights

TRAINING = RunSettings(steps=1000)
BUDGET = 320  # paths scored by the search
TUNING_STEPS, TUNING_RATE = 80, 0.03
RANKED = 30  # subnets tuned for the rank correlation


def quickstart(out: Path, seed: int, bars: Bars) -> dict[str, Any]:
    """Train, search, extract, tune and test; leave a run directory.

    Args:
      out: The run directory; a run that was interrupted goes on.
      seed: Decides everything random.
      bars: Shows progress.

    Returns:
      What result.json holds.
    """
    settings = RunSettings(**{**TRAINING.to_json(), "seed": seed})
    run = Run(out, settings, bars)
    run.train(f"oneshot quickstart --seed {seed}")
    found = run.search(SearchSettings(budget=BUDGET, seed=seed))
    start = time.perf_counter()
    subjects = _subjects(run, found, seed)
    ranked = _stratified(run, seed)
    tuned = _tune_all(run, [arch for _, arch in subjects], ranked)
    _extract(run, subjects, tuned)
    result = run.directory.update_result(
        rows=_rows(run, subjects, tuned),
        ranking=_ranking(run, ranked, tuned),
        test_opened=run.data.test_log,
        seconds={"tune": time.perf_counter() - start},
    )
    run.report()
    return result


def _subjects(run: Run, found: Result, seed: int) -> list[tuple[str, Arch]]:
    """Return (role, arch) of each row: the best at three budgets, and the baselines."""
    space, macs = run.supernet.space, run.costs.macs
    cheapest, largest = extremes(space, macs, exact=5_000)
    low, high = macs(cheapest), macs(largest)
    budgets = [round(low * (high / low) ** share, -3) for share in (0.25, 0.5, 0.75)]
    chosen = [
        (f"≤ {budget / 1e3:.0f}k", _best_within(found, budget, cheapest))
        for budget in budgets
    ]
    drawn = space.sample(np.random.default_rng([seed, 99]), 1, "paths")[0]
    return [*chosen, ("random", drawn), ("largest", largest), ("cheapest", cheapest)]


def _best_within(found: Result, budget: float, cheapest: Arch) -> Arch:
    if all(trial.costs["macs"] > budget for trial in found.trials):
        return cheapest  # a short search may have seen nothing as small
    return found.best("loss", macs=budget).path


def _stratified(run: Run, seed: int) -> list[Arch]:
    """Return distinct subnets, one from each of equal strata of multiply-adds."""
    rng = np.random.default_rng([seed, 98])
    drawn = list(dict.fromkeys(run.supernet.space.sample(rng, 20 * RANKED, "paths")))
    drawn.sort(key=run.costs.macs)
    strata = np.array_split(np.arange(len(drawn)), RANKED)
    return [drawn[int(rng.choice(stratum))] for stratum in strata]


def _tune_all(
    run: Run, subjects: Sequence[Arch], ranked: Sequence[Arch]
) -> dict[Arch, tuple[Weights, float]]:
    """Return the tuned weights of the subjects and the tuned validation loss of all."""
    archs = list(dict.fromkeys([*subjects, *ranked]))
    tuned: dict[Arch, tuple[Weights, float]] = {}
    with run.bars.phase(f"tune {len(archs)} subnets") as report:
        for i, arch in enumerate(archs):
            weights = run.tuned(arch, TUNING_STEPS, TUNING_RATE)
            loss = float(run.evaluator(weights, [arch]).loss[0])
            kept = weights if arch in subjects else run.weights
            tuned[arch] = kept, loss
            report(i + 1, len(archs))
    return tuned


def _extract(
    run: Run,
    subjects: Sequence[tuple[str, Arch]],
    tuned: dict[Arch, tuple[Weights, float]],
) -> None:
    """Save the three models, and as `best` the one of the lowest inherited loss."""
    chosen = subjects[:3]
    losses = run.evaluator(run.weights, [arch for _, arch in chosen]).loss
    with run.bars.phase("extract") as report:
        for i, (role, arch) in enumerate(chosen):
            places = [run.directory.path / "models" / f"budget{i + 1}"]
            if i == int(np.argmin(losses)):
                places.append(run.directory.best)
            for place in places:
                run.extract(arch, tuned[arch][0], place, role=role)
            report(i + 1, len(chosen))


def _rows(
    run: Run,
    subjects: Sequence[tuple[str, Arch]],
    tuned: dict[Arch, tuple[Weights, float]],
) -> list[dict[str, Any]]:
    """Return the rows of the table; the test split is opened here, once."""
    scorer = run.test_scorer("final table")
    inherited = run.evaluator(run.weights, [arch for _, arch in subjects]).rows()
    search, rows = run.directory.read("result.json", {}).get("search"), []
    for i, ((role, arch), scores) in enumerate(zip(subjects, inherited, strict=True)):
        rows.append(
            {
                "role": role,
                "chosen": i < 3,
                "search": search,
                "arch": list(arch),
                "network": run.network(arch),
                "params": run.costs.params(arch),
                "macs": run.costs.macs(arch),
                "inherited_loss": scores["loss"],
                "inherited_loss_se": scores["loss_se"],
                "inherited_accuracy": scores["accuracy"],
                "tuned_loss": tuned[arch][1],
                **run.task.headline.row(scorer(tuned[arch][0], [arch]), "tuned"),
                "test_n": scorer.n,
            }
        )
    return rows


def _ranking(
    run: Run, archs: Sequence[Arch], tuned: dict[Arch, tuple[Weights, float]]
) -> dict[str, Any]:
    """Return how far inherited losses rank subnets as tuned ones do."""
    inherited = run.evaluator(run.weights, archs).loss
    losses = np.array([tuned[arch][1] for arch in archs])
    found = ranking(
        -inherited,
        -losses,
        params=[run.costs.params(a) for a in archs],
        macs=[run.costs.macs(a) for a in archs],
        depth=[run.costs.depth(a) for a in archs],
        drawn=f"one from each of {len(archs)} strata of multiply-adds; truth: the "
        "validation loss after tuning the inherited weights",
        ceiling=None,
    )
    pairs = [
        {
            "arch": list(arch),
            "macs": run.costs.macs(arch),
            "inherited_loss": float(before),
            "tuned_loss": float(after),
        }
        for arch, before, after in zip(archs, inherited, losses, strict=True)
    ]
    return {**found.to_json(), "words": found.words(), "pairs": pairs}


def table(result: dict[str, Any]) -> Table:
    """Return the final table of a result, for a terminal."""
    out = Table(
        title="Subnets by inherited weights, then tuned; test split opened once",
        title_justify="left",
        caption="Subnet: expansion/kernel of each block, a comma between stages. MACs: "
        "multiply-adds. Bold: the best found within a budget of them. Accuracy in %: "
        "inherited on the validation split, tuned on the test split.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    out.add_column("role", no_wrap=True)
    out.add_column("subnet", no_wrap=True)
    for name in ("params", "MACs", "inherited", "tuned (95 %)"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in result["rows"]:
        if row["role"] == "extracted":
            continue  # added later, perhaps without a test
        low, high = 100 * row["tuned_low"], 100 * row["tuned_high"]
        out.add_row(
            row["role"],
            row["network"],
            f"{row['params']:,}",
            f"{row['macs'] / 1e3:,.0f}k",
            f"{100 * row['inherited_accuracy']:.1f}",
            f"{100 * row['tuned_accuracy']:.1f} ({low:.1f}–{high:.1f})",
            style="bold" if row["chosen"] else "",
        )
    return out
