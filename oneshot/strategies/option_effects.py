"""What each option was worth so far: moving means over the archs that had it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from oneshot.space import Arch, SearchSpace


@dataclasses.dataclass(frozen=True)
class OptionMeans:
    """The moving mean of a number over the paths that read each option.

    The first 1 / rate values of an option count equally, later ones outweigh older
    ones. Choices that a path does not read learn nothing from it.

    Args:
      space: The space that archs are of.
      rate: Weight of a new value once there are many, in (0, 1].

    Raises:
      ValueError: If `rate` is out of range.

    Example:
      >>> from oneshot.space import Choice
      >>> means = OptionMeans(SearchSpace([Choice("kernel", (3, 5))]))
      >>> state = means.update(means.update(means.init(), (1,), 4.0), (1,), 2.0)
      >>> state
      {'means': [[0.0, 3.0]], 'counts': [[0, 2]]}
    """

    space: SearchSpace
    rate: float = 0.02

    def __post_init__(self):
        if not 0 < self.rate <= 1:
            raise ValueError(
                "The `rate` of a moving mean is above 0 and at most 1, but got "
                f"{self.rate}."
            )

    def init(self) -> dict[str, Any]:
        """Return the state before the first value: every mean and count 0."""
        sizes = [len(c.options) for c in self.space.choices]
        return {"means": [[0.0] * n for n in sizes], "counts": [[0] * n for n in sizes]}

    def update(self, state: Any, arch: Arch, value: float) -> dict[str, Any]:
        """Return the state with `value` of `arch` in it; as it was if not finite."""
        if not math.isfinite(value):  # one diverged path shall not poison the means
            return state
        means = [list(row) for row in state["means"]]
        counts = [list(row) for row in state["counts"]]
        for i in self.space.read(arch):
            o = arch[i]
            means[i][o] = moved(means[i][o], counts[i][o], value, self.rate)
            counts[i][o] += 1
        return {"means": means, "counts": counts}


@dataclasses.dataclass(frozen=True)
class OptionEffects:
    """Additive main effects of options on the loss: how far above the mean of all.

    The loss of an arch is predicted as a running mean plus an effect for each option
    that it reads. A loss enters as its distance from the running mean of its time, so
    that options seen early, when all losses were high, are not held to be bad. Effects
    are those of the archs that were drawn: right for choices drawn independently of
    each other.

    Args:
      space: The space that archs are of.
      rate: Weight of a new loss once there are many, in (0, 1].

    Raises:
      ValueError: If `rate` is out of range.

    Example:
      >>> from oneshot.space import Choice
      >>> effects = OptionEffects(SearchSpace([Choice("kernel", (3, 5))]))
      >>> state = effects.update(effects.init(), [(0,), (1,)], [1.0, 3.0])
      >>> effects.predict(state, [(0,), (1,)])
      array([1., 3.])
    """

    space: SearchSpace
    rate: float = 0.02

    def __post_init__(self):
        _ = self._means  # refuses a rate out of range

    @property
    def _means(self) -> OptionMeans:
        return OptionMeans(self.space, self.rate)

    def init(self) -> dict[str, Any]:
        """Return the state before the first loss: no option differs from another."""
        return {"mean": 0.0, "count": 0, "options": self._means.init()}

    def update(
        self, state: Any, archs: Sequence[Arch], losses: Sequence[float]
    ) -> dict[str, Any]:
        """Return the state with the losses of a step's archs; NaN counts for nothing.

        The losses of one step are of one time: all move the running mean first.
        """
        pairs = [(a, v) for a, v in zip(archs, losses, strict=True) if math.isfinite(v)]
        mean, count, options = state["mean"], state["count"], state["options"]
        for _, loss in pairs:
            mean, count = moved(mean, count, loss, self.rate), count + 1
        for arch, loss in pairs:
            options = self._means.update(options, arch, loss - mean)
        return {"mean": mean, "count": count, "options": options}

    def effects(self, state: Any) -> list[np.ndarray]:
        """Return the effect of each option of each choice; 0 where never seen."""
        return [np.array(row) for row in state["options"]["means"]]

    def predict(self, state: Any, archs: Sequence[Arch]) -> np.ndarray:
        """Return the predicted loss of each arch, [n]."""
        rows, mean = state["options"]["means"], state["mean"]
        read = [(arch, self.space.read(arch)) for arch in archs]
        return np.array([mean + sum(rows[i][a[i]] for i in at) for a, at in read])


def moved(mean: float, count: int, value: float, rate: float) -> float:
    """Return a moving mean of `count` values with one more: first a plain mean."""
    return mean + max(rate, 1 / (count + 1)) * (value - mean)
