"""Scores of archs by inherited weights, with recalibrated BatchNorm statistics.

Running averages of supernet training mix every path that ever came by, so they are
never used. Recalibration is one pass of the calibration images, all of them one batch,
through the path in batch-statistics mode; those statistics are then frozen for the
scored images.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from oneshot.bounded_cache import BoundedCache, nbytes
from oneshot.costs import Costs
from oneshot.data import Data, Split, split_digest
from oneshot.engine import Engine
from oneshot.evaluation_blocks import EvaluationBlocks
from oneshot.evaluation_checks import check_metrics, check_race
from oneshot.losses import (
    Metric,
    Metrics,
    as_metrics,
    compares_examples,
    cross_entropy,
)
from oneshot.paths import Path, unique
from oneshot.population import Found, Population
from oneshot.racing import Race, random_order
from oneshot.resources import Resources, plan_chunk
from oneshot.score_keys import metric_name, settings_digest
from oneshot.scores import Scores as Scores
from oneshot.scoring import Scorer
from oneshot.shapes import abstract
from oneshot.supernet import Supernet, Weights
from oneshot.weights import check_weights


class Evaluator:
    """Scores archs on held-out data by the weights they inherit.

    The paths of a population form a trie; each of its nodes is computed once.

    Args:
      supernet: Whose archs.
      data: Supplies the scored and the calibration images.
      split: Which split to score, `validate` or `train`. The name `test` is refused;
        what `data.open_test(reason)` returned is scored, but `search` will not take it.
      loss: `(outputs, targets) -> [n]`, or several such metrics by name with "loss".
      recalibrate: False keeps the statistics that the weights come with; for weights
        whose statistics are those of one arch.
      race: When to stop scoring a candidate; None scores each on all images.
      resources: Memory, cache, and the devices that a population is spread over.
      engine: Shares another's programs, and its mesh; None makes one.

    Raises:
      ValueError: If the split is `test`, labels fall outside the head's classes, a
        metric is not one number an example, a race is over no metric, or devices are
        named besides the engine's mesh.
      MemoryError: If the calibration images do not fit the memory limit.

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
        race: Race | None = None,
        resources: Resources | None = None,
        engine: Engine | None = None,
    ):
        scored = data.split(split) if isinstance(split, str) else split
        named = (
            n for n in ("train", "validate", "calibrate") if data.split(n) is split
        )
        self.split = split if isinstance(split, str) else next(named, "test")
        self.supernet, self.metrics, self.race = supernet, as_metrics(loss), race
        self.engine = engine or Engine(supernet)
        self.settings = {
            "split": self.split,
            "scored": split_digest(scored),
            "metrics": {
                name: metric_name(m) for name, m in sorted(self.metrics.items())
            },
            "calibrate": split_digest(data.calibrate) if recalibrate else "",
        }
        x = jax.ShapeDtypeStruct(scored.x.shape, scored.x.dtype)
        check_metrics(self.metrics, supernet.reachable(x)[-1].out, scored.y)
        self._order = np.arange(len(scored.x))
        if race is not None:
            check_race(race, self.metrics)
            self.settings["race"] = dataclasses.asdict(race)
            self._order = random_order(len(scored.x))
            scored = Split(scored.x[self._order], scored.y[self._order])
        calibration = data.calibrate.x if recalibrate else None
        self._population = self._build(
            scored, calibration, resources or Resources(), data
        )

    def _build(
        self, scored: Split, calibration: Any, resources: Resources, data: Data
    ) -> Population:
        devices, mesh = resources.devices, self.engine.mesh
        if devices is not None and mesh is not None:
            raise ValueError(
                "A batch is split over the engine's mesh, or a population is spread "
                "over devices, but both were asked for. Give an engine without a mesh, "
                "or no `devices`."
            )
        engines = [self.engine]
        if devices is not None:
            here = [d for d in devices if d.process_index == jax.process_index()]
            engines = [Engine(self.supernet, device=device) for device in here]
        resources = resources.filled(engines[0].device)
        size = self._chunk(scored, calibration, resources)
        if self._together:  # then scores depend on who shares a chunk
            self.settings["chunk"] = size
        scorers = [
            Scorer(
                EvaluationBlocks(engine, self.metrics, resources.memory_limit),
                scored,
                calibration,
                chunk=size,
                cache=BoundedCache(resources.cache_bytes or 0),
                siblings=resources.siblings or 1,
            )
            for engine in engines
        ]
        self._kept = BoundedCache(resources.cache_bytes or 0)  # whole scores
        costs = Costs(self.supernet, data.train.x[:1])
        return Population(scorers, devices, lambda path: _block_costs(costs, path))

    def _chunk(self, scored: Split, calibration: Any, resources: Resources) -> int:
        x = jax.ShapeDtypeStruct(scored.x.shape, scored.x.dtype)
        images = None if calibration is None else abstract(calibration)
        if self.race is not None:
            part = -(-len(scored.x) // self.race.parts)
            part = min(part, resources.chunk or part)
            resources = dataclasses.replace(resources, chunk=part)
        # Examples that are compared with each other are not taken in groups.
        grouped = not self._together
        size = plan_chunk(self.supernet, x, images, resources, grouped)
        return _round_up(size, self.engine.num_devices, 64 if grouped else 1)

    @property
    def _together(self) -> bool:
        return any(map(compares_examples, self.metrics.values()))

    @property
    def settings_digest(self) -> str:
        """16 hexadecimal digits of what a score depends on but arch and weights."""
        return settings_digest(self.settings)

    @property
    def n(self) -> int:
        """Number of examples that are scored."""
        return len(self._order)

    @property
    def counts(self) -> dict[str, int]:
        """Blocks computed so far by this process: {"calibrate", "evaluate", "score"}.

        Stem and other layers count under "calibrate" and "evaluate", for the images of
        either kind, heads under "calibrate" and "score"; chunks are counted each.
        """
        each = [scorer.blocks.counts for scorer in self._population.scorers]
        return {kind: sum(counts[kind] for counts in each) for kind in each[0]}

    @property
    def num_programs(self) -> int:
        """Number of programs compiled so far, over all devices of this process."""
        engines = [scorer.blocks.engine for scorer in self._population.scorers]
        return sum(engine.num_programs for engine in engines)

    def shares(self, archs: Sequence[Sequence[int]]) -> list[list[Path]]:
        """Return which paths each device scores, all processes included."""
        return self._population.shares([self.supernet.path(a) for a in archs])

    def warm_up(self, on_progress=lambda done, total: None, limit: int = 500) -> float:
        """Compile everything that scoring runs, in threads; return the seconds."""
        scorers = self._population.scorers
        jobs = [job for scorer in scorers for job in scorer.warm_up_jobs()]
        return self.engine.warm_up(jobs, on_progress, limit * len(scorers))

    def __call__(
        self,
        weights: Weights,
        archs: Sequence[Sequence[int]],
        on_progress: Callable[[int, int], Any] = lambda done, total: None,
        *,
        equal_networks_once: bool = False,
    ) -> Scores:
        """Score archs; equal paths are scored once.

        Args:
          weights: Shared weights.
          archs: Any number of archs, in any order.
          on_progress: Called with (paths done, paths in all), those of this process.
          equal_networks_once: Whether archs that are one network when trained alone
            get the score of their canonical arch (`space.canonical`), although the
            weights that they inherit differ.

        Returns:
          Scores in the order of `archs`.

        Raises:
          ValueError: If an arch is not one of the space, or these are no weights.
          MemoryError: If the calibration images do not fit a block.
        """
        check_weights(weights)
        space, start = self.supernet.space, time.perf_counter()
        archs = tuple(space.check(a) for a in archs)
        scored = map(space.canonical, archs) if equal_networks_once else archs
        paths, inverse = unique(self.supernet.path(a) for a in scored)
        self._kept.bind(weights)
        found = {p: v for p in paths if (v := self._kept.get(p)) is not None}
        new = [path for path in paths if path not in found]
        known = len(found)
        found |= self._population(
            weights,
            new,
            lambda done: on_progress(known + done, len(paths)),
            self._losers if self.race is not None else None,
        )
        if self.race is not None:  # those that left it early are done, too
            on_progress(len(paths), len(paths))
        else:  # what a race measures depends on who else took part
            for path in new:
                self._kept.put(path, found[path], nbytes(found[path]))
        seconds = (time.perf_counter() - start) / max(1, len(new))
        return self._scores(archs, [paths[i] for i in inverse], found, new, seconds)

    def _scores(
        self, archs, paths: Sequence[Path], found: Found, new: Sequence[Path], each
    ) -> Scores:
        n, unpaid = len(self._order), set(new)
        table = {m: np.full((len(archs), n), np.nan, np.float32) for m in self.metrics}
        scored, seconds = np.zeros((len(archs), n), bool), np.zeros(len(archs))
        for i, path in enumerate(paths):
            for name, values in found[path].items():
                places = self._order[: len(values)]  # chunks are filled up at the end
                table[name][i, places] = values[: len(places)]
                scored[i, places] = True
            seconds[i] = each if path in unpaid else 0.0
            unpaid.discard(path)
        whole = self.race is None
        return Scores(archs, table, seconds, None if whole else scored)

    def _losers(self, found: Found, alive: Sequence[Path]) -> set[Path]:
        assert self.race is not None
        values = np.stack([found[path][self.race.metric] for path in alive])
        out = self.race.losers(values, len(self._order), len(found))
        return {path for path, lost in zip(alive, out, strict=True) if lost}

    def recalibrated(self, weights: Weights, arch: Sequence[int]) -> Weights:
        """Return the weights with the statistics that scoring `arch` uses."""
        scorer, path = self._population.scorers[0], self.supernet.path(arch)
        return Weights(
            weights.params, {**weights.state, **scorer.statistics(weights, path)}
        )


def _block_costs(costs: Costs, path: Path) -> list[float]:
    # Blocks without products still read and write their activations.
    return [
        float(block.macs + sum(a.size for a in jax.tree.leaves(block.out)))
        for block in costs.steps(path)
    ]


def _round_up(size: int, devices: int, most: int) -> int:
    """Return a chunk that splits over devices and, if cheaply, into groups of `most`
    examples or a half, a quarter and so on."""
    for multiple in (m for m in (64, 32, 16, 8, 4, 2, 1) if m <= most):
        padded = -(-size // (multiple * devices)) * multiple * devices
        if padded <= size * 1.02 or multiple == 1:
            return padded
    raise AssertionError("the last multiple always fits")
