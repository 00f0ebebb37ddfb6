"""What an evaluator is given, looked at before anything is compiled."""

from __future__ import annotations

from typing import Any

from oneshot.features import OfOutputs
from oneshot.losses import Metrics, check_labels, check_shape, compares_examples
from oneshot.racing import Race


def check_metrics(metrics: Metrics, outputs: Any, targets: Any) -> None:
    """Raise if metrics do not fit the targets.

    Args:
      metrics: By name, with a "loss".
      outputs: Abstract outputs of the head for the scored examples.
      targets: Theirs.

    Raises:
      ValueError: If labels fall outside the head's classes, or a metric is not one
        number an example.
    """
    loss, heads = metrics["loss"], outputs
    if isinstance(loss, OfOutputs):
        heads, loss = outputs[0], loss.metric
    check_labels(heads, targets, loss)
    for name, metric in metrics.items():
        check_shape(name, metric, outputs, targets)


def check_race(race: Race, metrics: Metrics) -> None:
    """Raise if candidates cannot race by these metrics.

    Raises:
      ValueError: If what the race compares is not measured, or a metric compares
        examples with each other.
    """
    if race.metric not in metrics:
        raise ValueError(
            f"The race compares {race.metric!r}, which is not measured; there are "
            f"{sorted(metrics)}. Name one of those, or give the evaluator that metric."
        )
    if together := [name for name, m in metrics.items() if compares_examples(m)]:
        raise ValueError(
            "A race compares means over more and more examples, but the value of one "
            f"by {together[0]!r} depends on the others of its chunk. Leave out the "
            "race, or that metric."
        )
