"""How well supernets rank NAS-Bench-Macro's 3,969 distinct networks, by recipe.

    python -m benchmarks.ranking_quality --recipes uniform fair sandwich \\
        --json benchmarks/results/ranking_quality.json

Each recipe trains a supernet on CIFAR-10's training images, then scores every network
by its loss on 2,000 test images by inherited weights, 1,000 training images
recalibrating BatchNorm; the truth is the table's mean accuracy of three seeds, of the
canonical code. A recipe may take 45 minutes on two cores, training and scoring
together (`--images 50000`: 2.5 hours). Recipes are compared on 1,000 networks fixed by
seed 0 (`choosing`), and reported on the other 2,969 and on all.

A run that is stopped goes on where it was: checkpoints, and the scores of finished
recipes, are kept under `--directory`. The table is of all recipes with scores there.
What was kept of a recipe that has been changed since is refused. `--short 0.2` trains a
fifth as long, to try recipes; its scores and results are kept apart.

The images that rank are of the test set that the truth was measured on, so its noise is
partly shared; subnets trained with other images would be told apart a little less well.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import macro_truth, results
from benchmarks.ranking_data import images
from benchmarks.ranking_recipes import RECIPES, Recipe, digest, shorter
from oneshot import checkpoint
from oneshot.averaging import averages
from oneshot.cost_tables import CostTables
from oneshot.data import Data
from oneshot.diagnostics import Ranking
from oneshot.evaluate import Evaluator
from oneshot.fitting import fit
from oneshot.losses import CLASSIFICATION
from oneshot.spaces import nb_macro
from oneshot.train import Trainer, TrainState

SAVE_SECONDS = 120


def trained(
    recipe: Recipe, data: Data, seed: int, directory: Path, console: Console
) -> tuple[Trainer, TrainState]:
    """Train, from the last checkpoint if there is one; seconds add up in a file."""
    net, x = nb_macro(), data.train.x[:1]
    costs, steps = CostTables(net, x), recipe.steps(len(data.train.x))
    trainer = Trainer(
        net,
        recipe.draw(net, costs),
        recipe.optimizer(),
        recipe.schedule(steps, costs),
        loss=CLASSIFICATION,
        clip_norm=5.0,
        teaching=recipe.teaching,
    )
    if checkpoint.latest_step(directory) is None:
        state = trainer.init(seed, data.train.x[: recipe.batch])
    else:
        state = checkpoint.restore(directory, trainer)
        console.print(f"  goes on from step {state.step} of {steps}")
    clock = _Clock(directory / "seconds.json")
    trainer.warm_up((data.train.x[: recipe.batch], data.train.y[: recipe.batch]))
    saved = time.monotonic()
    for last, rows in fit(trainer, state, data, steps, batch_size=recipe.batch):
        state = last
        if state.step == steps or time.monotonic() - saved > SAVE_SECONDS:
            checkpoint.save(directory, net, state)
            clock.add()
            saved = time.monotonic()
            loss = np.mean([row["loss"] for row in rows])
            console.print(f"  step {state.step} of {steps}: loss {loss:.3f}")
    return trainer, state


class _Clock:
    """Seconds of wall and of process time, added up over interruptions."""

    def __init__(self, path: Path):
        self.path = path
        self._last = time.perf_counter(), time.process_time()

    def add(self) -> dict[str, float]:
        now = time.perf_counter(), time.process_time()
        old = {"wall": 0.0, "cpu": 0.0}
        if self.path.exists():
            old = json.loads(self.path.read_text())
        spent = (b - a for a, b in zip(self._last, now, strict=True))
        new = {k: v + s for (k, v), s in zip(old.items(), spent, strict=True)}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(new))
        part.replace(self.path)
        self._last = now
        return new


def scored(
    name: str, recipe: Recipe, data: Data, seed: int, directory: Path, console: Console
) -> Path:
    """Train and score one recipe unless that is done; return the file of its scores."""
    file = directory / f"{name}-{len(data.train.x)}-{seed}.npz"
    run = directory / file.stem
    run.mkdir(exist_ok=True)
    _check_recipe(run / "recipe.json", digest(recipe, name))
    if file.exists():
        return file
    # A copy of its own, or programs and images of every recipe would stay alive.
    data = dataclasses.replace(data, _on_device={})
    console.print(f"{name}, seed {seed}: {recipe.words}")
    trainer, state = trained(recipe, data, seed, run, console)
    clock = _Clock(run / "seconds.json")
    weights = state.weights if recipe.average is None else averages(state)
    archs = [tuple(a) for a in np.load(_archs(directory))]
    evaluator = Evaluator(
        trainer.supernet, data, loss=CLASSIFICATION, engine=trainer.engine
    )
    found = evaluator(weights, archs)
    seconds = clock.add()
    arrays = {"loss": found.loss, "accuracy": found.accuracy}
    part = file.with_suffix(".part.npz")
    where = json.dumps(results.environment())
    np.savez(part, **arrays, **seconds, steps=state.step, environment=where)
    part.replace(file)  # whole, or not at all
    return file


def _check_recipe(path: Path, found: str) -> None:
    """Raise if what is kept there is of another recipe."""
    if not path.exists():
        path.write_text(json.dumps(found))
    if (kept := json.loads(path.read_text())) != found:
        raise ValueError(
            f"{path.parent} holds a run of another recipe ({kept}, now {found}). Name "
            "another --directory, or delete it and its scores."
        )


def _archs(directory: Path) -> Path:
    return directory / "archs.npy"


def report(file: Path, truth: macro_truth.MacroTruth) -> dict[str, Ranking]:
    """Return the rankings of one recipe's scores over each part of the networks."""
    score = -np.load(file)["loss"]
    parts = {
        "choosing": (truth.choosing, "1,000 fixed by seed 0, to choose recipes by"),
        "reporting": (truth.reporting, "the other 2,969"),
        "all": (np.arange(len(score)), "all distinct networks"),
    }
    return {
        part: truth.rank(score[where], where, words)
        for part, (where, words) in parts.items()
    }


def row(name: str, found: dict[str, Ranking], file: Path) -> dict[str, Any]:
    """Return flat results of one recipe."""
    everything, rest, few = found["all"], found["reporting"], found["choosing"]
    arrays = np.load(file)
    (low, high), half = everything.interval, everything.top_half.inherited
    out = {
        "tau": everything.tau,
        "tau_low": low,
        "tau_high": high,
        "n": everything.overall.n,
        "top_half_tau": half.value,
        "top_half_low": half.low,
        "top_half_high": half.high,
        "tenth_tau": everything.top_tenth.inherited.value,
        "spearman": everything.spearman.value,
        "partial_tau": everything.partial.value,
        "partial_low": everything.partial.low,
        "choosing_tau": few.tau,
        "reporting_tau": rest.tau,
        "reporting_low": rest.interval[0],
        "reporting_high": rest.interval[1],
        "guided": RECIPES[name].guided,
        "steps": int(arrays["steps"]),
        "minutes": float(arrays["wall"]) / 60,
        "cpu_minutes": float(arrays["cpu"]) / 60,
    }
    if everything.within is not None:
        out |= {
            "within_tau": everything.within.value,
            "within_low": everything.within.low,
        }
    out |= {f"precision_{k}": v.value for k, v in everything.precision.items()}
    out |= {f"regret_{k}": v.value for k, v in everything.regret.items()}
    return {f"{name}_{key}": value for key, value in out.items()}


def best_of(
    rows: dict[str, dict[str, Any]], spread: dict[str, Any], images: int
) -> dict[str, Any]:
    """Return the results of the unguided recipe that ranks the 1,000 best.

    It is chosen by the mean over seeds, and reported of the first one.
    """
    free = [name for name in rows if not RECIPES[name].guided]
    if not free:
        return {}
    best = max(free, key=lambda name: spread[f"{name}_choosing_mean"])
    own = {k.removeprefix(f"{best}_"): v for k, v in rows[best].items()}
    if images > 10_000:
        return {"best_50k": best, "best_tau_50k": own["tau"]}
    return {
        "best": best,
        "best_tau": own["tau"],
        "best_tau_low": own["tau_low"],
        "best_tau_high": own["tau_high"],
        "best_reporting_tau": own["reporting_tau"],
        "top_half_tau": own["top_half_tau"],
        "n": own["n"],
    }


def show(rows: dict[str, dict[str, Any]], truth: macro_truth.MacroTruth) -> Table:
    """Return the table of all recipes, what ranks for free below them."""
    columns = ("recipe", "tau", "on 1,000", "top half", "partial | macs", "minutes")
    table = Table(*columns, title="Kendall's tau with NAS-Bench-Macro's truth")
    for name, found in rows.items():
        own = {k.removeprefix(f"{name}_"): v for k, v in found.items()}
        guided = " (guided)" if RECIPES[name].guided else ""
        table.add_row(
            RECIPES[name].words + guided,
            f"{own['tau']:.3f} [{own['tau_low']:.3f}, {own['tau_high']:.3f}]",
            f"{own['choosing_tau']:.3f}",
            f"{own['top_half_tau']:.3f}",
            f"{own['partial_tau']:.3f}",
            f"{own['minutes']:.1f}",
        )
    where = np.arange(len(truth.archs))
    free = truth.rank(truth.macs, where, "all")
    for field, words in (("params", "parameters"), ("macs", "multiply-adds")):
        _trivial(table, words, free, field)
    _trivial(table, "blocks that are not the identity", free, "depth")
    ceiling = free.overall.ceiling
    table.add_row("ceiling, seed against seeds", f"{ceiling:.3f}", "", "", "", "")
    return table


def _trivial(table: Table, words: str, found: Ranking, field: str) -> None:
    everything, half = (getattr(t, field) for t in (found.overall, found.top_half))
    interval = f"[{everything.low:.3f}, {everything.high:.3f}]"
    table.add_row(words, f"{everything.value:.3f} {interval}", "", f"{half.value:.3f}")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", choices=["nb_macro"], default="nb_macro")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=[*RECIPES])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--short", type=float, default=1.0)
    parser.add_argument("--data", type=Path, help="folder of data files")
    parser.add_argument("--directory", type=Path, default=Path("runs/ranking_quality"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, score, print, write."""
    args, console = arguments(argv), Console()
    if not 0 < args.short <= 1 or (args.short < 1 and args.json):
        raise SystemExit(
            "--short is a share above 0 and at most 1, of recipes that are being tried: "
            f"their results are printed and not written, but got {args.short}"
            f"{' and --json' if args.json else ''}."
        )
    truth, data = macro_truth.load(args.data), images(args.data, args.images)
    directory = args.directory / (f"short{args.short:g}" if args.short < 1 else "full")
    directory.mkdir(parents=True, exist_ok=True)
    np.save(_archs(directory), truth.archs)
    for name in args.recipes:
        recipe = RECIPES[name]
        recipe = shorter(recipe, args.short) if args.short < 1 else recipe
        for seed in args.seeds:
            scored(name, recipe, data, seed, directory, console)
            jax.clear_caches()
    rows, spread = collect(directory, args.images, truth, console)
    console.print(show(rows, truth))
    label = "" if args.images == 10_000 else f"{args.images // 1000}k_"
    flat = {label + k: v for own in rows.values() for k, v in own.items()}
    flat |= {label + k: v for k, v in spread.items()} | {f"{label}images": args.images}
    results.write(
        args.json, _before(args.json) | flat | best_of(rows, spread, args.images)
    )


def collect(
    directory: Path, number: int, truth: macro_truth.MacroTruth, console: Console
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the results of all recipes with scores, and their spread over seeds."""
    rows: dict[str, dict[str, Any]] = {}
    spread: dict[str, Any] = {}
    for name in RECIPES:
        pattern = re.compile(rf"{name}-{number}-(\d+)\.npz")
        seeds = [int(m[1]) for p in directory.iterdir() if (m := pattern.match(p.name))]
        files = [directory / f"{name}-{number}-{seed}.npz" for seed in sorted(seeds)]
        if not files:
            continue
        found = [report(file, truth) for file in files]
        rows[name] = row(name, found[0], files[0])
        taus = [rankings["all"].tau for rankings in found]
        spread[f"{name}_seeds"] = len(taus)
        few = [rankings["choosing"].tau for rankings in found]
        spread[f"{name}_choosing_mean"] = float(np.mean(few))
        spread[f"{name}_tau_mean"] = float(np.mean(taus))
        spread[f"{name}_tau_spread"] = float(np.ptp(taus))
        console.print(f"{name}: {found[0]['all'].words()}\n", soft_wrap=True)
    return rows, spread


def _before(path: Path | None) -> dict[str, Any]:
    """Return what other runs have written, which this one adds to."""
    if path is None or not path.exists():
        return {}
    stale = results.environment()
    return {k: v for k, v in json.loads(path.read_text()).items() if k not in stale}


if __name__ == "__main__":
    main()
