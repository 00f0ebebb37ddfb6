"""How well supernets rank NAS-Bench-Macro's 3,969 distinct networks, by recipe.

    python -m benchmarks.ranking_quality --recipes uniform fair sandwich \\
        --json benchmarks/results/ranking_quality.json

Each recipe trains a supernet on CIFAR-10's training images, then scores every network
by its loss on 2,000 test images by inherited weights, 512 training images
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

from benchmarks import macro_truth, results
from benchmarks.ranking_data import images
from benchmarks.ranking_recipes import RECIPES, Recipe, digest, shorter
from benchmarks.ranking_table import best_of, report, row, show
from oneshot import checkpoint
from oneshot.averaging import averages
from oneshot.cost_tables import CostTables
from oneshot.data import Data
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
            "--short is a share above 0 and at most 1, for recipes that are being "
            f"tried: their results are printed and not written, but got {args.short}"
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
