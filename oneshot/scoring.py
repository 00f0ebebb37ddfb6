"""The order in which paths are scored: depth first, each shared prefix computed once.

Activations and recalibrated statistics at a layer depend on the path up to there only.
Paths are therefore scored in the order of their trie, and what two successive paths
have in common is kept on a stack. (To our knowledge new for one-shot search; sharing
intermediate results between models is in Alsatian, SIGMOD 2025, and Hippo, VLDB 2022.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from oneshot.bounded_cache import BoundedCache, nbytes
from oneshot.data import Split
from oneshot.evaluation_blocks import EvaluationBlocks
from oneshot.paths import Path, shared_prefix
from oneshot.supernet import Tree, Weights

Values = dict[str, Any]  # a metric's values by example, on the device


class _Node(NamedTuple):
    """What is known after a prefix."""

    calibration: Tree  # activations of the calibration images, None where not needed
    scored: Tree  # activations of the scored images
    state: Tree  # statistics of the prefix's last module


class Scorer:
    """Scores paths on one engine.

    Args:
      blocks: Compiled blocks.
      scored: Images and targets to score.
      calibration: Images to recalibrate with, None to keep the statistics given.
      chunk: Images scored at once. With several chunks, each is a walk of its own,
        and the first one's statistics serve the others.
      cache: Keeps prefixes between calls.
      siblings: Networks whose last block is run by one program.
    """

    def __init__(
        self,
        blocks: EvaluationBlocks,
        scored: Split,
        calibration: np.ndarray | None,
        *,
        chunk: int,
        cache: BoundedCache,
        siblings: int = 1,
    ):
        self.blocks, self.cache, self.siblings = blocks, cache, siblings
        put, net = blocks.engine.put, blocks.engine.supernet
        # Past the last module with statistics there is nothing to recalibrate.
        choices = net.space.choices
        owners = ((s.layer, m) for s in net.slots for m, _ in s.modules(choices))
        known = (n for n, m in owners if net.modules[m].has_batch_statistics)
        self._last = max(known, default=-1)
        self._chunks = [put(part, "data") for part in _chunks(scored, chunk)]
        self._calibration = None if calibration is None else put(calibration, "data")
        for images in (self._chunks[0].x, self._calibration):
            if images is not None:
                blocks.learn_shapes(images)
        self._placed: tuple[Weights, Weights] | None = None  # as given, on our device
        self._known: dict[Path, Tree] = {}  # statistics that the first chunk found

    @property
    def num_chunks(self) -> int:
        """Number of chunks that the scored images are cut into."""
        return len(self._chunks)

    def targets(self, chunk: int) -> Any:
        """Return the targets of one chunk."""
        return self._chunks[chunk].y

    def warm_up_jobs(self) -> Iterator[Callable[[], Any]]:
        """Yield what has to be compiled."""
        x, y = self._chunks[0]
        yield from self.blocks.warm_up_jobs(x, y, self._calibration, self.siblings)

    def begin(self, weights: Weights) -> None:
        """Name the weights that the next calls score by."""
        self.cache.bind(weights)
        self._known = {}
        if self._placed is None or not _same_arrays(self._placed[0], weights):
            self._placed = weights, self.blocks.engine.put_weights(weights)

    def end(self) -> None:
        """Let go of what only the calls since `begin` needed."""
        self._known = {}
        if not self.cache.limit:
            self._placed = None

    def __call__(
        self, paths: Sequence[Path], chunk: int = 0
    ) -> Iterator[tuple[Path, Values]]:
        """Yield (path, {metric: [chunk]}) for paths in depth-first order.

        Nothing here waits for the device.

        Args:
          paths: Distinct, in depth-first order; for any chunk but the first, some of
            those that the first was scored for.
          chunk: Which chunk of the scored images.
        """
        walk = _Walk(self, chunk)
        for path in paths:
            walk.go_to(path)
            yield from walk.score()
        yield from walk.score_rest()
        walk.leave(0)

    def statistics(self, weights: Weights, path: Path) -> dict[str, Tree]:
        """Return the recalibrated state of each module on one path."""
        self.begin(weights)
        walk = _Walk(self, 0)
        walk.go_to(path)
        states = [node.state for node in walk.stack[1:]]
        states += walk.head_states([(path, walk.stack[-1])])
        self.end()
        return {s.module: state for s, state in zip(path, states, strict=True)}


class _Walk:
    """One walk along a trie: the stack of nodes, and the leaves still to be scored."""

    def __init__(self, scorer: Scorer, chunk: int):
        assert scorer._placed is not None, "begin() names the weights"
        self.scorer, self.chunk = scorer, chunk
        self.blocks, self.weights = scorer.blocks, scorer._placed[1]
        self.x, self.targets = scorer._chunks[chunk]
        calibration = scorer._calibration if chunk == 0 else None
        self.stack = [_Node(calibration, self.x, None)]
        self.path: Path = ()
        self.waiting: dict[Any, list[tuple[Path, _Node]]] = {}  # by their last block

    def go_to(self, path: Path) -> None:
        """Put the nodes of a path on the stack, all but its last block's."""
        self.leave(min(shared_prefix(self.path, path), len(path) - 1))
        self.path = path
        for i in range(len(self.stack) - 1, len(path) - 1):
            self.stack.append(self._visit(path, i, self.stack[-1]))

    def leave(self, depth: int) -> None:
        """Take nodes off the stack and hand them to the cache, the deepest first.

        A walk meets the nodes near the root last, so they are what the cache keeps.
        """
        while len(self.stack) > depth + 1:
            key = self.chunk, self.path[: len(self.stack) - 1]
            node = self.stack.pop()
            self.scorer.cache.put(key, node, nbytes(node))

    def _visit(self, path: Path, i: int, above: _Node) -> _Node:
        step, prefix = path[i], path[: i + 1]
        node = self.scorer.cache.get((self.chunk, prefix))
        if node is None:
            calibration, state = self.calibrate(path, i, above)
            params = self.weights.params[step.module]
            scored = self.blocks.evaluate(step, above.scored, params, state)
            node = _Node(calibration, scored, state)
        self._remember(prefix, node.state)
        return node

    def calibrate(self, path: Path, i: int, above: _Node) -> tuple[Tree, Tree]:
        """Return step i's activations of the calibration images, and its statistics."""
        step = path[i]
        params, state = (part[step.module] for part in self.weights)
        if self.chunk:
            return None, self.scorer._known[path[: i + 1]]
        # The last layer is that of any path, since paths share what is computed here.
        if above.calibration is None or step.layer > self.scorer._last:
            return None, state
        return self.blocks.calibrate(step, above.calibration, params, state)

    def _remember(self, prefix: Path, state: Tree) -> None:
        if self.chunk == 0 and self.scorer.num_chunks > 1:
            self.scorer._known[prefix] = state

    # --- the last blocks ----------------------------------------------------------

    def score(self) -> Iterator[tuple[Path, Values]]:
        """Score the path on the stack, once as many wait as one program takes."""
        node = self.stack[-1]
        kind = self.path[-1], self.blocks.engine.carry_id(node.scored)
        leaves = self.waiting.setdefault(kind, [])
        leaves.append((self.path, node))
        if len(leaves) == self.scorer.siblings:
            yield from self._score(self.waiting.pop(kind))

    def score_rest(self) -> Iterator[tuple[Path, Values]]:
        """Score the paths that are still waiting, one by one."""
        for leaves in self.waiting.values():
            for leaf in leaves:
                yield from self._score([leaf])
        self.waiting = {}

    def _score(self, leaves: Sequence[tuple[Path, _Node]]):
        step = leaves[0][0][-1]
        params = self.weights.params[step.module]
        states = self.head_states(leaves)
        carries = [node.scored for _, node in leaves]
        if len(leaves) == 1:
            values = [
                self.blocks.score(step, carries[0], params, states[0], self.targets)
            ]
        else:
            values = self.blocks.score_siblings(
                step, carries, params, states, self.targets
            )
        for (path, _), one in zip(leaves, values, strict=True):
            yield path, one

    def head_states(self, leaves: Sequence[tuple[Path, _Node]]) -> list[Tree]:
        """Return the statistics of the last block of some paths that end alike."""
        step = leaves[0][0][-1]
        params, state = (part[step.module] for part in self.weights)
        carries = [node.calibration for _, node in leaves]
        if self.chunk:
            states = [self.scorer._known[path] for path, _ in leaves]
        elif carries[0] is None or not self.blocks.has_statistics(step):
            states = [state] * len(leaves)
        elif len(leaves) == 1:
            states = [self.blocks.statistics(step, carries[0], params, state)]
        else:
            states = self.blocks.siblings_statistics(step, carries, params, state)
        for (path, _), own in zip(leaves, states, strict=True):
            self._remember(path, own)
        return states


def _same_arrays(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x is y and isinstance(x, jax.Array) for x, y in pairs)


def _chunks(split: Split, size: int) -> list[Split]:
    """Cut a split into chunks of one size, the last filled up with its last example.

    Nothing is kept of what fills up. Its targets are -1, unless they are unsigned, so
    that metrics that compare examples with each other can tell it, as padding.
    """
    parts, n = [], len(split.x)
    for start in range(0, n, size):
        places = np.arange(start, start + size)
        x, y = (a[np.minimum(places, n - 1)] for a in split)
        if y.dtype.kind in "if":
            y[places >= n] = -1
        parts.append(Split(x, y))
    return parts
