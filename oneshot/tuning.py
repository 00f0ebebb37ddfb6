"""Tuning and retraining one subnet through the engine that trained the supernet."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import optax

from oneshot.data import Data
from oneshot.fitting import fit
from oneshot.strategies import Fixed
from oneshot.supernet import Weights
from oneshot.train import Trainer, TrainState


def tune(
    trainer: Trainer,
    weights: Weights,
    arch: Sequence[int],
    data: Data,
    *,
    steps: int,
    learning_rate: float | optax.Schedule,
    batch_size: int = 64,
    seed: int = 0,
) -> Weights:
    """Train one subnet on its own, from given weights.

    It runs the trainer's programs, so that tuning many subnets compiles nothing new; a
    plain loop over the extracted model does the same. From fresh weights
    (`supernet.init`) it is stand-alone training.

    Args:
      trainer: Any trainer of the supernet; its optimizer and loss are used.
      weights: Where to start from, copied; shared weights, or fresh ones.
      arch: The subnet.
      data: Batches come from its training split.
      steps: Number of steps.
      learning_rate: A number or an optax schedule of the tuning step.
      batch_size: Examples a step.
      seed: Decides batch order, augmentation and dropout.

    Returns:
      Weights in which the modules on the path of `arch` are tuned. Their BatchNorm
      statistics are running averages: recalibrate, as `Evaluator` and `extract` do.

    Raises:
      DivergedError: If a loss is not finite.

    Example:
      >>> how = {"steps": 200, "learning_rate": 0.01}
      >>> tuned = tune(trainer, state.weights, arch, data, **how)
      >>> model = extract(net, tuned, arch, data.calibrate.x)
    """
    states = tuning(
        trainer,
        weights,
        arch,
        data,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
    )
    for state in states:
        weights = state.weights
    return weights


def tuning(
    trainer: Trainer,
    weights: Weights,
    arch: Sequence[int],
    data: Data,
    *,
    steps: int,
    learning_rate: float | optax.Schedule,
    batch_size: int = 64,
    seed: int = 0,
) -> Iterator[TrainState]:
    """Tune as `tune` does, yielding the state every few steps, to show or to save."""
    arch = trainer.supernet.space.check(arch)
    own = trainer.with_strategy(Fixed(arch), learning_rate)
    x = jax.ShapeDtypeStruct((batch_size, *data.train.x.shape[1:]), data.train.x.dtype)
    state = own.init(seed, x, weights)
    for state, _ in fit(own, state, data, steps, batch_size=batch_size):
        yield state


@functools.cache  # one schedule, one compiled program
def cosine(rate: float, steps: int, warmup: int = 0) -> optax.Schedule:
    """Return a learning rate that falls from `rate` to 0 as a half cosine.

    Args:
      rate: The highest.
      steps: After how many it is 0.
      warmup: Steps at the start in which it rises to `rate` in equal parts.
    """
    fall = optax.cosine_decay_schedule(jnp.float32(rate), steps - warmup)
    if not warmup:
        return fall
    rise = optax.linear_schedule(rate / warmup, rate, max(1, warmup - 1))
    return optax.join_schedules([rise, fall], [warmup])
