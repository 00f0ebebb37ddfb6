"""One process of a scoring over several: python scoring_worker.py I COUNT PORT DIR."""

import sys
from pathlib import Path

import jax
import numpy as np

rank, count, port, folder = sys.argv[1:5]
jax.distributed.initialize(
    f"127.0.0.1:{port}", num_processes=int(count), process_id=int(rank)
)

from supernets import BY_NAME  # noqa: E402 (after the processes have met)

from oneshot.evaluate import Evaluator  # noqa: E402
from oneshot.resources import Resources  # noqa: E402


def no_room(*args):
    raise MemoryError("no room")


reference = BY_NAME["mixed"]
net = reference.make()
resources = Resources(devices=jax.devices())
evaluator = Evaluator(net, reference.data(n=30), resources=resources)
if "fail" in sys.argv and rank == "1":
    evaluator._population.scorers[0].blocks.evaluate = no_room
scores = evaluator(reference.weights(net), reference.archs(net, 12))
np.savez(
    Path(folder) / f"scores{rank}.npz",
    loss=scores.loss,
    accuracy=scores.accuracy,
    paths=evaluator.counts["score"],
)
jax.distributed.shutdown()
