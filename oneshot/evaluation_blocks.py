"""The compiled blocks of scoring: recalibration, evaluation, and the head's metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from oneshot import programs
from oneshot.engine import Engine
from oneshot.grouping import (
    Flags,
    batched_leaves,
    bytes_of_example,
    group_size,
    in_groups,
)
from oneshot.losses import Metrics, compares_examples
from oneshot.nn.backend import group_bytes
from oneshot.paths import Step
from oneshot.placement import Kind
from oneshot.shapes import abstract, shapes
from oneshot.supernet import Tree


class _Program(NamedTuple):
    """What tells one program of an evaluator from another."""

    kind: str  # "calibrate", "statistics", "evaluate" or "score"
    module: str
    options: tuple
    carry_id: int
    target_id: int | None = None
    siblings: int = 1


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
        self.engine, self.metrics = engine, dict(metrics)
        self.memory_limit = memory_limit
        self.modules = engine.supernet.modules
        self._own = object()
        self._calls: dict[_Program, Any] = {}
        self._flags: dict[int, Flags] = {}
        self.counts = {"calibrate": 0, "evaluate": 0, "score": 0}

    def has_statistics(self, step: Step) -> bool:
        """Return whether recalibration changes anything in this block."""
        return self.modules[step.module].has_batch_statistics

    def calibrate(self, step: Step, carry: Tree, params: Tree, state: Tree):
        """Return (out, state with exactly the batch's statistics)."""
        self.counts["calibrate"] += 1
        if not self.has_statistics(step):
            return self._call("evaluate", step, carry)(params, state, carry), state
        return self._call("calibrate", step, carry)(params, state, carry)

    def statistics(self, step: Step, carry: Tree, params: Tree, state: Tree) -> Tree:
        """Return the state that `calibrate` leaves, without computing the output."""
        self.counts["calibrate"] += 1
        return self._call("statistics", step, carry)(params, state, carry)

    def evaluate(self, step: Step, carry: Tree, params: Tree, state: Tree) -> Tree:
        """Return the block's output, with frozen statistics."""
        self.counts["evaluate"] += 1
        return self._call("evaluate", step, carry)(params, state, carry)

    def score(self, step: Step, carry: Tree, params: Tree, state: Tree, targets: Tree):
        """Return {metric: [n]} of the head."""
        self.counts["score"] += 1
        call = self._call("score", step, carry, targets)
        return call(params, state, carry, targets)

    def siblings_statistics(
        self, step: Step, carries: Sequence[Tree], params: Tree, state: Tree
    ) -> list[Tree]:
        """Return the statistics of one block on several inputs, by one program."""
        self.counts["calibrate"] += len(carries)
        call = self._call("statistics", step, carries[0], None, len(carries))
        return call(params, state, list(carries))

    def score_siblings(
        self,
        step: Step,
        carries: Sequence[Tree],
        params: Tree,
        states: Sequence[Tree],
        targets: Tree,
    ) -> list[dict[str, Any]]:
        """Return {metric: [n]} of one head on several inputs, by one program."""
        self.counts["score"] += len(carries)
        call = self._call("score", step, carries[0], targets, len(carries))
        return call(params, list(states), list(carries), targets)

    # --- programs -----------------------------------------------------------------

    def _call(
        self, kind: str, step: Step, carry: Tree, targets: Tree = None, siblings=1
    ) -> Any:
        carry_id = self.engine.carry_id(carry)
        target_id = None if targets is None else self.engine.carry_id(targets)
        which = _Program(kind, step.module, step.options, carry_id, target_id, siblings)
        if which not in self._calls:
            self._calls[which] = self._build(which)
        return self._calls[which]

    def _build(self, which: _Program) -> Any:
        module, carry = self.modules[which.module], self.engine.carry(which.carry_id)
        key = (self.engine.structure(which.module), *which[:1], *which[2:4])
        if which.kind == "score":
            key = (*key, which.target_id, self._own)
            fn = programs.head_scores(self._apply(which, "eval"), self.metrics)
            trees, results = [carry, self.engine.carry(which.target_id or 0)], "data"
        elif which.kind == "calibrate":
            fn, trees = self._apply(which, "calibrate"), [carry]
            results = ("data", "weights")
        elif which.kind == "statistics":
            fn, trees = _part(self._apply(which, "calibrate"), 1), [carry]
            results = "weights"
        else:
            fn, trees, results = _part(self._apply(which, "eval"), 0), [carry], "data"
        if which.kind == "evaluate" or (which.kind == "score" and self._apart):
            fn = self._grouped(fn, which, trees)
        arguments: list[tuple[Tree, Kind]] = [
            (module.params, "weights"),
            (module.state, "weights"),
            *((tree, "data") for tree in trees),
        ]
        if which.siblings > 1:
            fn, results = _for_siblings(fn, which.kind)
            key = (*key, which.siblings)
            arguments = _several(arguments, which)
        options = (f"{k}{v}" for k, v in which.options)
        fn.__name__ = "_".join([which.module, *options, which.kind])
        compiled = self.engine.compile(key, fn, arguments, results)
        if which.kind in ("calibrate", "statistics"):
            self._check_memory(which.module, compiled, carry)
        return compiled

    @property
    def _apart(self) -> bool:
        """Whether no metric compares the examples of a chunk with each other."""
        return not any(map(compares_examples, self.metrics.values()))

    def _apply(self, which: _Program, mode: str) -> Callable:
        apply = programs.block_apply(self.modules[which.module], which.options, mode)
        return lambda params, state, carry, *rest: apply(
            params, state, carry, *(rest or (None,))
        )

    def _grouped(self, fn: Callable, which: _Program, trees: Sequence[Tree]):
        """Let a program with frozen statistics take few examples at a time."""
        target, flags = group_bytes(), self._flags.get(which.carry_id)
        if target is None or self.engine.mesh is not None or flags is None:
            return fn
        module, carry = self.modules[which.module], trees[0]
        run = _part(self._apply(which, "eval"), 0)
        places = [i for i, flag in enumerate(flags) if flag]
        out = jax.eval_shape(run, module.params, module.state, carry)
        out_flags = self._flags.get(self.engine.carry_id(out))
        if not places or out_flags is None:
            return fn
        n = jax.tree.leaves(carry)[places[0]].shape[0]
        example = bytes_of_example(
            lambda c, p, s: run(p, s, c), carry, flags, module.params, module.state
        )
        every = [flags, *([True] * _leaves(tree) for tree in trees[1:])]
        if which.kind == "score":
            out_flags = (True,) * len(self.metrics)
        size = group_size(n, example, target)
        return in_groups(fn, n, size, [tuple(one) for one in every], out_flags)

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

    # --- warm-up ------------------------------------------------------------------

    def learn_shapes(self, x: Tree) -> None:
        """Find out which leaves of the carries have an axis of examples."""
        if group_bytes() is not None and self.engine.mesh is None:
            net, number = self.engine.supernet, self.engine.carry_id
            self._flags |= batched_leaves(net, abstract(x), number)

    def warm_up_jobs(
        self, x: Tree, targets: Tree, calibration: Tree | None, siblings: int
    ) -> Iterator[Callable[[], Any]]:
        """Yield one job for each program that scoring such images runs."""
        last = len(self.engine.supernet.slots) - 1
        sizes = sorted({1, siblings})
        for step, carry, _ in self.engine.supernet.reachable(abstract(x)):
            if step.layer != last:
                yield lambda s=step, c=carry: self._call("evaluate", s, c)
                continue
            for m in sizes:
                yield lambda s=step, c=carry, m=m: self._call(
                    "score", s, c, abstract(targets), m
                )
        if calibration is None:
            return
        for step, carry, _ in self.engine.supernet.reachable(abstract(calibration)):
            kind = "calibrate" if self.has_statistics(step) else "evaluate"
            if step.layer != last:
                yield lambda s=step, c=carry, k=kind: self._call(k, s, c)
            elif kind == "calibrate":
                for m in sizes:
                    yield lambda s=step, c=carry, m=m: self._call(
                        "statistics", s, c, None, m
                    )


def _part(apply: Callable, i: int) -> Callable:
    def run(params, state, carry):
        return apply(params, state, carry)[i]  # XLA leaves out what the other needs

    return run


def _leaves(tree: Tree) -> int:
    return len(jax.tree.leaves(tree))


def _several(
    arguments: list[tuple[Tree, Kind]], which: _Program
) -> list[tuple[Tree, Kind]]:
    """Return the arguments of a program for several inputs of one block."""
    params, (state, kind), (carry, data), *rest = arguments
    if which.kind == "score":  # each input has statistics of its own
        state = [state] * which.siblings
    return [params, (state, kind), ([carry] * which.siblings, data), *rest]


def _for_siblings(fn: Callable, kind: str) -> tuple[Callable, Any]:
    """Return a program of one block for several inputs at once, and its layout."""

    def stack(trees):
        return jax.tree.map(lambda *a: jax.numpy.stack(a), *trees)

    def unstack(tree, n):
        return [jax.tree.map(lambda a, i=i: a[i], tree) for i in range(n)]

    def statistics(params, state, carries):
        over = jax.vmap(lambda c: fn(params, state, c))
        return unstack(over(stack(carries)), len(carries))

    def score(params, states, carries, targets):
        over = jax.vmap(lambda s, c: fn(params, s, c, targets))
        return unstack(over(stack(states), stack(carries)), len(carries))

    return (statistics, "weights") if kind == "statistics" else (score, "data")
