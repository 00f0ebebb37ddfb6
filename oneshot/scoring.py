"""The order in which paths are scored: depth first, each shared prefix computed once.

Activations and recalibrated statistics at a layer depend on the path up to there only.
Paths are therefore scored in the order of their steps, and what two successive paths
have in common is kept on a stack. (To our knowledge new for one-shot search; sharing
intermediate results between models is in Alsatian, SIGMOD 2025, and Hippo, VLDB 2022.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from oneshot.data import Split
from oneshot.evaluation_blocks import EvaluationBlocks
from oneshot.paths import Path, shared_prefix
from oneshot.supernet import Tree, Weights


class _Node(NamedTuple):
    """What is known after a prefix."""

    calibration: Tree  # activations of the calibration images, None where not needed
    scored: Tree  # activations of the scored images
    state: Tree  # statistics of the prefix's last module


_Known = dict[Path, Any]  # statistics by prefix, kept from one chunk to the next


class _Walk(NamedTuple):
    """What stays the same on the way down one path."""

    weights: Weights
    path: Path
    x: Tree
    known: _Known | None


class Scorer:
    """Scores paths one after another.

    Args:
      blocks: Compiled blocks.
      scored: Images and targets to score.
      calibration: Images to recalibrate with, None to keep the statistics given.
      chunk: Images scored at once.
    """

    def __init__(
        self,
        blocks: EvaluationBlocks,
        scored: Split,
        calibration: np.ndarray | None,
        chunk: int,
    ):
        self.blocks, self.n, self.chunk = (
            blocks,
            len(scored.x),
            chunk,
        )
        put, net = blocks.engine.put, blocks.engine.supernet
        # Past the last module with statistics there is nothing to recalibrate.
        owners = ((s.layer, b.module) for s in net.slots for b in s.branches if b)
        known = (n for n, m in owners if net.modules[m].has_batch_statistics)
        self._last = max(known, default=-1)
        self._chunks = [put(part, "data") for part in _chunks(scored, self.chunk)]
        self._calibration = None if calibration is None else put(calibration, "data")

    def warm_up_jobs(self) -> Iterator[Callable[[], Any]]:
        """Yield what has to be compiled."""
        x, y = self._chunks[0]
        yield from self.blocks.warm_up_jobs(x, y, self._calibration)

    def __call__(
        self, weights: Weights, paths: Sequence[Path]
    ) -> Iterator[tuple[Path, dict[str, np.ndarray]]]:
        """Yield (path, {metric: [n]}) for each path, in the order of their prefixes."""
        ordered = sorted(paths, key=_order)
        known: _Known | None = {} if len(self._chunks) > 1 else None
        parts: dict[Path, list[Any]] = {path: [] for path in ordered}
        for chunk in self._chunks:
            last = chunk is self._chunks[-1]
            for path, values in self._walk(weights, ordered, chunk, known):
                parts[path].append(jax.device_get(values))
                if last:
                    done = parts.pop(path)
                    yield path, {k: _join([d[k] for d in done], self.n) for k in values}

    def statistics(self, weights: Weights, path: Path) -> dict[str, Tree]:
        """Return the recalibrated state of each module on one path."""
        walk = _Walk(weights, path, self._chunks[0][0], None)
        stack = self._descend(walk, [], len(path))
        return {s.module: node.state for s, node in zip(path, stack[1:], strict=True)}

    def _walk(
        self,
        weights: Weights,
        paths: Sequence[Path],
        chunk: Split,
        known: _Known | None,
    ) -> Iterator[tuple[Path, Any]]:
        stack: list[_Node] = []
        before: Path = ()
        for path in paths:
            walk = _Walk(weights, path, chunk.x, known)
            kept = min(shared_prefix(before, path), len(path) - 1, len(before) - 1)
            stack = self._descend(walk, stack[: kept + 1], len(path) - 1)
            _, state = self._calibrate(walk, len(path) - 1, stack[-1])
            params = weights.params[path[-1].module]
            yield (
                path,
                self.blocks.score(path[-1], stack[-1].scored, params, state, chunk.y),
            )
            before = path

    def _descend(self, walk: _Walk, stack: list[_Node], depth: int) -> list[_Node]:
        """Return the stack of nodes after 0, 1, ..., `depth` steps of the path."""
        stack = stack or [_Node(self._calibration, walk.x, None)]
        for i in range(len(stack) - 1, depth):
            step, above = walk.path[i], stack[-1]
            calibration, state = self._calibrate(walk, i, above)
            params = walk.weights.params[step.module]
            scored = self.blocks.evaluate(step, above.scored, params, state)
            stack.append(_Node(calibration, scored, state))
        return stack

    def _calibrate(self, walk: _Walk, i: int, above: _Node) -> tuple[Tree, Tree]:
        """Return step i's activations of the calibration images, and its statistics."""
        step, prefix = walk.path[i], walk.path[: i + 1]
        params, state = (part[step.module] for part in walk.weights)
        if walk.known is not None and prefix in walk.known:
            return None, walk.known[prefix]
        # The last layer is that of any path, since paths share what is computed here.
        if above.calibration is None or step.layer > self._last:
            return None, state
        out, state = self.blocks.calibrate(step, above.calibration, params, state)
        if walk.known is not None:
            walk.known[prefix] = state
        return out, state


def _order(path: Path) -> list[tuple[int, str, str]]:
    return [(step.layer, step.module, repr(step.options)) for step in path]


def _chunks(split: Split, size: int) -> list[Split]:
    """Cut a split into chunks of one size, the last filled up with its last example."""
    parts = []
    for start in range(0, len(split.x), size):
        places = np.minimum(np.arange(start, start + size), len(split.x) - 1)
        parts.append(Split(split.x[places], split.y[places]))
    return parts


def _join(parts: list[np.ndarray], n: int) -> np.ndarray:
    return np.concatenate(parts)[:n]
