"""Learning rates that depend on which arch is trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from oneshot.space import Arch


@dataclasses.dataclass(frozen=True)
class ComplexityAware:
    """A rate that falls the sooner the smaller the network that is trained.

    Step t of T has the rate `peak * (1 - t / T) ** gamma`, where gamma falls with the
    logarithm of the network's cost, from `steepest` at the cheapest to 1 at the
    dearest: small networks converge soon, and large ones, which a common rate leaves
    behind, keep a high rate for longer (after arXiv:2503.10740; the paper's own map
    from costs to exponents may differ). A ranking by a supernet trained so depends on
    cost by construction: report it as guided.

    Args:
      peak: The rate at step 0, above 0.
      steps: T, at least 1; after it the rate is 0.
      cost: Arch to its cost, such as its parameters, above 0.
      smallest: Cost of the cheapest arch.
      largest: Cost of the dearest.
      steepest: The largest gamma, at least 1.

    Raises:
      ValueError: If a number is outside its range.

    Example:
      >>> rate = ComplexityAware(0.1, 1000, cost=params, smallest=1e5, largest=1e6)
      >>> Trainer(net, strategy, sgd(), rate)
    """

    peak: float
    steps: int
    cost: Callable[[Arch], float]
    smallest: float
    largest: float
    steepest: float = 4.0

    def __post_init__(self):
        if self.peak <= 0 or self.steps < 1 or self.steepest < 1:
            raise ValueError(
                "A complexity-aware rate has a peak above 0, at least 1 step, and an "
                f"exponent of at least 1, but got peak={self.peak}, "
                f"steps={self.steps}, steepest={self.steepest}."
            )
        if not 0 < self.smallest < self.largest:
            raise ValueError(
                "The cheapest arch costs more than 0 and less than the dearest, but "
                f"got smallest={self.smallest} and largest={self.largest}."
            )

    def exponent(self, arch: Arch) -> float:
        """Return gamma of one arch."""
        low, high = math.log(self.smallest), math.log(self.largest)
        share = (math.log(self.cost(arch)) - low) / (high - low)
        return self.steepest - (self.steepest - 1) * min(1.0, max(0.0, share))

    def __call__(self, step: Any, exponent: Any = 1.0) -> jax.Array:
        """Return the rate at a step, for networks of this exponent."""
        left = jnp.clip(1 - jnp.asarray(step, jnp.float32) / self.steps, 0, 1)
        return self.peak * left**exponent
