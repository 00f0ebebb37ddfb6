"""The compiled blocks of scoring: recalibration, evaluation, and the head's metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

from oneshot import programs
from oneshot.engine import Engine, Kind
from oneshot.losses import Metrics
from oneshot.paths import Step
from oneshot.supernet import Tree, abstract, reachable, shapes


class EvaluationBlocks:
    """Programs of one (module, options, shapes) each, compiled on first use or before.

    Args:
      engine: Compiles and keeps the programs.
      metrics: Functions (outputs, targets) -> [n] by name.
      memory_limit: Bytes that one recalibrating program may take, or None.
    """

    def __init__(
        self, engine: Engine, metrics: Metrics, memory_limit: int | None = None
    ):
        self.engine, self.metrics, self.memory_limit = (
            engine,
            dict(metrics),
            memory_limit,
        )
        self.modules = engine.supernet.modules
        self._own = object()
        self._calls: dict[Any, Any] = {}
        self.counts = {"calibrate": 0, "evaluate": 0, "score": 0}

    def has_statistics(self, step: Step) -> bool:
        """Return whether recalibration changes anything in this block."""
        return self.modules[step.module].has_batch_statistics

    def calibrate(self, step: Step, carry: Tree, params: Tree, state: Tree):
        """Return (out, state with exactly the batch's statistics)."""
        self.counts["calibrate"] += 1
        return self._program("calibrate", step, carry)(params, state, carry)

    def evaluate(self, step: Step, carry: Tree, params: Tree, state: Tree) -> Tree:
        """Return the block's output, with frozen statistics."""
        self.counts["evaluate"] += 1
        return self._program("evaluate", step, carry)(params, state, carry)

    def score(self, step: Step, carry: Tree, params: Tree, state: Tree, targets: Tree):
        """Return {metric: [n]} of the head."""
        self.counts["score"] += 1
        return self._program("score", step, carry, targets)(
            params, state, carry, targets
        )

    def _program(self, kind: str, step: Step, carry: Tree, targets: Tree = None) -> Any:
        carry_id = self.engine.carry_id(carry)
        target_id = None if targets is None else self.engine.carry_id(targets)
        fast = kind, step.module, step.options, carry_id, target_id
        if fast not in self._calls:
            self._calls[fast] = self._build(*fast)
        return self._calls[fast]

    def _build(
        self, kind: str, name: str, options, carry_id: int, target_id: int | None
    ):
        module = self.modules[name]
        arguments: list[tuple[Tree, Kind]] = [
            (module.params, "weights"),
            (module.state, "weights"),
            (self.engine.carry(carry_id), "data"),
        ]
        apply = programs.block_apply(
            module, options, "calibrate" if kind == "calibrate" else "eval"
        )
        key = kind, self.engine.structure(name), options, carry_id
        if kind == "score":
            assert target_id is not None
            arguments.append((self.engine.carry(target_id), "data"))
            fn = programs.head_scores(apply, self.metrics)
            key, results = (*key, target_id, self._own), "data"
        elif kind == "calibrate":
            fn, results = _calibrating(apply), ("data", "weights")
        else:
            fn, results = _evaluating(apply), "data"
        fn.__name__ = "_".join([name, *(f"{k}{v}" for k, v in options), kind])
        compiled = self.engine.compile(key, fn, arguments, results)
        if kind == "calibrate":
            self._check_memory(name, compiled, self.engine.carry(carry_id))
        return compiled

    def _check_memory(self, name: str, compiled: Any, carry: Tree) -> None:
        analysis = compiled.memory_analysis()
        if self.memory_limit is None or analysis is None:
            return
        taken = (
            analysis.argument_size_in_bytes
            + analysis.output_size_in_bytes
            + analysis.temp_size_in_bytes
        )
        if taken > self.memory_limit:
            n = jax.tree.leaves(carry)[0].shape[0]
            raise MemoryError(
                f"Recalibrating block {name!r} on {n} images of {shapes(carry)} takes "
                f"{taken:,} bytes, more than the limit of {self.memory_limit:,}. Its "
                "statistics are those of one batch, which cannot be cut: use about "
                f"{max(1, int(n * self.memory_limit / taken)):,} calibration images at "
                "most, or raise memory_limit."
            )

    def warm_up_jobs(self, x: Tree, targets: Tree, calibration: Tree | None):
        """Yield one job for each program that scoring such images runs."""
        last = len(self.engine.supernet.slots) - 1
        yield from self._jobs(x, targets, last)
        if calibration is not None:
            for step, carry, _ in reachable(
                self.engine.supernet, abstract(calibration)
            ):
                if step.layer != last or self.has_statistics(step):
                    yield lambda s=step, c=carry: self._program("calibrate", s, c)

    def _jobs(self, x: Tree, targets: Tree, last: int) -> Iterator[Callable[[], Any]]:
        for step, carry, _ in reachable(self.engine.supernet, abstract(x)):
            if step.layer == last:
                yield lambda s=step, c=carry: self._program(
                    "score", s, c, abstract(targets)
                )
            else:
                yield lambda s=step, c=carry: self._program("evaluate", s, c)


def _calibrating(apply: Callable) -> Callable:
    def run(params, state, carry):
        return apply(params, state, carry, None)

    return run


def _evaluating(apply: Callable) -> Callable:
    def run(params, state, carry):
        return apply(params, state, carry, None)[0]

    return run
