"""What a training step is given besides weights and examples, on the device.

Numbers of the host would be transferred implicitly, and each anew; here they are put on
the device once, and rate and random key of a step come from one small program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from oneshot.placement import Placement
from oneshot.randomness import DROPOUT, stream_key
from oneshot.rates import ComplexityAware
from oneshot.strategies import Plan

_MOST = 1000  # scalars that are kept: importance weights differ at each step

Rate = float | optax.Schedule


class StepInputs:
    """Learning rates, random keys and scalars of a trainer's steps.

    Trainers of one engine share it: a schedule is compiled once.

    Args:
      placement: Where they go.
    """

    def __init__(self, placement: Placement):
        self._place = placement
        self._programs: dict[Any, Callable] = {}
        self._scalars: dict[float, Any] = {}
        self._keys: dict[int, Any] = {}
        self._folding: Callable | None = None

    def rate_and_key(self, rate: Rate, seed: int, step: int, plan: Plan) -> Any:
        """Return learning rate and random key of a step, on the device.

        Args:
          rate: A number, a schedule of the step, or one of step and arch.
          seed: Of the run.
          step: Steps before it.
          plan: Its paths; the mean of their exponents counts where the rate asks.
        """
        arguments = [self._key(seed), self._place.put(np.int32(step))]
        if isinstance(rate, ComplexityAware):
            found = [rate.exponent(planned.arch) for planned in plan]
            arguments.append(self._place.put(np.float32(np.mean(found))))
        return self._program(rate)(*arguments)

    def compile(self, rate: Rate) -> None:
        """Compile what gives rate and key, ahead of the first step."""
        arguments = [self._key(0), self._place.put(np.int32(0))]
        if isinstance(rate, ComplexityAware):
            arguments.append(self.scalar(1.0))
        self._program(rate)(*arguments)

    def fold(self, key: Any, i: int) -> Any:
        """Return the key of a step's i-th batch; the first one has the step's own."""
        if i == 0:
            return key
        if self._folding is None:
            shardings = self._place.sharding("copied")
            self._folding = jax.jit(jax.random.fold_in, out_shardings=shardings)
        return self._folding(key, self._place.put(np.uint32(i)))

    def scalar(self, value: float) -> Any:
        """Return a number as a float32 on the device."""
        if len(self._scalars) > _MOST:
            self._scalars.clear()
        if value not in self._scalars:
            self._scalars[value] = self._place.put(np.float32(value))
        return self._scalars[value]

    def _key(self, seed: int) -> Any:
        if seed not in self._keys:
            self._keys[seed] = self._place.put(stream_key(seed, DROPOUT))
        return self._keys[seed]

    def _program(self, rate: Rate) -> Callable:
        def prepare(key, step, *exponent):
            value = rate(step, *exponent) if callable(rate) else rate
            return jnp.asarray(value, jnp.float32), jax.random.fold_in(key, step)

        if rate not in self._programs:
            shardings = self._place.sharding("copied")
            self._programs[rate] = jax.jit(prepare, out_shardings=shardings)
        return self._programs[rate]
