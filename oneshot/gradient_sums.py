"""Programs that put gradients together: sums, scales and norms of them.

They serve steps in which more than one gradient reaches a module: several paths, pairs
of paths whose losses are compared, several batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from oneshot import programs
from oneshot.engine import SCALAR, Engine
from oneshot.placement import Kind
from oneshot.residuals import split_carry
from oneshot.teaching import RankLoss
from oneshot.trained_arrays import TrainedArrays


class GradientSums:
    """Compiles each of them on first use.

    Args:
      engine: Compiles and keeps the programs.
      arrays: Says which arrays of a module have a gradient.
      rank: How the losses of pairs of paths are compared.
    """

    def __init__(
        self,
        engine: Engine,
        arrays: TrainedArrays,
        rank: RankLoss,
    ):
        self.engine, self.arrays, self.rank = engine, arrays, rank
        self._calls: dict[Any, Any] = {}
        self._own = object()  # tells its comparison of losses from another's

    def add(self, module: str) -> Any:
        """Return the program that adds two gradients of a module."""
        params = (self.arrays.shapes(module), "weights")
        return self._of_module("add", programs.add, module, [params] * 2)

    def add_norm(self, module: str) -> Any:
        """Return the program that adds a gradient's squared norm to a sum."""
        params = (self.arrays.shapes(module), "weights")
        return self._of_module("norm", _add_norm, module, [(SCALAR, "copied"), params])

    def scale(self, module: str) -> Any:
        """Return the program that multiplies a module's gradients by a number."""
        arguments = [(self.arrays.shapes(module), "weights"), (SCALAR, "copied")]
        return self._of_module("scale", programs.scaled, module, arguments)

    def _of_module(self, kind: str, fn: Callable, module: str, arguments):
        key = (kind, self.engine.structure(module), self.arrays.frozen(module))
        if key not in self._calls:
            self._calls[key] = self.engine.compile(key, fn, arguments, "weights")
        return self._calls[key]

    def add_cotangents(self, carry_id: int) -> Any:
        """Return the program that adds two cotangents of one carry."""
        key = ("add cotangents", carry_id)
        if key not in self._calls:
            floats = split_carry(self.engine.carry(carry_id))[0]
            one: tuple[Any, Kind] = floats, "data"
            self._calls[key] = self.engine.compile(
                key, programs.add, (one, one), "data"
            )
        return self._calls[key]

    @functools.cached_property
    def rank_factors(self) -> Any:
        """The program (two losses, two weights, share of this batch) -> factors of the
        two gradients."""
        fn = programs.rank_factors(self.rank)
        scalar: tuple[Any, Kind] = SCALAR, "copied"
        five = scalar, scalar, scalar, scalar, scalar
        return self.engine.compile(("rank", self._own), fn, five, "copied")

    def share(self, n: int) -> Any:
        """Return 1 / n on the device."""
        if ("share", n) not in self._calls:
            self._calls["share", n] = self.engine.put(np.float32(1 / n))
        return self._calls["share", n]

    def mean(self, logs: Sequence[Any]) -> Any:
        """Return the mean of what was logged for several batches."""
        one = self.engine.carry_id(logs[0])
        argument: tuple[Any, Kind] = [self.engine.carry(one)] * len(logs), "copied"
        key = "mean", len(logs), one
        call = self.engine.compile(key, programs.mean, [argument], "copied")
        return call(list(logs))


def _add_norm(total, gradients):
    return total + programs.squared_norm(gradients)
