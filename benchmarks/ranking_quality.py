"""How well supernets rank networks whose truth is known, by recipe.

    python -m benchmarks.ranking_quality --recipes uniform fair sandwich \\
        --json benchmarks/results/ranking_quality.json

Each recipe trains a supernet, then scores every network of the truth by its loss on
held-out data by inherited weights, training examples recalibrating BatchNorm. The space
is NAS-Bench-Macro's, its truth the table's mean accuracy of three seeds of the
canonical codes, its data CIFAR-10: 10,000 images to train on, 2,000 test images to rank
by. A recipe may take 45 minutes on two cores, training and scoring together (`--images
50000`: 2.5 hours). `--space` names others (`benchmarks.ranking_spaces`). Recipes are
compared on networks fixed by seed 0 (`choosing`), 1,000 of NAS-Bench-Macro's, and
reported on the others and on all.

A run that is stopped goes on where it was: checkpoints, and the scores of finished
recipes, are kept under `--directory`. The table is of all recipes with scores there.
What was kept of a recipe that has been changed since is refused. `--short 0.2` trains a
fifth as long and scores the networks to choose by only, on a quarter of the examples,
to try recipes; its scores and results are kept apart.

The images that rank NAS-Bench-Macro are of the test set that its truth was measured on,
so its noise is partly shared; subnets trained with other images would be told apart a
little less well.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from benchmarks import results
from benchmarks.ranking_recipes import RECIPES, WINDOWED, Recipe, Settings, digest
from benchmarks.ranking_spaces import SPACES, RankedSpace
from benchmarks.ranking_table import best_of, collect, show
from benchmarks.ranking_trainers import trainer_of
from benchmarks.scoring_rules import scoring_metrics
from oneshot import checkpoint
from oneshot.augment import compose, window
from oneshot.averaging import averages
from oneshot.data import Data, Split
from oneshot.evaluate import Evaluator
from oneshot.fitting import fit
from oneshot.relaxed import RelaxedTrainer
from oneshot.train import Trainer, TrainState

SAVE_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Run:
    """One recipe in one space with one seed, and where it is kept.

    Attributes:
      name, recipe: Which recipe.
      space: Which space.
      settings: What it trains with.
      data: What on.
      seed: Of the supernet.
      directory: Where checkpoints and seconds are kept.
      console: Where progress is printed.
    """

    name: str
    recipe: Recipe
    space: RankedSpace
    settings: Settings
    data: Data
    seed: int
    directory: Path
    console: Console

    @property
    def steps(self) -> int:
        """Number of training steps."""
        large = len(self.data.train.x) > 10_000 and self.settings.steps_large > 0
        return self.settings.steps_large if large else self.settings.steps


def trained(run: Run) -> tuple[Trainer | RelaxedTrainer, TrainState]:
    """Train, from the last checkpoint if there is one; seconds add up in a file."""
    net, steps, batch = run.space.make(), run.steps, run.settings.batch
    trainer, data = trainer_of(
        run.recipe, run.settings, net, run.data, steps, run.space.metrics
    )
    if checkpoint.latest_step(run.directory) is None:
        state = trainer.init(run.seed, data.train.x[:batch])
    else:
        state = checkpoint.restore(run.directory, trainer)
        run.console.print(f"  goes on from step {state.step} of {steps}")
    clock, saved = _Clock(run.directory / "seconds.json"), time.monotonic()
    for last, rows in _states(run, trainer, state, data):
        state = last
        if state.step == steps or time.monotonic() - saved > SAVE_SECONDS:
            checkpoint.save(run.directory, net, state)
            clock.add()
            saved = time.monotonic()
            loss = np.mean([row["loss"] for row in rows])
            run.console.print(f"  step {state.step} of {steps}: loss {loss:.3f}")
    return trainer, state


def _states(
    run: Run, trainer: Trainer | RelaxedTrainer, state: TrainState, data: Data
) -> Iterator[tuple[TrainState, list[dict[str, Any]]]]:
    """Train to the end, on windows first where the recipe says so."""
    size, batch = run.recipe.window, run.settings.batch
    phases = [(run.steps, data, data.train.x[:batch])]
    if size is not None:
        both = [data.augment, window(size)] if data.augment else [window(size)]
        small = dataclasses.replace(data, augment=compose(*both))
        x = data.train.x[:batch, :size, :size]
        phases.insert(0, (round(WINDOWED * run.steps), small, x))
    for last, own, x in phases:
        if state.step >= last:
            continue
        if isinstance(trainer, Trainer):  # a relaxed arch's one program compiles itself
            trainer.warm_up((x, data.train.y[:batch]))
        for state, rows in fit(trainer, state, own, last, batch_size=batch):
            yield state, rows


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


def scored(run: Run, archs: np.ndarray) -> Path:
    """Train and score one recipe unless that is done; return the file of its scores."""
    file = run.directory.with_suffix(".npz")
    run.directory.mkdir(exist_ok=True)
    which = digest(run.recipe, run.settings, run.name)
    _check_recipe(run.directory / "recipe.json", which)
    if file.exists():
        return file
    run.console.print(f"{run.name}, seed {run.seed}: {run.recipe.words}")
    trainer, state = trained(run)
    clock = _Clock(run.directory / "seconds.json")
    weights = state.weights if run.recipe.average is None else averages(state)
    metrics = scoring_metrics(run.space.metrics)
    evaluator = Evaluator(
        trainer.supernet, run.data, loss=metrics, engine=trainer.engine
    )
    found = evaluator(weights, [tuple(arch) for arch in archs.tolist()])
    seconds = clock.add()
    arrays = {name: found.mean(name) for name in metrics}
    if isinstance(trainer, RelaxedTrainer):
        chosen = trainer.supernet.space.canonical(trainer.arch(state))
        arrays["chosen"] = np.array(chosen)
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


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", choices=SPACES, default="nb_macro")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES)
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
    if args.data is not None:
        os.environ["ONESHOT_DATA"] = str(args.data)
    space = SPACES[args.space]
    truth, data = space.truth(args.data), space.data(args.data, args.images)
    if args.short < 1:
        truth = truth.only(truth.choosing)
        x, y = data.validate
        few = len(x) // 4
        data = dataclasses.replace(data, validate=Split(x[:few], y[:few]))
    length = f"short{args.short:g}" if args.short < 1 else "full"
    directory = args.directory / args.space / length
    directory.mkdir(parents=True, exist_ok=True)
    for name in space.recipes if args.recipes is None else args.recipes:
        for seed in args.seeds:
            recipe = RECIPES[name]
            run = Run(
                name,
                recipe,
                space,
                recipe.settings(space.settings, space.make(), args.short),
                # A copy of its own, or images of every recipe would stay alive.
                dataclasses.replace(data, _on_device={}),
                seed,
                directory / f"{name}-{len(data.train.x)}-{seed}",
                console,
            )
            scored(run, truth.archs)
            jax.clear_caches()
    found = collect(directory, len(data.train.x), truth)
    for own in found:
        console.print(f"{own.name}: {own.rankings['all'].words()}\n", soft_wrap=True)
    console.print(show(found, truth))
    label = "" if args.images == 10_000 else f"{args.images // 1000}k_"
    flat = {label + k: v for own in found for k, v in own.row(truth).items()}
    flat |= {f"{label}images": len(data.train.x)}
    flat |= best_of(found, truth, args.images)
    results.write(args.json, _before(args.json) | flat)


def _before(path: Path | None) -> dict[str, Any]:
    """Return what other runs have written, which this one adds to."""
    if path is None or not path.exists():
        return {}
    stale = results.environment()
    return {k: v for k, v in json.loads(path.read_text()).items() if k not in stale}


if __name__ == "__main__":
    main()
