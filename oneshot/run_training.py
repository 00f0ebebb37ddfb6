"""The first step of a run: training, checkpointed and described in its directory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from oneshot import checkpoint
from oneshot.fitting import DivergedError, check_data, fit
from oneshot.rundir import environment
from oneshot.train import TrainState

if TYPE_CHECKING:
    from oneshot.run import Run

CHECKPOINT_EVERY, CHECKPOINT_SECONDS = 500, 60  # whichever comes first


def train(run: Run, command: str) -> TrainState:
    """Train to the end, from the last checkpoint if there is one."""
    start, s = time.perf_counter(), run.settings
    check_data(run.trainer, run.data, s.batch_size)
    batches = run.data.batches(s.seed, s.batch_size, run.trainer.engine)
    latest = checkpoint.latest_step(run.directory.checkpoints)
    if latest is None:
        state = run.trainer.init(s.seed, batches(0)[0])
    else:
        state = run.state
    _describe(run, command)  # not before: a mistake shall not hold the directory
    if state.step < s.steps:
        with run.bars.phase("compile training programs") as report:
            run.trainer.warm_up(batches(0), report)  # as augmented
        state = _train_on(run, state)
        seconds = time.perf_counter() - start
        run.directory.update_result(seconds={"train": seconds})
    return state


def _train_on(run: Run, state: TrainState) -> TrainState:
    s, directory = run.settings, run.directory
    directory.keep_metrics_before(state.step)
    saved, since = state.step, time.monotonic()
    if not state.step:  # so that there is something to go back to
        checkpoint.save(directory.checkpoints, run.supernet, state)
    with run.bars.phase("train supernet") as report:
        states = fit(run.trainer, state, run.data, s.steps, batch_size=s.batch_size)
        try:
            for state, rows in states:
                directory.add_metrics(rows)
                report(state.step, s.steps)
                due = time.monotonic() - since >= CHECKPOINT_SECONDS
                due |= state.step - saved >= CHECKPOINT_EVERY
                if due or state.step == s.steps:
                    checkpoint.save(directory.checkpoints, run.supernet, state)
                    saved, since = state.step, time.monotonic()
        except DivergedError as error:
            directory.add_metrics(error.rows)
            raise
    return state


def _describe(run: Run, command: str) -> None:
    space, directory = run.supernet.space, run.directory
    directory.write("space.json", {"fingerprint": space.fingerprint, **space.to_json()})
    if not directory.exists():
        directory.write("environment.json", environment())
    directory.write("config.json", {"run": run.settings.to_json()})
    directory.update_result(
        name=directory.path.name,
        seed=run.settings.seed,
        command=command,
        data={"name": run.settings.data, "fingerprints": run.data.fingerprint},
        space={
            "name": run.settings.supernet,
            "size": space.size,
            "distinct": space.num_distinct,
            "fingerprint": space.fingerprint,
            "choices": [{"name": c.name, "options": c.options} for c in space.choices],
        },
        headline=run.task.headline.to_json(),
    )
