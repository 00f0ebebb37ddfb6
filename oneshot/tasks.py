"""What a run trains for: its loss, what is scored, and the number it is judged by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from oneshot.correlations import wilson_interval
from oneshot.losses import (
    CLASSIFICATION,
    CTC,
    Metric,
    Metrics,
    SmoothedCrossEntropy,
    SmoothedNextToken,
    bits,
    next_token,
    token_accuracy,
)
from oneshot.scores import Scores
from oneshot.settings import RunSettings


@dataclasses.dataclass(frozen=True)
class Headline:
    """The metric that a network is judged by, and how it is printed.

    Args:
      metric: Its name among the task's metrics.
      words: Its name in print.
      form: How a value is printed, as `format` takes it.
      proportion: Whether each example is simply right (1) or wrong (0).
    """

    metric: str
    words: str
    form: str
    proportion: bool = False

    def text(self, value: float) -> str:
        """Return a value in print.

        Example:
          >>> TASKS["cross_entropy"].headline.text(0.912)
          '91.2%'
        """
        return format(value, self.form)

    def row(self, scores: Scores, prefix: str) -> dict[str, Any]:
        """Return the first arch's mean and its 95 % interval: `<prefix>_low` and so on.

        Wilson's for a proportion, else 1.96 standard errors to either side.
        """
        mean, n = float(scores.mean(self.metric)[0]), scores.n
        if self.proportion:
            correct = round(mean * n)
            low, high = wilson_interval(correct, n)
            more = {f"{prefix}_correct": correct}
        else:
            error = 1.96 * float(scores.standard_error(self.metric)[0])
            low, high, more = mean - error, mean + error, {}
        bounds = {f"{prefix}_low": low, f"{prefix}_high": high}
        return {f"{prefix}_{self.metric}": mean, **bounds, **more}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Task:
    """A loss, the metrics that are scored, and the headline among them.

    Args:
      metrics: Functions `(outputs, targets) -> [n]` by name, with "loss".
      headline: Which of them is printed first.
      smoothed: `amount -> loss` with smoothed labels, or None where that means nothing.
      labels: What has a label: each example, each of its places, or none of them, as
        of a sequence whose labels' places are not known.
    """

    metrics: Metrics
    headline: Headline
    smoothed: Callable[[float], Metric] | None = None
    labels: Literal["example", "place", "sequence"] = "example"

    def training(self, settings: RunSettings) -> dict[str, Metric]:
        """Return the metrics to train by; the loss is smoothed if that is asked for.

        Raises:
          ValueError: If this loss has no smoothed form.
        """
        amount = settings.label_smoothing
        if not amount:
            return dict(self.metrics)
        if self.smoothed is None:
            raise ValueError(
                f"`label_smoothing` is {amount}, but the loss {settings.loss!r} has no "
                "labels to smooth. Leave it at 0."
            )
        return {**self.metrics, "loss": self.smoothed(amount)}


TASKS = {
    "cross_entropy": Task(
        CLASSIFICATION,
        Headline("accuracy", "accuracy", ".1%", proportion=True),
        SmoothedCrossEntropy,
    ),
    "next_token": Task(
        {"loss": next_token, "bits": bits, "token_accuracy": token_accuracy},
        Headline("bits", "bits a token", ".4f"),
        SmoothedNextToken,
        labels="place",
    ),
    "ctc": Task(
        CTC,
        Headline("token_error_rate", "token error rate", ".1%"),
        labels="sequence",
    ),
}


def task_of(settings: RunSettings) -> Task:
    """Return the task that a run's `loss` names."""
    return TASKS[settings.loss]
