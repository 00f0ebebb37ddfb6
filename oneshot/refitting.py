"""An evaluator that also scores archs by a head refitted to each one's features."""

from __future__ import annotations

from oneshot.data import Data
from oneshot.evaluate import Evaluator
from oneshot.features import OfOutputs, Refitted, with_features
from oneshot.resources import Resources
from oneshot.supernet import Supernet
from oneshot.tasks import Task

# A head is refitted to about so many at a time: a number that followed from the memory
# at hand would change the scores.
TOGETHER = 1024


def refitting(supernet: Supernet, data: Data, task: Task) -> Evaluator:
    """Return an evaluator of a task's metrics and of "refitted", less is better.

    Args:
      supernet: Whose archs.
      data: Its validation split is scored, in about equal parts of up to 1,024
        examples, to each of which a head is refitted; fewer if memory lacks, which the
        evaluator's settings tell.
      task: Says what the metrics are, and of what its labels are.

    Raises:
      ValueError: If the task has not one label an example.

    Example:
      >>> evaluator = refitting(net, data, TASKS["cross_entropy"])
      >>> evaluator(state.weights, archs).mean("refitted").argmin()
    """
    if task.labels != "example":
        raise ValueError(
            "A head is refitted to features of examples that have one label each, but "
            f"a task judged by its {task.headline.words} labels each {task.labels}. "
            "Rank by the loss."
        )
    plain = {name: OfOutputs(metric) for name, metric in task.metrics.items()}
    return Evaluator(
        with_features(supernet),
        data,
        loss={**plain, "refitted": Refitted()},
        resources=Resources(chunk=part_of(len(data.validate.x))),
    )


def part_of(n: int) -> int:
    """Return how many of n examples share a refitted head."""
    return -(-n // -(-n // TOGETHER))
