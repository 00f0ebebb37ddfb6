"""What is known of networks that were trained alone, and how well scores rank them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from oneshot.diagnostics import Ranking, ranking


@dataclasses.dataclass(frozen=True)
class NetworkTruth:
    """Distinct networks, what each reached when trained alone, and what it costs.

    Attributes:
      words: What the truth is, for tables.
      archs: Canonical archs, integers [n, choices].
      seeds: Scores [seeds, n] of each seed, higher is better.
      params: Numbers of parameters [n].
      macs: Numbers of multiply-adds [n].
      depth: Depths [n], or what stands for them.
      depth_words: What the depth counts.
      choosing: Indices, ascending, of networks to choose recipes by.
      strata: Discrete covariates [n, m] that only equal networks are compared within,
        or None.
    """

    words: str
    archs: np.ndarray
    seeds: np.ndarray
    params: np.ndarray
    macs: np.ndarray
    depth: np.ndarray
    depth_words: str
    choosing: np.ndarray
    strata: np.ndarray | None = None

    @property
    def truth(self) -> np.ndarray:
        """Mean scores [n] over the seeds."""
        return self.seeds.mean(axis=0)

    @property
    def reporting(self) -> np.ndarray:
        """Indices, ascending, of all networks that nothing is chosen by."""
        return np.setdiff1d(np.arange(len(self.archs)), self.choosing)

    def only(self, where: np.ndarray) -> NetworkTruth:
        """Return what is known of the networks `where`, all of them to choose by."""
        return dataclasses.replace(
            self,
            archs=self.archs[where],
            seeds=self.seeds[:, where],
            params=self.params[where],
            macs=self.macs[where],
            depth=self.depth[where],
            choosing=np.arange(len(where)),
            strata=None if self.strata is None else self.strata[where],
        )

    def rank(
        self, scores: np.ndarray, where: np.ndarray, drawn: str, seed: int = 0
    ) -> Ranking:
        """Return how well scores [len(where)] of the networks `where` rank them.

        The ceiling is computed where the truth is of several seeds, else unknown.
        """
        several = len(self.seeds) > 1
        return ranking(
            scores,
            self.truth[where],
            params=self.params[where],
            macs=self.macs[where],
            depth=self.depth[where],
            drawn=drawn,
            ceiling=self.seeds[:, where] if several else None,
            strata=None if self.strata is None else self.strata[where],
            seed=seed,
        )


def first_of_a_permutation(total: int, n: int) -> np.ndarray:
    """Return n of `total` indices, ascending, drawn by seed 0."""
    return np.sort(np.random.default_rng(0).permutation(total)[:n])


def table_file(named: Path | None, name: str, whose: str) -> Path:
    """Return the file of a published table.

    Args:
      named: Its folder; None is that which ONESHOT_DATA names.
      name: Of the file.
      whose: Accuracies it holds, in words.

    Raises:
      ValueError: If there is no such file.
    """
    file = (named or Path(os.environ.get("ONESHOT_DATA", ""))) / name
    if not file.is_file():
        raise ValueError(
            f"{whose}'s accuracies are read from {name}, but {file} is no file. Name "
            "its folder by --data or in the environment variable ONESHOT_DATA."
        )
    return file


def rows_of(archs: np.ndarray, table: np.ndarray, file: Path) -> np.ndarray:
    """Return the rows of a table's archs that are given archs.

    Raises:
      ValueError: If one is missing.
    """
    places = {tuple(arch): i for i, arch in enumerate(table.tolist())}
    if missing := [a for a in map(tuple, archs.tolist()) if a not in places]:
        raise ValueError(
            f"{file} holds {len(places)} archs, but {len(missing)} of the space are "
            f"not among them, such as {missing[0]}. Make it again from the published "
            "table."
        )
    return np.array([places[tuple(arch)] for arch in archs.tolist()])
