"""What a search minimises or maximises: functions of a trial with a direction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

from oneshot.trials import Trial


@dataclasses.dataclass(frozen=True)
class Objective:
    """A function of a trial to minimise or to maximise.

    Args:
      name: What it is called.
      metric: The name of a score or of a cost, or `metric(trial) -> float` over the
        trial's `scores`, `costs` and `arch`. By default the score or cost called
        `name`.
      direction: "min" or "max".

    Raises:
      ValueError: If it is on the test split, or the direction is another word.

    Example:
      >>> trial = Trial((0,), (0,), (0,), {"accuracy": 0.9}, {"macs": 4.0})
      >>> Objective("accuracy", direction="max").value(trial)
      0.9
      >>> Objective("x", lambda t: t.scores["accuracy"] * t.costs["macs"]).value(trial)
      3.6
    """

    name: str
    metric: str | Callable[[Trial], float] | None = None
    direction: Literal["min", "max"] = "min"

    def __post_init__(self):
        names = (self.name, self.metric if isinstance(self.metric, str) else "")
        if any(name.lower().startswith("test") for name in names):
            raise ValueError(
                f"Objective {self.name!r} is on the test split. A search that sees the "
                "test split makes its final report worthless, so a search sees only "
                "the validation split. Name a score measured there, such as 'loss'."
            )
        if self.direction not in ("min", "max"):
            raise ValueError(
                f"The direction of objective {self.name!r} is 'min' or 'max', but got "
                f"{self.direction!r}."
            )

    def value(self, trial: Trial) -> float:
        """Return its value for `trial`, in its own direction; NaN if that failed.

        Raises:
          ValueError: If the trial has no such score or cost.
        """
        if trial.status == "failed":
            return math.nan
        if callable(self.metric):
            return float(self.metric(trial))
        return _metric(trial, self.metric or self.name)

    def minimised(self, trial: Trial) -> float:
        """Return its value with the sign that makes smaller better."""
        return self.value(trial) if self.direction == "min" else -self.value(trial)


def _metric(trial: Trial, name: str) -> float:
    for numbers in (trial.scores, trial.costs):
        if name in numbers:
            return float(numbers[name])
    raise ValueError(
        f"There is no score or cost called {name!r}; the scores are "
        f"{sorted(trial.scores)} and the costs {sorted(trial.costs)}. Name one of "
        "these, let the evaluator return it, or pass a function of the arch in `costs`."
    )
