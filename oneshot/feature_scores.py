"""An evaluator that also scores archs by what their head is given."""

from __future__ import annotations

from oneshot.data import Data
from oneshot.evaluate import Evaluator
from oneshot.features import Alignment, OfOutputs, Refitted, with_features
from oneshot.resources import Resources
from oneshot.supernet import Supernet
from oneshot.tasks import Task

# About so many examples are compared with each other: a number that followed from the
# memory at hand would change the scores.
TOGETHER = 1024


def scoring_features(supernet: Supernet, data: Data, task: Task) -> Evaluator:
    """Return an evaluator of a task's metrics, and of two of features.

    Those are "alignment" (minus it) and "refitted", so that less is better of either;
    see `oneshot.features`.

    Args:
      supernet: Whose archs.
      data: Its validation split is scored, in about equal parts of up to 1,024
        examples, which are compared among themselves.
      task: Says what the metrics are, and of what its labels are.

    Raises:
      ValueError: If the task has not one label an example.
      MemoryError: If so many examples do not fit.

    Example:
      >>> evaluator = scoring_features(net, data, TASKS["cross_entropy"])
      >>> evaluator(state.weights, archs).mean("alignment").argmin()
    """
    if task.labels != "example":
        raise ValueError(
            "Features are scored of examples that have one label each, but a task "
            f"judged by its {task.headline.words} labels each {task.labels}. Rank by "
            "the loss."
        )
    plain = {name: OfOutputs(metric) for name, metric in task.metrics.items()}
    return Evaluator(
        with_features(supernet),
        data,
        loss={**plain, "alignment": Alignment(), "refitted": Refitted()},
        resources=Resources(chunk=part_of(len(data.validate.x))),
    )


def part_of(n: int) -> int:
    """Return how many of n examples are compared with each other."""
    return -(-n // -(-n // TOGETHER))
