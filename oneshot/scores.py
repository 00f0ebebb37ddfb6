"""The scores of archs: values by example, their means and standard errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from oneshot.space import Arch

Groups = Sequence[Any] | np.ndarray  # a group's name for each example


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of archs, in the order in which the archs were given.

    Attributes:
      archs: The archs.
      examples: Values by metric, [archs, n], one for each scored example.
      seconds: Time spent on each arch, shared evenly; 0 for one whose score was known.
      scored: Which examples each arch was scored on, bool [archs, n]; None for all.
        Values of the others are NaN.
    """

    archs: tuple[Arch, ...]
    examples: dict[str, np.ndarray]
    seconds: np.ndarray
    scored: np.ndarray | None = None

    @property
    def n(self) -> int:
        """Number of examples to score."""
        return next(iter(self.examples.values())).shape[1]

    @property
    def images(self) -> np.ndarray:
        """Number of examples that each arch was scored on, [archs]."""
        if self.scored is None:
            return np.full(len(self.archs), self.n)
        return self.scored.sum(1)

    def mean(self, metric: str) -> np.ndarray:
        """Return the mean over examples, [archs], in float64."""
        return self._moments(self.examples[metric], self.scored)[0]

    def standard_error(self, metric: str) -> np.ndarray:
        """Return the standard error of the mean over examples, [archs]."""
        _, variance = self._moments(self.examples[metric], self.scored)
        return np.sqrt(variance / self.images)

    @staticmethod
    def _moments(
        values: np.ndarray, scored: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        values = values.astype(np.float64)
        if scored is None:
            scored = np.ones(values.shape, bool)
        n = scored.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(scored, values, 0).sum(1) / n
            squares = np.where(scored, np.square(values - mean[:, None]), 0).sum(1)
            return mean, np.where(n > 1, squares / (n - 1), np.nan)

    @property
    def loss(self) -> np.ndarray:
        """Mean loss, [archs]."""
        return self.mean("loss")

    @property
    def accuracy(self) -> np.ndarray:
        """Mean accuracy in 0 to 1, [archs]."""
        return self.mean("accuracy")

    def by_group(
        self, metric: str, groups: Sequence[Any] | np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the mean of a metric over each group's examples, [archs], by group.

        Args:
          metric: Which metric.
          groups: A group's name for each example, [n].

        Returns:
          Means by group; NaN for an arch that was scored on none of its examples.

        Example:
          >>> accuracy = scores.by_group("accuracy", data.validate_speaker)
          >>> worst = np.min([*accuracy.values()], axis=0)
        """
        names = np.asarray(groups).astype(str)
        values = self.examples[metric]
        scored = np.ones(values.shape, bool) if self.scored is None else self.scored
        return {
            str(group): self._moments(values, scored & (names == group)[None])[0]
            for group in np.unique(names)
        }

    def rows(self, groups: Groups | None = None) -> list[dict[str, float]]:
        """Return one mapping for each arch, with plain numbers.

        Its keys are each metric's name (the mean), `<metric>_se` (its standard error)
        and `n` (examples); with groups also `<metric>[<group>]`, and `<metric>_lowest`
        and `<metric>_highest` over the groups, of those that the arch was scored on.

        Args:
          groups: A group's name for each example, [n], or None.
        """
        columns = {m: self.mean(m) for m in self.examples}
        columns |= {f"{m}_se": self.standard_error(m) for m in self.examples}
        images = self.images
        rows: list[dict[str, float]] = [
            {**{k: float(v[i]) for k, v in columns.items()}, "n": int(images[i])}
            for i in range(len(self.archs))
        ]
        for m in self.examples if groups is not None else ():
            self._add_groups(rows, m, np.asarray(groups).astype(str))
        return rows

    def _add_groups(
        self, rows: list[dict[str, float]], metric: str, groups: np.ndarray
    ) -> None:
        means = self.by_group(metric, groups)
        for i, row in enumerate(rows):
            # A race may stop before an arch saw a small group: no score, no failure.
            seen = groups if self.scored is None else groups[self.scored[i]]
            own = {g: float(means[str(g)][i]) for g in np.unique(seen)}
            row |= {f"{metric}[{group}]": mean for group, mean in own.items()}
            row[f"{metric}_lowest"] = float(np.min([*own.values()]))
            row[f"{metric}_highest"] = float(np.max([*own.values()]))
