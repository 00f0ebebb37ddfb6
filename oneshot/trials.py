"""The trial store: one SQLite file that remembers every arch that was scored.

A trial is keyed by its path, the digest of the weights and the digest of the
evaluator's settings, so a stored score is never stale. A batch is one transaction in
write-ahead mode: a process that is killed loses at most the batch it was writing, and
others can read at the same time.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from oneshot.space import Arch, SearchSpace

_SCHEMA_VERSION = "1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  path TEXT NOT NULL,
  weights_digest TEXT NOT NULL,
  settings_digest TEXT NOT NULL,
  arch TEXT NOT NULL,
  canonical TEXT NOT NULL,
  scores TEXT NOT NULL,
  costs TEXT NOT NULL,
  seconds REAL NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('done', 'failed')),
  reason TEXT NOT NULL,
  step INTEGER NOT NULL,
  UNIQUE (path, weights_digest, settings_digest)
);
"""
_COLUMNS = (
    "arch, path, canonical, scores, costs, seconds, status, reason, step, "
    "weights_digest, settings_digest"
)
# A second scoring of a key replaces the numbers and keeps its place in the order.
_INSERT = f"""
INSERT INTO trials ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path, weights_digest, settings_digest) DO UPDATE SET
  arch = excluded.arch, canonical = excluded.canonical, scores = excluded.scores,
  costs = excluded.costs, seconds = excluded.seconds, status = excluded.status,
  reason = excluded.reason, step = excluded.step
"""
_META = "INSERT OR IGNORE INTO meta VALUES (?, ?)"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One scored arch.

    Args:
      arch: The arch as it was asked.
      path: Its path key: trials with equal paths have equal scores.
      canonical: Its canonical arch: equal for archs that are one network.
      scores: What the evaluator measured, by name.
      costs: What is known without evaluating, by name.
      seconds: Time of the evaluation, shared evenly within its batch.
      status: "done" or "failed". A score that is not finite makes it "failed".
      reason: Why it failed; empty if it did not.
      step: Its place in the search that asked for it, from 0.
      weights_digest: Names the weights it was scored with.
      settings_digest: Names the evaluator's settings.
    """

    arch: Arch
    path: Arch
    canonical: Arch
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    status: Literal["done", "failed"] = "done"
    reason: str = ""
    step: int = 0
    weights_digest: str = ""
    settings_digest: str = ""

    def __post_init__(self):
        bad = [name for name, v in self.scores.items() if not math.isfinite(v)]
        if bad and self.status == "done":
            object.__setattr__(self, "status", "failed")
            reason = f"the score {bad[0]!r} is {self.scores[bad[0]]}"
            object.__setattr__(self, "reason", reason)


class Trials:
    """A store of trials in one SQLite file; use it in a `with` statement.

    Args:
      path: The file, made if absent; ":memory:" for a store that is not kept.
      space: The space whose trials these are; see `bind`.

    Raises:
      ValueError: If the file is no trial store, or one of another space or version.

    Example:
      >>> with Trials(":memory:") as store:
      ...     store.add([Trial((1, 0), (1, 0), (1, 0), {"loss": 0.5})])
      ...     store.lookup([(1, 0), (0, 0)])[1, 0].scores
      {'loss': 0.5}
    """

    def __init__(self, path: str | os.PathLike[str], space: SearchSpace | None = None):
        self.path = os.fspath(path)
        try:
            self._db = sqlite3.connect(self.path, timeout=30.0)
        except sqlite3.OperationalError as error:
            raise ValueError(
                f"The trial store {self.path} could not be opened ({error}). Name a "
                "file in a folder that exists and that you may write to."
            ) from error
        try:
            self._open()
            if space is not None:
                self.bind(space)
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path} is not a usable trial store ({error}). Name another "
                "file, or move this one away to start a new store."
            ) from error
        version = self._meta("schema", _SCHEMA_VERSION)
        if version != _SCHEMA_VERSION:
            raise ValueError(
                f"The trial store {self.path} has format {version}, but this version "
                f"of oneshot reads format {_SCHEMA_VERSION}. Use the version that "
                "wrote it, or name another file."
            )

    def bind(self, space: SearchSpace) -> None:
        """Declare that the trials are of `space`, for good.

        Raises:
          ValueError: If the store already holds trials of another space.
        """
        stored = self._meta("space", space.fingerprint)
        if stored != space.fingerprint:
            raise ValueError(
                f"The trial store {self.path} holds trials of the space {stored}, but "
                f"this search is over the space {space.fingerprint}, whose archs mean "
                "something else. Search the space it was made for, or name another "
                "file."
            )

    def lookup(
        self, paths: Iterable[Arch], weights_digest: str = "", settings_digest: str = ""
    ) -> dict[Arch, Trial]:
        """Return the stored trials among `paths`, by path key.

        Args:
          paths: Path keys.
          weights_digest: Only trials scored with these weights.
          settings_digest: Only trials scored with these settings.

        Returns:
          Trials by path key; paths that were not scored are left out.
        """
        query = (
            f"SELECT {_COLUMNS} FROM trials "
            "WHERE path = ? AND weights_digest = ? AND settings_digest = ?"
        )
        found = {}
        for path in paths:
            key = (_arch_text(path), weights_digest, settings_digest)
            if row := self._db.execute(query, key).fetchone():
                found[tuple(path)] = _trial(row)
        return found

    def add(self, trials: Sequence[Trial]) -> None:
        """Write `trials` in one transaction: after a crash all are there, or none.

        A trial whose key is there already replaces it.
        """
        rows = [_row(trial) for trial in trials]
        with self._db:
            self._db.executemany(_INSERT, rows)

    def all(self) -> list[Trial]:
        """Return every trial, in the order of their first writing."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM trials ORDER BY id")
        return [_trial(row) for row in rows]

    def forget_failed(self) -> int:
        """Delete the failed trials, so that a search tries them again; say how many."""
        with self._db:
            return self._db.execute(
                "DELETE FROM trials WHERE status = 'failed'"
            ).rowcount

    def close(self) -> None:
        """Close the file; the store cannot be used after that."""
        self._db.close()

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM trials").fetchone()[0]

    def _meta(self, name: str, value: str) -> str:
        # Reads first: a store that others are writing to can be opened without a lock.
        query = "SELECT value FROM meta WHERE name = ?"
        if (row := self._db.execute(query, (name,)).fetchone()) is None:
            with self._db:
                self._db.execute(_META, (name, value))
            row = self._db.execute(query, (name,)).fetchone()
        return row[0]


def _arch_text(arch: Sequence[int]) -> str:
    return json.dumps([int(v) for v in arch], separators=(",", ":"))


def _numbers_text(numbers: Mapping[str, float]) -> str:
    # Strict JSON has no NaN or infinity; both come back as NaN.
    values = {str(k): float(v) for k, v in numbers.items()}
    strict = {k: v if math.isfinite(v) else None for k, v in values.items()}
    return json.dumps(strict, allow_nan=False)


def _numbers(text: str) -> dict[str, float]:
    return {k: math.nan if v is None else v for k, v in json.loads(text).items()}


def _row(trial: Trial) -> tuple[object, ...]:
    return (
        *map(_arch_text, (trial.arch, trial.path, trial.canonical)),
        _numbers_text(trial.scores),
        _numbers_text(trial.costs),
        float(trial.seconds),
        trial.status,
        trial.reason,
        int(trial.step),
        trial.weights_digest,
        trial.settings_digest,
    )


def _trial(row: Sequence) -> Trial:
    arch, path, canonical = (tuple(json.loads(text)) for text in row[:3])
    return Trial(arch, path, canonical, _numbers(row[3]), _numbers(row[4]), *row[5:])
