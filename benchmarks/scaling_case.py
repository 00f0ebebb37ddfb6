"""One size of a supernet: its warm-up, and the time of its steps and scores."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from benchmarks.clock import Times
from benchmarks.evaluators import uncached
from benchmarks.networks import Network
from benchmarks.results import spread
from benchmarks.scaling_space import batch, chain, common_archs, data, skipping
from benchmarks.stepper import SEED, Stepper
from oneshot.evaluate import Evaluator
from oneshot.space import Arch
from oneshot.supernet import Supernet, Weights

PATHS = 3
Built = tuple[Supernet, Weights]


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a chain and its inputs."""

    layers: int = 8
    options: int = 3
    batch: int = 64
    channels: int = 64


@dataclasses.dataclass
class Case:
    """A chain that has compiled its programs, and the times of its paths.

    Attributes:
      size: Of the chain.
      stepper: Takes its steps.
      evaluator, weights: Score its archs.
      archs: The skipping one first, then those of equal blocks.
      steps, scores: Times of each arch.
      warmup: Programs and seconds, of training and of scoring.
    """

    size: Size
    stepper: Stepper
    evaluator: Evaluator
    weights: Weights
    archs: list[Arch]
    steps: list[Times]
    scores: list[Times]
    warmup: dict[str, float]

    @staticmethod
    def make(size: Size, built: Built) -> Case:
        """Compile everything that a chain runs with this size of batch."""
        net, weights = built
        archs = [skipping(size.layers), *common_archs(SEED, size.layers, PATHS)]
        inputs = batch(SEED, size.batch)
        network = Network("chain", net, net, inputs, {"skip": archs[0]})
        stepper = Stepper.make(network, inputs, weights=weights)
        evaluator = uncached(net, data(SEED, size.batch))
        warmup = {
            "train_seconds": stepper.trainer.warm_up(inputs),
            "train_programs": stepper.trainer.engine.num_programs,
            "score_seconds": evaluator.warm_up(),
            "score_programs": evaluator.num_programs,
        }
        times = [[Times() for _ in archs] for _ in range(2)]
        return Case(size, stepper, evaluator, weights, archs, *times, warmup)

    def measure(self, *, timed: bool = True) -> None:
        """Take a step and a score of each arch."""
        for arch, steps, scores in zip(
            self.archs, self.steps, self.scores, strict=True
        ):
            (steps if timed else Times()).take(lambda a=arch: self.stepper(a))
            (scores if timed else Times()).take(
                lambda a=arch: self.evaluator(self.weights, [a])
            )

    def ms(self, kind: str) -> float:
        """Return the mean over archs of the median time of "steps" or "scores"."""
        return statistics.mean(t.median() for t in getattr(self, kind)[1:])

    def block_ms(self, kind: str, clock: str = "wall") -> float:
        """Return the time of one block: a path's less that of stem and head."""
        skip, *others = (t.median(clock) for t in getattr(self, kind))
        return (statistics.mean(others) - skip) / self.size.layers

    def flat(self) -> dict[str, Any]:
        """Return the numbers of this size."""
        spreads = [spread(t.wall) for t in self.steps]
        return {
            "step_ms": self.ms("steps"),
            "score_ms": self.ms("scores"),
            "block_step_ms": self.block_ms("steps"),
            "block_step_cpu_ms": self.block_ms("steps", "cpu"),
            "block_score_ms": self.block_ms("scores"),
            "spread": statistics.median(spreads),
            **{f"warmup_{key}": value for key, value in self.warmup.items()},
        }


class Chains:
    """Builds each chain once, whatever the sizes of its batches."""

    def __init__(self):
        self._built: dict[tuple[int, int, int], Built] = {}

    def __call__(self, size: Size) -> Built:
        """Return a chain and its weights."""
        key = size.layers, size.options, size.channels
        if key not in self._built:
            net = chain(*key)
            weights = net.init(jax.random.key(SEED), batch(SEED, 1)[0])
            self._built[key] = net, weights
        return self._built[key]


def alternate(
    sizes: Mapping[Any, Size], chains: Chains, repeats: int
) -> dict[Any, Case]:
    """Measure several sizes in turn, after one untimed round."""
    cases = {value: Case.make(size, chains(size)) for value, size in sizes.items()}
    for i in range(repeats + 1):
        for case in cases.values():
            case.measure(timed=i > 0)
    return cases


def flatness(values: Sequence[float]) -> float:
    """Return by how much the largest exceeds the smallest, 0 for equal ones."""
    return max(values) / min(values) - 1
