"""A short loop over training steps, which checks data before and losses on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax

from oneshot.augment import as_augment
from oneshot.data import Batches, Data
from oneshot.engine import Engine
from oneshot.losses import Metric, check_labels, check_shape
from oneshot.reweighting import Drawn, plain
from oneshot.step_metrics import StepMetrics, host_metrics
from oneshot.strategies import WithExamples
from oneshot.supernet import Supernet
from oneshot.train import TrainState


class Trains(Protocol):
    """What the loop needs of a trainer: `Trainer`, `RelaxedTrainer`, or your own."""

    supernet: Supernet
    metrics: dict[str, Metric]
    engine: Engine

    def step(self, state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]: ...


class DivergedError(FloatingPointError):
    """Training met a loss that is not finite.

    Attributes:
      rows: Metrics of the steps up to there that were not handed over yet.
    """

    rows: Sequence[dict[str, Any]] = ()


def fit(
    trainer: Trains,
    state: TrainState,
    data: Data,
    steps: int,
    *,
    batch_size: int = 64,
    every: int = 20,
    accumulate: int = 1,
) -> Iterator[tuple[TrainState, list[dict[str, Any]]]]:
    """Train up to step `steps`, handing over state and metrics as it goes.

    Args:
      trainer: Takes the steps.
      state: Where to go on from.
      data: Batches come from its training split, in an order given by `state.seed`;
        or as the trainer's strategy draws them, if it is a `WithExamples`.
      steps: Total number of steps, those before `state` included.
      batch_size: Examples a step.
      every: How often metrics are fetched and the loss is checked, in steps.
      accumulate: Batches in a step, one after the other, their gradients averaged; for
        batches that do not fit the memory at once.

    Yields:
      (state, metrics of the steps since the last time, oldest first). Save the state,
      or stop, as you like. Its arrays are given up to the next steps: to keep weights,
      copy them with `jax.tree.map(jnp.copy, state.weights)`.

    Raises:
      DivergedError: If a loss is not finite; what was saved before is kept.
      ValueError: If labels fall outside the head's classes, the loss is not one number
        an example, `every` or `accumulate` is below 1, or the strategy draws examples
        and is of another number of them, or several batches a step were asked of it.

    Example:
      >>> for state, rows in fit(trainer, state, data, steps=1000):
      ...     print(rows[-1]["loss"])
    """
    if accumulate < 1 or every < 1:
        raise ValueError(
            "`accumulate` counts batches and `every` steps, both at least 1, but got "
            f"{accumulate} and {every}."
        )
    check_data(trainer, data, batch_size)
    batches = data.batches(state.seed, batch_size, trainer.engine)
    drawing = _drawing(trainer, data, accumulate)
    pending: list[StepMetrics] = []
    while state.step < steps:
        places = range(state.step * accumulate, (state.step + 1) * accumulate)
        if drawing is None:
            several = [batches(i) for i in places]
        else:
            several = [_drawn(drawing, state, batches)]
        state, metrics = trainer.step(state, several if accumulate > 1 else several[0])
        pending.append(metrics)
        if len(pending) == every or state.step == steps:
            rows = host_metrics(pending)
            _check_finite(rows)
            pending = []
            yield state, rows


def _drawing(trainer: Trains, data: Data, accumulate: int) -> WithExamples | None:
    """Return the strategy if it draws the examples of a batch as well."""
    strategy = getattr(trainer, "strategy", None)
    if not isinstance(strategy, WithExamples):
        return None
    if accumulate > 1:
        raise ValueError(
            "A strategy that draws examples observes one batch a step, but `accumulate`"
            f" asks for {accumulate}. Leave it at 1."
        )
    if strategy.examples.examples != len(data.train.x):
        raise ValueError(
            f"The strategy draws from {strategy.examples.examples} examples, but the "
            f"training split has {len(data.train.x)}. Build it with "
            "DataImportance(examples=len(data.train.x), ...)."
        )
    return strategy


def _drawn(
    strategy: WithExamples, state: TrainState, batches: Batches
) -> tuple[Any, Any]:
    """Return the batch that a strategy draws, with the weights of its examples."""
    now = state.strategy, state.seed, state.step
    places, weights = strategy.draw(*now, batches.size)
    x, y = batches.take(places, state.step)
    return x, Drawn(y, *batches.put((weights, places.astype("int32")), "data"))


def check_data(trainer: Trains, data: Data, batch_size: int) -> None:
    """Raise if labels do not fit the head, see `check_labels`, or the loss is not one
    number an example.

    Those that an arch is trained on (`RelaxedTrainer`) are looked at as well.
    """
    x = jax.ShapeDtypeStruct((batch_size, *data.train.x.shape[1:]), data.train.x.dtype)
    outputs = trainer.supernet.reachable(x)[-1].out
    search = getattr(trainer, "search", None)
    other = () if search is None else (search.train,)
    loss = plain(trainer.metrics["loss"])
    for split in (data.train, data.validate, *other):
        check_labels(outputs, split.y, loss)
    check_shape("loss", loss, outputs, _batch_targets(data, x))


def _batch_targets(data: Data, x: jax.ShapeDtypeStruct) -> Any:
    """Return abstract targets of a batch x, as its augmentation leaves them."""
    y = jax.ShapeDtypeStruct((x.shape[0], *data.train.y.shape[1:]), data.train.y.dtype)
    augment = as_augment(data.augment)
    if augment is None:
        return y
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(augment, key, x, y)[1]


def _check_finite(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if not math.isfinite(row["loss"]):
            error = DivergedError(
                f"The loss became {row['loss']} at step {row['step']}, training arch "
                f"{row['arch']} at learning rate {row['learning_rate']:.3g}. Lower the "
                "learning rate, set clip_norm (1 to 5 is usual), or check the data; "
                "then go on from the last checkpoint."
            )
            error.rows = rows
            raise error
