"""Evaluators for timing: each call does all its work."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from oneshot.data import Data, Split
from oneshot.engine import Engine
from oneshot.evaluate import Evaluator
from oneshot.resources import Resources
from oneshot.supernet import Supernet

KINDS = ("calibrate", "evaluate", "score")


def uncached(net: Supernet, data: Data, **options: Any) -> Evaluator:
    """Return an evaluator that keeps nothing from one call to the next."""
    return Evaluator(net, data, resources=Resources(cache_bytes=0), **options)


def first_scored(data: Data, n: int) -> Data:
    """Return the same data with the first `n` examples to be scored."""
    scored = Split(*(array[:n] for array in data.validate))
    return dataclasses.replace(data, validate=scored)


def timed_engine(net: Supernet, seconds: dict[str, float]) -> Engine:
    """Return an engine whose programs add their time to `seconds`, by kind.

    Each call waits for its arguments before, and for its results after.

    Args:
      net: Whose programs.
      seconds: Gets "calibrate", "evaluate" and "score".
    """
    engine = Engine(net)
    compile_ = engine.compile
    seconds |= dict.fromkeys(KINDS, 0.0)

    def compile_timed(key, fn, *rest, **options):
        program = compile_(key, fn, *rest, **options)
        kind = fn.__name__.rpartition("_")[2]
        return _Timed(program, kind, seconds) if kind in KINDS else program

    engine.compile = compile_timed
    return engine


@dataclasses.dataclass(frozen=True)
class _Timed:
    program: Any
    kind: str
    seconds: dict[str, float]

    @property
    def memory_analysis(self) -> Callable[[], Any]:
        return self.program.memory_analysis

    def __call__(self, *arguments):
        jax.block_until_ready(arguments)
        start = time.perf_counter()
        out = jax.block_until_ready(self.program(*arguments))
        self.seconds[self.kind] += time.perf_counter() - start
        return out
