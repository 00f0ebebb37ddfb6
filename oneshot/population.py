"""A population spread over devices and processes, by subtrees of about equal cost.

Each device walks its own share of the trie with programs of its own, in a thread; each
process does so for its own devices, and all of them get all scores. A share is a run of
neighbours in the depth-first order, so only the walk from the root to its first path is
computed twice. Which share a path is in changes nothing about its score.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from oneshot.paths import Path, depth_first, partition
from oneshot.placement import Device
from oneshot.scoring import Scorer
from oneshot.supernet import Weights

Found = dict[Path, dict[str, np.ndarray]]  # a metric's values by example
Progress = Callable[[int], Any]  # (paths that this process has done)
Drop = Callable[[Found, Sequence[Path]], set[Path]]  # (values so far, still in)
_FETCHED_AT_ONCE = 64  # paths; the host does not wait for the device before


class Population:
    """Scores paths on one device or on several.

    Args:
      scorers: One for each device of this process.
      devices: All devices, those of other processes included; None where there is only
        the scorer's own.
      cost: The cost of each block of a path, for equal shares.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        devices: Sequence[Device] | None,
        cost: Callable[[Path], Sequence[float]],
    ):
        self.scorers, self.devices, self.cost = scorers, devices, cost
        self._lock = threading.Lock()

    def shares(self, paths: Sequence[Path]) -> list[list[Path]]:
        """Return the paths of each device, all processes included."""
        paths = depth_first(paths)
        if self.devices is None or len(self.devices) == 1:
            return [paths]
        return partition(paths, self.cost, len(self.devices))

    def __call__(
        self,
        weights: Weights,
        paths: Sequence[Path],
        on_progress: Progress,
        drop: Drop | None = None,
    ) -> Found:
        """Return the values of each path.

        Args:
          weights: Shared weights.
          paths: Distinct paths.
          on_progress: Called with the number of paths that this process has done.
          drop: Called between chunks with the values so far and the paths still in;
            returns those of them that get no more images.
        """
        shares, found = self.shares(paths), {}
        for scorer in self.scorers:
            scorer.begin(weights)
        last = self.scorers[0].num_chunks - 1
        for chunk in range(last + 1):
            if not any(shares):  # no path was asked for, or each of them has failed
                break
            progress = on_progress if chunk == last else _ignore
            values = self._everywhere(shares, chunk, progress)
            for path, new in values.items():
                _append(found.setdefault(path, {}), new)
            if drop is not None and chunk < last:
                gone = drop(found, [p for share in shares for p in share])
                shares = [[p for p in share if p not in gone] for share in shares]
        for scorer in self.scorers:
            scorer.end()
        return found

    def _mine(self, shares: Sequence[list[Path]]) -> list[list[Path]]:
        if self.devices is None:
            return list(shares)
        here = jax.process_index()
        return [
            share
            for share, device in zip(shares, self.devices, strict=True)
            if device.process_index == here
        ]

    def _round(
        self,
        shares: Sequence[list[Path]],
        chunk: int,
        on_progress: Progress,
    ) -> Found:
        """Score this process's shares for one chunk, each device in a thread."""
        mine, done = self._mine(shares), itertools.count(1)

        def work(scorer: Scorer, share: list[Path]) -> Found:
            out: Found = {}
            for part in _fetched(scorer(share, chunk)):
                out |= part
                with self._lock:
                    for _ in part:
                        on_progress(next(done))
            return out

        if len(mine) == 1:
            return work(self.scorers[0], mine[0])
        with concurrent.futures.ThreadPoolExecutor(len(mine)) as pool:
            parts = list(pool.map(work, self.scorers, mine))
        return {path: values for part in parts for path, values in part.items()}

    def _everywhere(
        self,
        shares: Sequence[list[Path]],
        chunk: int,
        on_progress: Progress,
    ) -> Found:
        """Score all shares for one chunk; every process gets the values of all."""
        if self.devices is None or jax.process_count() == 1:
            return self._round(shares, chunk, on_progress)
        from jax.experimental import multihost_utils

        own, error = {}, None
        try:
            own = self._round(shares, chunk, on_progress)
        except Exception as raised:  # the others must not wait for ever
            error = raised
        failed = np.asarray(multihost_utils.process_allgather(np.int32(bool(error))))
        if error is not None:
            raise error
        if failed.any():
            raise RuntimeError(
                f"Scoring failed in process {int(failed.argmax())}, which says why; "
                "this one has stopped with it."
            )
        by_process: list[list[Path]] = [[] for _ in range(jax.process_count())]
        for share, device in zip(shares, self.devices, strict=True):
            by_process[device.process_index] += share
        names = sorted(self.scorers[0].blocks.metrics)
        size = len(self.scorers[0].targets(chunk))
        table = np.zeros((max(map(len, by_process)), len(names), size), np.float32)
        for i, path in enumerate(by_process[jax.process_index()]):
            table[i] = [own[path][name] for name in names]
        tables = np.asarray(multihost_utils.process_allgather(table))
        return {
            path: dict(zip(names, values, strict=True))
            for paths, rows in zip(by_process, tables, strict=True)
            for path, values in zip(paths, rows, strict=False)
        }


def _fetched(values: Iterator[tuple[Path, dict[str, Any]]]) -> Iterator[Found]:
    while part := list(itertools.islice(values, _FETCHED_AT_ONCE)):
        yield jax.device_get(dict(part))


def _append(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> None:
    for name, values in new.items():
        old[name] = np.concatenate([old[name], values]) if name in old else values


def _ignore(done: int) -> None:
    del done
