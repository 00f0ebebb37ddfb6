"""Scores of archs by inherited weights, with recalibrated BatchNorm statistics.

Running averages of supernet training mix every path that ever came by, so they are
never used. Recalibration is one pass of the calibration images, all of them one batch,
through the path in batch-statistics mode; those statistics are then frozen for the
scored images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from oneshot.data import Data, Split, split_digest
from oneshot.digest import digest
from oneshot.engine import Engine
from oneshot.evaluation_blocks import EvaluationBlocks
from oneshot.losses import Metric, Metrics, as_metrics, check_labels, cross_entropy
from oneshot.paths import Path, unique
from oneshot.scoring import Scorer
from oneshot.space import Arch
from oneshot.supernet import Supernet, Weights, reachable


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of archs, in the order in which the archs were given.

    Attributes:
      archs: The archs.
      examples: Values by metric, [archs, n], one for each scored example.
      seconds: Time spent on each arch; 0 for one that shares its path with an earlier.
    """

    archs: tuple[Arch, ...]
    examples: dict[str, np.ndarray]
    seconds: np.ndarray

    @property
    def n(self) -> int:
        """Number of examples scored."""
        return next(iter(self.examples.values())).shape[1]

    def mean(self, metric: str) -> np.ndarray:
        """Return the mean over examples, [archs], in float64."""
        return self.examples[metric].mean(1, dtype=np.float64)

    def standard_error(self, metric: str) -> np.ndarray:
        """Return the standard error of the mean over examples, [archs]."""
        values = self.examples[metric].astype(np.float64)
        return (
            values.std(1, ddof=1) / np.sqrt(self.n)
            if self.n > 1
            else np.full(len(values), np.nan)
        )

    @property
    def loss(self) -> np.ndarray:
        """Mean loss, [archs]."""
        return self.mean("loss")

    @property
    def accuracy(self) -> np.ndarray:
        """Mean accuracy in 0 to 1, [archs]."""
        return self.mean("accuracy")

    def rows(self) -> list[dict[str, float]]:
        """Return {metric: mean, metric_se: standard error, n: examples} by arch."""
        means = {m: self.mean(m) for m in self.examples}
        errors = {f"{m}_se": self.standard_error(m) for m in self.examples}
        columns = {**means, **errors}
        return [
            {**{k: float(v[i]) for k, v in columns.items()}, "n": self.n}
            for i in range(len(self.archs))
        ]


class Evaluator:
    """Scores archs on held-out data by the weights they inherit.

    Args:
      supernet: Whose archs.
      data: Supplies the scored and the calibration images.
      split: Which split to score, `validate` or `train`. The name `test` is refused;
        what `data.open_test(reason)` returned is scored, but `search` will not take it.
      loss: `(outputs, targets) -> [n]`, or several such metrics by name with "loss".
      recalibrate: False keeps the statistics that the weights come with; for weights
        whose statistics are those of one arch.
      chunk: Images scored at once, None for all. Calibration is never chunked.
      memory_limit: Bytes that one block of calibration may take; None for no limit.
      engine: Shares another's programs, and its mesh; None makes one.

    Raises:
      ValueError: If the split is `test`, or labels fall outside the head's classes.

    Example:
      >>> scores = Evaluator(net, data)(state.weights, net.space.sample(rng, 100))
      >>> scores.loss.argmin()
    """

    def __init__(
        self,
        supernet: Supernet,
        data: Data,
        *,
        split: str | Split = "validate",
        loss: Metric | Metrics = cross_entropy,
        recalibrate: bool = True,
        chunk: int | None = None,
        memory_limit: int | None = None,
        engine: Engine | None = None,
    ):
        scored = data.split(split) if isinstance(split, str) else split
        named = (
            n for n in ("train", "validate", "calibrate") if data.split(n) is split
        )
        self.split = split if isinstance(split, str) else next(named, "test")
        self.supernet, self.metrics = supernet, as_metrics(loss)
        self.engine = engine or Engine(supernet)
        self.settings = {
            "split": self.split,
            "scored": split_digest(scored),
            "metrics": {name: _named(m) for name, m in sorted(self.metrics.items())},
            "calibrate": split_digest(data.calibrate) if recalibrate else "",
        }
        blocks = EvaluationBlocks(self.engine, self.metrics, memory_limit)
        calibration = data.calibrate.x if recalibrate else None
        devices = 1 if self.engine.mesh is None else self.engine.mesh.shape["data"]
        size = min(chunk or len(scored.x), len(scored.x))
        size = -(-size // devices) * devices  # the last chunk is filled up anyway
        self._scorer = Scorer(blocks, scored, calibration, size)
        x = jax.ShapeDtypeStruct(scored.x.shape, scored.x.dtype)
        outputs = reachable(supernet, x)[-1].out
        check_labels(outputs, scored.y, self.metrics["loss"])

    @property
    def settings_digest(self) -> str:
        """16 hexadecimal digits of what a score depends on but arch and weights."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def warm_up(self, on_progress=lambda done, total: None, limit: int = 500) -> float:
        """Compile everything that scoring runs, in threads; return the seconds."""
        return self.engine.warm_up(
            list(self._scorer.warm_up_jobs()), on_progress, limit
        )

    def __call__(
        self,
        weights: Weights,
        archs: Sequence[Sequence[int]],
        on_progress: Callable[[int, int], Any] = lambda done, total: None,
    ) -> Scores:
        """Score archs; equal paths are scored once.

        Args:
          weights: Shared weights.
          archs: Any number of archs, in any order.
          on_progress: Called with (paths done, paths in all).

        Returns:
          Scores in the order of `archs`.

        Raises:
          ValueError: If an arch is not one of the space.
          MemoryError: If the calibration images do not fit a block.
        """
        archs = tuple(self.supernet.space.check(a) for a in archs)
        paths, inverse = unique(self.supernet.path(a) for a in archs)
        found: dict[Path, tuple[dict[str, np.ndarray], float]] = {}
        start = time.perf_counter()
        for path, values in self._scorer(weights, paths):
            now = time.perf_counter()
            found[path] = values, now - start
            start = now
            on_progress(len(found), len(paths))
        first = {place: i for i, place in reversed(list(enumerate(inverse)))}
        examples = {
            name: np.stack([found[paths[p]][0][name] for p in inverse])
            if archs
            else np.zeros((0, self._scorer.n), np.float32)
            for name in self.metrics
        }
        seconds = [
            found[paths[p]][1] if first[p] == i else 0.0 for i, p in enumerate(inverse)
        ]
        return Scores(archs, examples, np.array(seconds))

    def recalibrated(self, weights: Weights, arch: Sequence[int]) -> Weights:
        """Return the weights with the statistics that scoring `arch` uses."""
        path = self.supernet.path(arch)
        return Weights(
            weights.params, {**weights.state, **self._scorer.statistics(weights, path)}
        )


def _named(metric: Metric) -> str:
    """Return what tells one metric from another: a value's repr, a function's name."""
    if dataclasses.is_dataclass(metric):
        return repr(metric)
    kind = metric if hasattr(metric, "__qualname__") else type(metric)
    return f"{kind.__module__}.{kind.__qualname__}"


def bind(evaluator: Evaluator, weights: Weights) -> Bound:
    """Return `archs -> rows` for `search`, with the digests that key its trials.

    Args:
      evaluator: Scores the archs.
      weights: The shared weights to score by. Training goes on in their memory: to
        score by them later, copy them (`jax.tree.map(jnp.copy, state.weights)`).

    Returns:
      What to pass to `search`.

    Example:
      >>> search(algorithm, bind(evaluator, state.weights), objectives, budget=200)
    """
    return Bound(evaluator, weights, digest(weights))


@dataclasses.dataclass(frozen=True, eq=False)
class Bound:
    """An evaluator and the weights it scores by: a function of archs alone."""

    evaluator: Evaluator
    weights: Weights
    weights_digest: str

    @property
    def settings_digest(self) -> str:
        """Tells the evaluator's settings from others."""
        return self.evaluator.settings_digest

    @property
    def split(self) -> str:
        """The split that is scored."""
        return self.evaluator.split

    def __call__(self, archs: Sequence[Arch]) -> list[dict[str, float]]:
        """Return {metric: mean, metric_se: standard error, n} for each arch."""
        return self.evaluator(self.weights, archs).rows()
