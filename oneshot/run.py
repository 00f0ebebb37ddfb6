"""The steps of a run over its directory: train, search, extract, report.

Each step reads what the one before left there and can be repeated: training goes on
from its last checkpoint, a search from its stored trials.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optax

from oneshot import checkpoint, run_search, run_training
from oneshot.augmentations import augmentation
from oneshot.compilation_cache import use_compilation_cache
from oneshot.cost_tables import CostTables
from oneshot.costs import Costs
from oneshot.data import Data
from oneshot.datasets import load_data
from oneshot.digest import digest
from oneshot.evaluate import Evaluator
from oneshot.extraction import Model, extract
from oneshot.factories import Factory
from oneshot.feature_scores import scoring_features
from oneshot.models import Origin, save_model
from oneshot.optimizer import adamw, muon, sgd
from oneshot.progress import Bars, Report
from oneshot.report import render
from oneshot.resources import Resources
from oneshot.run_checks import adjusted, check_content, check_same, kept, settings_of
from oneshot.rundir import RunDirectory
from oneshot.searched import is_current, last_trials, ranking_score
from oneshot.searching import Result
from oneshot.settings import SCORES, RunSettings, SearchSettings
from oneshot.space import Arch
from oneshot.strategies import Sandwich, Strategy, StrictFair, Uniform
from oneshot.supernet import Supernet, Weights
from oneshot.tasks import Task, task_of
from oneshot.train import Trainer, TrainState
from oneshot.trials import Trial, Trials
from oneshot.tuning import cosine, tuning

_OPTIMIZERS = {"sgd": sgd, "adamw": adamw, "muon": muon}


def _ignore(done: int, total: int) -> None:
    del done, total  # nobody watches


class Run:
    """One run: its settings, and what follows from them, built when first needed.

    Args:
      directory: Where it keeps its files.
      settings: What it is; None reads them from the directory.
      bars: Shows progress.

    Attributes:
      adjusted: What it does from now on otherwise than so far, in words.

    Raises:
      FileNotFoundError: If there are no settings and the directory holds no run.
      ValueError: If the directory holds a run of other settings.
    """

    def __init__(self, directory: str | Path, settings: RunSettings | None, bars: Bars):
        self.directory, self.bars = RunDirectory(directory), bars
        use_compilation_cache()
        stored, self.adjusted = self.directory.read("config.json"), ""
        if settings is None:
            stored = self.directory.require().read("config.json")
            settings = RunSettings.from_json(settings_of(self.directory, stored))
        elif stored is not None:
            own = settings_of(self.directory, stored)
            settings = kept(own, settings)
            self.adjusted = adjusted(own, settings)
            check_same(self.directory.path, own, settings, self._is_finished(settings))
        self.settings = settings

    def _is_finished(self, settings: RunSettings) -> bool:
        return checkpoint.latest_step(self.directory.checkpoints) == settings.steps

    @functools.cached_property
    def factory(self) -> Factory:
        """Builds the supernet."""
        return Factory(self.settings.supernet, json.loads(self.settings.arguments))

    @functools.cached_property
    def supernet(self) -> Supernet:
        """The supernet; an error if the directory's space is another one by now."""
        supernet = self.factory.build()
        stored = self.directory.read("space.json")
        if stored and stored["fingerprint"] != supernet.space.fingerprint:
            raise ValueError(
                f"The run in {str(self.directory.path)!r} is of another space than "
                f"{self.settings.supernet!r} builds now: its fingerprint is "
                f"{stored['fingerprint']}, this one's {supernet.space.fingerprint}. "
                "Restore the code that the run was made with, or train into another "
                "directory."
            )
        return supernet

    @functools.cached_property
    def data(self) -> Data:
        """The data; an error if it is not that which the run was trained on."""
        data, augment = (
            load_data(self.settings.data),
            augmentation(self.settings.augment),
        )
        if augment is not None:
            data = dataclasses.replace(data, augment=augment)
        stored = (self.directory.read("result.json") or {}).get("data") or {}
        check_content(self.directory.path, stored.get("fingerprints"), data)
        return data

    @functools.cached_property
    def task(self) -> Task:
        """The loss, the metrics that are scored, and the headline."""
        return task_of(self.settings)

    @functools.cached_property
    def trainer(self) -> Trainer:
        """The trainer; its programs also serve tuning."""
        s, make = self.settings, _OPTIMIZERS[self.settings.optimizer]
        return Trainer(
            self.supernet,
            self._strategy(),
            make(s.momentum, s.weight_decay),
            self._rate(s.learning_rate, s.steps),
            loss=self.task.training(s),
            clip_norm=s.clip_norm,
        )

    def _strategy(self) -> Strategy:
        s, space = self.settings, self.supernet.space
        if s.strategy == "uniform":
            return Uniform(space, s.over)
        if s.strategy == "fair":
            return StrictFair(space)
        ends = CostTables(self.supernet, self.data.train.x[:1]).ends("macs")
        return Sandwich(space, ends.smallest, ends.largest, reduce="mean", over=s.over)

    def _rate(self, highest: float, steps: int) -> optax.Schedule:
        return cosine(highest, steps, self.settings.warmup_steps(steps))

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """Scores on the validation split."""
        return self.scorer()

    def scorer(self, **options: Any) -> Evaluator:
        """Return an evaluator of the run's metrics, with the trainer's programs."""
        engine, metrics = self.trainer.engine, self.task.metrics
        return Evaluator(
            self.supernet, self.data, loss=metrics, engine=engine, **options
        )

    def ranker(self, ranked_by: str) -> Evaluator:
        """Return what gives a search the score that it minimises, and the others.

        Raises:
          ValueError: If there is no such score, or not of this task.
        """
        if ranked_by not in SCORES:
            raise ValueError(
                f"A search ranks by one of {SCORES}, but this one by {ranked_by!r}. "
                "Search again, or with the version that knows it."
            )
        return self.evaluator if ranked_by == "loss" else self._scoring_features

    @functools.cached_property
    def _scoring_features(self) -> Evaluator:
        return scoring_features(self.supernet, self.data, self.task)

    def test_scorer(self, reason: str) -> Evaluator:
        """Return an evaluator on the test split, which is opened for this reason."""
        split = self.data.open_test(reason)
        # The shape that scoring is compiled for.
        chunk = Resources(chunk=len(self.data.validate.x))
        return self.scorer(split=split, resources=chunk)

    @functools.cached_property
    def costs(self) -> Costs:
        """Parameters and multiply-adds."""
        return Costs(self.supernet, self.data.train.x[:1])

    @functools.cached_property
    def state(self) -> TrainState:
        """The state of the last checkpoint."""
        return checkpoint.restore(self.directory.checkpoints, self.trainer)

    @functools.cached_property
    def weights(self) -> Weights:
        """The trained shared weights."""
        return self.state.weights

    # --- steps --------------------------------------------------------------------

    def train(self, command: str) -> TrainState:
        """Train to the end, from the last checkpoint if there is one."""
        self.__dict__["state"] = state = run_training.train(self, command)
        return state

    def search(self, settings: SearchSettings) -> Result:
        """Search by inherited weights; trials that are stored are not scored again.

        A race is for the search alone: what is reported of a subnet that was chosen is
        its score on all images.
        """
        return run_search.search(self, settings)

    def searched(self) -> list[Trial]:
        """Return the last search's trials; none, if by other weights or other data."""
        result, trials = self._last_search()
        weights = digest(self.weights)
        evaluator = self.ranker(ranking_score(result))
        return [t for t in trials if is_current(t, result, evaluator, weights)]

    def _last_search(self) -> tuple[dict[str, Any], list[Trial]]:
        result = self.directory.read("result.json", {})
        if not self.directory.trials.is_file():
            return result, []
        with Trials(self.directory.trials) as store:
            return result, last_trials(store.all(), result)

    def tuned(
        self, arch: Arch, steps: int, learning_rate: float, report: Report = _ignore
    ) -> Weights:
        """Return the weights after tuning one arch (as they are, for 0 steps)."""
        if not steps:
            return self.weights
        weights = self.weights
        for state in tuning(
            self.trainer,
            self.weights,
            arch,
            self.data,
            steps=steps,
            learning_rate=self._rate(learning_rate, steps),
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
        ):
            weights = state.weights
            report(state.step, steps)
        return weights

    def extract(
        self, arch: Sequence[int], weights: Weights, directory: Path, **notes: Any
    ) -> Model:
        """Extract an arch and save the model."""
        arch, x = self.supernet.space.check(arch), self.data.train.x
        # The scoring programs are compiled already, and leave the same statistics.
        weights = self.evaluator.recalibrated(weights, arch)
        model = extract(self.supernet, weights, arch, x[:1], recalibrate=False)
        origin = Origin(self.factory, arch, x.shape[1:], str(x.dtype))
        save_model(directory, model, origin, **notes)
        return model

    def report(self) -> Path:
        """Write report.html from what the directory holds."""
        directory = self.directory
        result, trials = self._last_search()
        page = render(
            result,
            metrics=directory.metrics(),
            trials=[_trial_row(trial) for trial in trials],
            config=directory.read("config.json", {}),
            environment=directory.read("environment.json", {}),
        )
        directory.write_text("report.html", page)
        return directory.path / "report.html"

    def network(self, arch: Sequence[int]) -> str:
        """Return an arch in a few words, its options grouped by the layers' names."""
        groups: dict[str, list[str]] = {}
        for step in self.supernet.path(arch)[1:-1]:
            name = self.supernet.slots[step.layer].name
            option = step.module.removeprefix(name).lstrip(".")
            values = "/".join(str(value) for _, value in step.options)
            parts = groups.setdefault(name.rpartition(".")[0] or name, [])
            parts.append(" ".join(filter(None, (option, values))) or "on")
        return ", ".join(" ".join(parts) for parts in groups.values())


def _trial_row(trial: Any) -> dict[str, Any]:
    return {
        "arch": list(trial.arch),
        "scores": dict(trial.scores),
        "costs": dict(trial.costs),
        "seconds": trial.seconds,
        "status": trial.status,
        "reason": trial.reason or None,
    }
