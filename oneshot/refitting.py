"""An evaluator that also scores archs by a head refitted to each one's features."""

from __future__ import annotations

from oneshot.data import Data
from oneshot.evaluate import Evaluator
from oneshot.features import OfOutputs, Refitted, with_features
from oneshot.resources import Resources
from oneshot.supernet import Supernet
from oneshot.tasks import Task

# A head is refitted to about so many at a time: of more than that it learns little,
# and a number that followed from the memory at hand would change the scores.
TOGETHER = 1024


def refitting(supernet: Supernet, data: Data, task: Task) -> Evaluator:
    """Return an evaluator of a task's metrics and of "refitted", less is better.

    Args:
      supernet: Whose archs.
      data: Its validation split is scored, in equal parts of up to 1,024 examples, to
        each of which a head is refitted.
      task: Says what the metrics are, and of what its labels are.

    Raises:
      ValueError: If the task's labels belong to no place of the features.

    Example:
      >>> evaluator = refitting(net, data, TASKS["cross_entropy"])
      >>> evaluator(state.weights, archs).mean("refitted").argmin()
    """
    if task.pool is None:
        raise ValueError(
            "A head is refitted to features whose labels are known, but the labels of "
            f"a task judged by its {task.headline.words} belong to no place in its "
            "input. Rank by the loss."
        )
    n = len(data.validate.x)
    parts = -(-n // TOGETHER)
    plain = {name: OfOutputs(metric) for name, metric in task.metrics.items()}
    return Evaluator(
        with_features(supernet, pool=task.pool),
        data,
        loss={**plain, "refitted": Refitted()},
        resources=Resources(chunk=-(-n // parts)),
    )
