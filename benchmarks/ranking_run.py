"""One recipe in one space: trained, resumed, scored; what is kept of it."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import results
from benchmarks.fingerprints import fingerprint
from benchmarks.ranking_recipes import Recipe, Settings, digest
from benchmarks.ranking_spaces import RankedSpace
from benchmarks.ranking_trainers import trainer_of
from benchmarks.scoring_rules import kept, scoring_metrics
from oneshot import checkpoint
from oneshot.augment import compose, shrink
from oneshot.averaging import averages
from oneshot.data import Data
from oneshot.evaluate import Evaluator
from oneshot.features import with_features
from oneshot.fitting import fit
from oneshot.relaxed import RelaxedTrainer
from oneshot.resources import Resources
from oneshot.supernet import Weights
from oneshot.train import Trainer, TrainState

SAVE_SECONDS = 120
CHUNK = 512  # examples whose features are compared with each other
PART = 500  # networks that are scored before what was found is kept


@dataclasses.dataclass(frozen=True)
class Run:
    """One recipe in one space with one seed, and where it is kept.

    Attributes:
      name, recipe: Which recipe.
      space: Which space.
      share: How much of the budget's steps it takes.
      data: What it trains and is scored on.
      archs: Which networks are scored, [n, choices].
      seed: Of the supernet.
      directory: Where checkpoints and seconds are kept.
      scores: The file of its scores.
    """

    name: str
    recipe: Recipe
    space: RankedSpace
    share: float
    data: Data
    archs: np.ndarray
    seed: int
    directory: Path
    scores: Path

    @functools.cached_property
    def settings(self) -> Settings:
        """What it trains with."""
        return self.recipe.settings(
            self.space.settings, self.space.searched, self.share
        )

    @property
    def steps(self) -> int:
        """Number of training steps."""
        settings = self.settings
        large = len(self.data.train.x) > 10_000 and settings.steps_large > 0
        return settings.steps_large if large else settings.steps

    @property
    def digest(self) -> str:
        """What tells it from a run whose recipe, data, networks or scoring differ."""
        data = self.data
        examples = fingerprint(data.train, data.calibrate, data.validate)
        archs = self.archs.tolist()
        rules = scoring_metrics(self.space.metrics)
        return digest(self.recipe, self.settings, examples, rules, archs)

    def check(self, found: str, where: Path) -> None:
        """Raise if what is kept somewhere is of another run.

        Raises:
          ValueError: With what to do.
        """
        if found != self.digest:
            raise ValueError(
                f"{where} is of another recipe, or of other networks or ways to score "
                f"them ({found}, now {self.digest}). Name another folder, or delete it."
            )


def trained(run: Run, console: Console) -> tuple[Trainer | RelaxedTrainer, TrainState]:
    """Train, from the last checkpoint if there is one; seconds add up in a file."""
    net, steps, batch = run.space.make(), run.steps, run.settings.batch
    trainer, data = trainer_of(
        run.recipe, run.settings, net, run.data, steps, run.space.metrics
    )
    if run.recipe.shrunken and run.data.train.x.ndim != 4:
        raise ValueError(
            f"The recipe {run.name!r} shrinks images, but examples of this space are "
            f"of shape {list(run.data.train.x.shape[1:])}. Leave it out."
        )
    if checkpoint.latest_step(run.directory) is None:
        state = trainer.init(run.seed, data.train.x[:batch])
    else:
        state = checkpoint.restore(run.directory, trainer)
        console.print(f"  goes on from step {state.step} of {steps}")
    clock, saved = _Clock(run.directory / "seconds.json"), time.monotonic()
    for last, rows in _states(run, trainer, state, data):
        state = last
        if state.step == steps or time.monotonic() - saved > SAVE_SECONDS:
            checkpoint.save(run.directory, net, state)
            clock.add()
            saved = time.monotonic()
            loss = np.mean([row["loss"] for row in rows])
            console.print(f"  step {state.step} of {steps}: loss {loss:.3f}")
    return trainer, state


def _states(
    run: Run, trainer: Trainer | RelaxedTrainer, state: TrainState, data: Data
) -> Iterator[tuple[TrainState, list[dict[str, Any]]]]:
    """Train to the end, on shrunken images first where the recipe says so."""
    batch = run.settings.batch
    for last, side in run.recipe.sizes(run.steps):
        if state.step >= last:
            continue
        own, x = _of_size(data, side, batch)
        if isinstance(trainer, Trainer):  # a relaxed arch's one program compiles itself
            trainer.warm_up((x, data.train.y[:batch]))
        for state, rows in fit(trainer, state, own, last, batch_size=batch):
            yield state, rows


def _of_size(data: Data, side: float, batch: int) -> tuple[Data, np.ndarray]:
    """Return data whose images shrink to a share of their side, and such a batch."""
    x = data.train.x[:batch]
    if side == 1:
        return data, x
    pixels = round(side * x.shape[1])
    before = [] if data.augment is None else [data.augment]
    small = compose(*before, shrink(pixels))
    return dataclasses.replace(data, augment=small), x[:, :pixels, :pixels]


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


def scored(run: Run, console: Console) -> None:
    """Train and score one recipe, unless that is done.

    Raises:
      ValueError: If what is kept is of another recipe, or of other networks.
    """
    if run.scores.exists():
        scores_of(run)
        return
    run.directory.mkdir(parents=True, exist_ok=True)
    note = run.directory / "recipe.json"
    if not note.exists():
        note.write_text(json.dumps(run.digest))
    run.check(json.loads(note.read_text()), run.directory)
    console.print(f"{run.name}, seed {run.seed}: {run.recipe.words}")
    trainer, state = trained(run, console)
    clock = _Clock(run.directory / "seconds.json")
    weights = state.weights if run.recipe.average is None else averages(state)
    metrics = scoring_metrics(run.space.metrics)
    evaluator = Evaluator(
        with_features(trainer.supernet, pool=run.space.pool),
        run.data,
        loss=metrics,
        resources=Resources(chunk=CHUNK),
    )
    arrays: dict[str, Any] = kept(_means(run, evaluator, weights, clock, console))
    if isinstance(trainer, RelaxedTrainer):
        chosen = trainer.supernet.space.canonical(trainer.arch(state))
        arrays["chosen"] = np.array(chosen)
    arrays |= clock.add()
    arrays |= {"steps": state.step, "digest": run.digest}
    arrays["environment"] = json.dumps(results.environment())
    run.scores.parent.mkdir(parents=True, exist_ok=True)
    _write(run.scores, arrays)


def _means(
    run: Run, evaluator: Evaluator, weights: Weights, clock: _Clock, console: Console
) -> dict[str, np.ndarray]:
    """Return the means [n] of each metric, those that were kept before included.

    Networks are taken in the order of their codes, so that those of a part begin alike.
    """
    archs = [tuple(arch) for arch in run.archs.tolist()]
    order = sorted(range(len(archs)), key=archs.__getitem__)
    out = {name: np.empty(len(archs), np.float32) for name in evaluator.metrics}
    for start in range(0, len(order), PART):
        places = order[start : start + PART]
        where = run.directory / f"scores{start}.npz"
        if not where.exists():
            found = evaluator(weights, [archs[i] for i in places])
            _write(where, {name: found.mean(name) for name in out})
            clock.add()
            console.print(f"  scored {start + len(places)} of {len(order)}")
        with np.load(where) as kept_before:
            for name, values in out.items():
                values[places] = kept_before[name]
    return out


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a file whole, or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.replace(path)


def scores_of(run: Run) -> dict[str, np.ndarray]:
    """Return what is kept of a run's scores.

    Raises:
      ValueError: If they are of another recipe, or of other networks.
    """
    with np.load(run.scores) as arrays:
        run.check(str(arrays["digest"]), run.scores)
        return dict(arrays)
