"""The steps of a run over its directory: train, search, extract, report.

Each step reads what the one before left there and can be repeated: training goes on
from its last checkpoint, a search from its stored trials.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optax

from oneshot import checkpoint
from oneshot.algorithms import NSGA2, RandomSearch, RegularizedEvolution
from oneshot.bound import bind
from oneshot.compilation_cache import use_compilation_cache
from oneshot.constraints import Constraint, Constraints
from oneshot.costs import Costs
from oneshot.data import Data
from oneshot.datasets import load_data
from oneshot.digest import digest
from oneshot.evaluate import Evaluator
from oneshot.extraction import Model, extract
from oneshot.factories import Factory
from oneshot.models import Origin, save_model
from oneshot.progress import Bars, Report
from oneshot.report import render
from oneshot.rundir import RunDirectory, environment
from oneshot.searched import is_current, last_trials, race_of, record
from oneshot.searching import Objective, Result, search
from oneshot.settings import RunSettings, SearchSettings
from oneshot.space import Arch
from oneshot.strategies import Uniform
from oneshot.supernet import Supernet, Weights
from oneshot.train import DivergedError, Trainer, TrainState, check_data, fit
from oneshot.trials import Trial, Trials
from oneshot.tuning import cosine, tuning

CHECKPOINT_EVERY, CHECKPOINT_SECONDS = 500, 60  # whichever comes first
_ADJUSTABLE = ("learning_rate", "clip_norm")  # may change while a run goes on
_ALGORITHMS = {
    "nsga2": functools.partial(NSGA2, population_size=40),
    "evolution": functools.partial(RegularizedEvolution, population_size=40),
    "random": functools.partial(RandomSearch, over="paths"),
}


def _ignore(done: int, total: int) -> None:
    del done, total  # nobody watches


class Run:
    """One run: its settings, and what follows from them, built when first needed.

    Args:
      directory: Where it keeps its files.
      settings: What it is; None reads them from the directory.
      bars: Shows progress.

    Raises:
      FileNotFoundError: If there are no settings and the directory holds no run.
      ValueError: If the directory holds a run of other settings.
    """

    def __init__(self, directory: str | Path, settings: RunSettings | None, bars: Bars):
        self.directory, self.bars = RunDirectory(directory), bars
        use_compilation_cache()
        stored = self.directory.read("config.json")
        if settings is None:
            stored = self.directory.require().read("config.json")
            settings = RunSettings.from_json(_run_of(self.directory, stored))
        elif stored is not None:
            _check_same(self.directory.path, _run_of(self.directory, stored), settings)
        self.settings = settings

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
        """The data."""
        return load_data(self.settings.data)

    @functools.cached_property
    def trainer(self) -> Trainer:
        """The trainer; its programs also serve tuning."""
        s = self.settings

        def optimizer(lr):
            decay = optax.add_decayed_weights(s.weight_decay)
            return optax.chain(decay, optax.sgd(lr, s.momentum, nesterov=True))

        return Trainer(
            self.supernet,
            Uniform(self.supernet.space, s.over),
            optimizer,
            cosine(s.learning_rate, s.steps),
            clip_norm=s.clip_norm,
        )

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """Scores on the validation split."""
        return Evaluator(self.supernet, self.data, engine=self.trainer.engine)

    def _searching(self, settings: SearchSettings) -> Evaluator:
        race = race_of(settings)
        if race is None:
            return self.evaluator
        engine = self.trainer.engine
        return Evaluator(self.supernet, self.data, race=race, engine=engine)

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
        start, s = time.perf_counter(), self.settings
        check_data(self.trainer, self.data, s.batch_size)
        self._describe(command)
        x = self.data.train.x[: s.batch_size]
        latest = checkpoint.latest_step(self.directory.checkpoints)
        if latest is None:
            state = self.trainer.init(s.seed, x)
        else:
            state = self.state
        if state.step < s.steps:
            with self.bars.phase("compile training programs") as report:
                # Augmentation may change the targets' shape, mixing labels.
                batches = self.data.batches(s.seed, s.batch_size, self.trainer.engine)
                self.trainer.warm_up(batches(0), report)
            state = self._train_on(state)
            seconds = time.perf_counter() - start
            self.directory.update_result(seconds={"train": seconds})
        self.__dict__["state"] = state
        return state

    def _train_on(self, state: TrainState) -> TrainState:
        s, directory = self.settings, self.directory
        directory.keep_metrics_before(state.step)
        saved, since = state.step, time.monotonic()
        if not state.step:  # so that there is something to go back to
            checkpoint.save(directory.checkpoints, self.supernet, state)
        with self.bars.phase("train supernet") as report:
            states = fit(
                self.trainer, state, self.data, s.steps, batch_size=s.batch_size
            )
            try:
                for state, rows in states:
                    directory.add_metrics(rows)
                    report(state.step, s.steps)
                    due = time.monotonic() - since >= CHECKPOINT_SECONDS
                    due |= state.step - saved >= CHECKPOINT_EVERY
                    if due or state.step == s.steps:
                        checkpoint.save(directory.checkpoints, self.supernet, state)
                        saved, since = state.step, time.monotonic()
            except DivergedError as error:
                directory.add_metrics(error.rows)
                raise
        return state

    def _describe(self, command: str) -> None:
        space, directory = self.supernet.space, self.directory
        directory.write(
            "space.json", {"fingerprint": space.fingerprint, **space.to_json()}
        )
        if not directory.exists():
            directory.write("environment.json", environment())
        directory.write("config.json", {"run": self.settings.to_json()})
        directory.update_result(
            name=directory.path.name,
            seed=self.settings.seed,
            command=command,
            data={"name": self.settings.data, "fingerprints": self.data.fingerprint},
            space={
                "name": self.settings.supernet,
                "size": space.size,
                "distinct": space.num_distinct,
                "fingerprint": space.fingerprint,
                "choices": [
                    {"name": c.name, "options": c.options} for c in space.choices
                ],
            },
        )

    def search(self, settings: SearchSettings) -> Result:
        """Search by inherited weights; trials that are stored are not scored again.

        A race is for the search alone: what is reported of a subnet that was chosen is
        its score on all images.
        """
        if self.state.step < self.settings.steps:
            raise ValueError(
                f"Training stands at step {self.state.step} of {self.settings.steps}. "
                f"Finish it first: oneshot train --out {self.directory.path} with the "
                "settings it was started with."
            )
        start, space = time.perf_counter(), self.supernet.space
        limits = [("macs", settings.max_macs), ("params", settings.max_params)]
        bounds = [
            Constraint(name, getattr(self.costs, name), maximum=limit)
            for name, limit in limits
            if limit is not None
        ]
        algorithm = _ALGORITHMS[settings.algorithm](
            space, seed=settings.seed, constraints=Constraints(space, bounds)
        )
        objectives = [Objective("loss"), Objective("macs")]
        if settings.algorithm != "nsga2":
            objectives = objectives[:1]
        evaluator = self._searching(settings)
        with self.bars.phase("compile scoring programs") as report:
            evaluator.warm_up(report)
        bound, done = bind(evaluator, self.weights), 0
        with (
            Trials(self.directory.trials) as trials,
            self.bars.phase("search") as report,
        ):

            def on_trial(trial) -> None:
                nonlocal done
                if not done:  # a report of what an interrupted search left finds it
                    self.directory.update_result(**record(bound))
                done += 1
                report(done, settings.budget)

            result = search(
                algorithm,
                bound,
                objectives,
                budget=settings.budget,
                costs={"macs": self.costs.macs, "params": self.costs.params},
                trials=trials,
                batch=settings.batch,
                on_trial=on_trial,
            )
        self.directory.update_result(
            seconds={"search": time.perf_counter() - start},
            **record(bound, result.trials),
        )
        return result

    def searched(self) -> list[Trial]:
        """Return the last search's trials; none, if by other weights or other data."""
        result, trials = self._last_search()
        weights = digest(self.weights)
        now = (t for t in trials if is_current(t, result, self.evaluator, weights))
        return list(now)

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
            learning_rate=cosine(learning_rate, steps),
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


def _run_of(directory: RunDirectory, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict) or not isinstance(config.get("run"), dict):
        raise ValueError(
            f"{str(directory.path / 'config.json')!r} is not of a run: it has no "
            "'run'. Name another directory."
        )
    return config["run"]


def _check_same(path: Path, stored: dict[str, Any], settings: RunSettings) -> None:
    now = settings.to_json()
    differ = [
        f"{k} (there {stored.get(k)!r}, here {now[k]!r})"
        for k in now
        if stored.get(k) != now[k] and k not in _ADJUSTABLE
    ]
    if differ:
        raise ValueError(
            f"{str(path)!r} holds a run of other settings: {', '.join(differ)}. To go "
            "on with it, give the settings it was made with; for another run, another "
            "--out."
        )
