"""A trainer that takes one step of a given arch at each call, and waits for it."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import jax
import optax

from benchmarks.networks import Network
from oneshot.strategies import Fixed
from oneshot.train import Trainer, TrainState

SEED, RATE = 0, 0.01
optimizer = functools.partial(optax.sgd, momentum=0.9)


@dataclasses.dataclass
class Stepper:
    """A trainer and its state; calling it takes a step of an arch and waits for it."""

    trainer: Trainer
    state: TrainState
    batch: Any
    logged: Any = None  # the last step's metrics, on the device

    @staticmethod
    def make(
        network: Network, batch, execution: Any = "blocks", weights=None
    ) -> Stepper:
        """Return a stepper with a copy of weights or fresh ones, nothing compiled."""
        first = next(iter(network.archs.values()))
        trainer = Trainer(
            network.net, Fixed(first), optimizer, RATE, execution=execution
        )
        state = trainer.init(SEED, batch[0], weights)
        return Stepper(trainer, state, trainer.engine.put(batch, "data"))

    def __call__(self, arch) -> float:
        """Return the seconds until the call returned, the device still working."""
        start = time.perf_counter()
        self.state, metrics = self.trainer.step(
            self.state._replace(strategy=arch), self.batch
        )
        seconds = time.perf_counter() - start
        self.logged = metrics.logged
        jax.block_until_ready((self.state.weights, self.state.optimizer, self.logged))
        return seconds
