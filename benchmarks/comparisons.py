"""What is compared with PyTorch: training steps, forwards, and scoring populations.

Each function alternates the two sides, with a pause between them, and returns flat
numbers. Ratios are PyTorch's time over ours.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.clock import Times, compared, rest
from benchmarks.evaluators import first_scored, uncached
from benchmarks.generation import generation
from benchmarks.pairs import Pair
from benchmarks.peaks import fraction_of_peak
from benchmarks.results import spread
from benchmarks.stepper import RATE, Stepper
from oneshot.evaluate import Evaluator
from oneshot.space import Arch
from oneshot.supernet import Weights

SMALL = 64  # inputs that PyTorch scores at once on its second try


def training(pair: Pair, repeats: int) -> dict[str, Any]:
    """Compare the training steps of the same random paths from equal weights.

    The first round is not timed: it compares losses, which depend on all steps before.
    """
    from benchmarks.torch_spos import TorchStepper, place

    ours = Stepper.make(pair.network, pair.network.batch)
    model = place(pair.make_torch(jax.device_get(ours.state.weights)))
    warmup = ours.trainer.warm_up(pair.network.batch)
    theirs = TorchStepper(model, pair.network.batch, RATE)
    archs, differences = pair.random_archs(), []
    for arch in archs:
        ours(arch)
        loss = float(ours.logged[0]["loss"])
        differences.append(abs(loss - float(theirs(arch))))
    samples = [
        _alternate(lambda a=a: ours(a), lambda a=a: theirs(a), repeats) for a in archs
    ]
    mine, other = (_medians(side) for side in zip(*samples, strict=True))
    macs = 3 * pair.network.batch[1].size * sum(map(pair.work.macs, archs))
    spreads = [spread(t.wall) for both in samples for t in both]
    return compared("train_ratio", other, mine) | {
        "train_ms": statistics.mean(mine.wall),
        "train_ms_pytorch": statistics.mean(other.wall),
        "train_time_spread": statistics.median(spreads),
        "train_paths": len(archs),
        "train_repeats": repeats,
        "train_batch": pair.network.batch[1].size,
        "train_max_loss_difference": max(differences),
        "train_warmup_seconds": warmup,
        "train_peak_fraction": fraction_of_peak(macs, mine.seconds()),
    }


def forward(
    pair: Pair, weights: Weights, model: Any, n: int, repeats: int
) -> dict[str, Any]:
    """Compare forwards of `n` inputs in evaluation mode, in multiply-adds a second."""
    from benchmarks.torch_spos import TorchScorer

    data = first_scored(pair.data, n)
    ours = uncached(pair.network.net, data, recalibrate=False)
    ours.warm_up()
    theirs = TorchScorer(model, data.calibrate.x, data.validate)
    archs = pair.random_archs()
    samples = [
        _alternate(lambda a=a: ours(weights, [a]), lambda a=a: theirs.score(a), repeats)
        for a in archs
    ]
    mine, other = (_medians(side) for side in zip(*samples, strict=True))
    macs = n * sum(map(pair.work.macs, archs))
    return compared(f"forward_ratio_batch{n}", other, mine) | {
        f"forward_gmacs_batch{n}": macs / mine.seconds() / 1e9,
        f"forward_gmacs_batch{n}_pytorch": macs / other.seconds() / 1e9,
        f"forward_peak_fraction_batch{n}": fraction_of_peak(macs, mine.seconds()),
    }


class TorchTimes:
    """Times PyTorch's scoring: all inputs at once, and few at a time.

    A batch whose arrays fit the cache is faster on a CPU, so both are told.

    Args:
      scorer: A `TorchScorer`.
    """

    def __init__(self, scorer: Any):
        self.scorer, self.whole, self.small = scorer, Times(), Times()
        self.splits = len(scorer.x) > SMALL
        self.archs: list[Arch] = []
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    def __call__(self, archs: Sequence[Arch]) -> None:
        """Score archs one at a time."""
        for arch in archs:
            parts = Times()
            parts.take(lambda a=arch: self.scorer.calibrate(a))
            loss, accuracy = parts.take(lambda a=arch: self.scorer.score(a))
            if self.splits:
                parts.take(lambda a=arch: self.scorer.score(a, SMALL))
            self.whole.add(parts, 0, 1)
            self.small.add(parts, 0, 2 if self.splits else 1)
            self.archs.append(arch)
            self.losses.append(loss)
            self.accuracies.append(accuracy)


def whole_space(
    pair: Pair,
    ours: Callable[[Sequence[Arch]], Any],
    theirs: TorchTimes,
    slices: Sequence[Sequence[Arch]],
    sample: Sequence[Arch],
) -> dict[str, Any]:
    """Compare scoring all archs: ours whole, PyTorch's on a sample of them.

    Args:
      pair: The supernets.
      ours: Scores archs by shared prefixes.
      theirs: Scores archs one at a time.
      slices: All archs, in parts that we score one by one.
      sample: Those of them that PyTorch scores; what they take is scaled by
        multiply-adds to what all would take.
    """
    mine, scores = Times(), {}
    parts = np.array_split(np.arange(len(sample)), len(slices))
    for archs, part in zip(slices, parts, strict=True):
        found = mine.take(lambda a=archs: ours(a))
        both = zip(found.loss, found.accuracy, strict=True)
        scores |= dict(zip(archs, both, strict=True))
        rest()
        theirs([sample[i] for i in part])
        rest()
    archs = [arch for part in slices for arch in part]
    losses, accuracies = zip(*(scores[a] for a in sample), strict=True)
    work = pair.work
    macs = work.shared(archs).macs * _images(pair)
    each = [1 / work.shared(part).macs for part in slices]
    out: dict[str, Any] = {
        "rank_seconds": mine.seconds(),
        "rank_seconds_cpu": mine.seconds("cpu"),
        "rank_spread": spread([t * e for t, e in zip(mine.wall, each, strict=True)]),
        "rank_networks": len(archs),
        "rank_networks_pytorch": len(sample),
        "rank_scaled": "PyTorch's time is that of its networks, by multiply-adds",
        "rank_macs_shared": work.ratio(archs),
        "rank_peak_fraction": fraction_of_peak(macs, mine.seconds()),
        "max_score_difference": _largest(losses, theirs.losses),
        "max_accuracy_difference": _largest(accuracies, theirs.accuracies),
    }
    share = work.alone(sample).macs / work.alone(archs).macs
    for name, times in (("", theirs.whole), (f"_batch{SMALL}", theirs.small)):
        for clock, suffix in (("wall", ""), ("cpu", "_cpu")):
            scaled = times.seconds(clock) / share
            out[f"rank_ratio{name}{suffix}"] = scaled / mine.seconds(clock)
            out[f"rank_seconds_pytorch{name}{suffix}"] = scaled
        each = [t / work.macs(a) for t, a in zip(times.wall, sample, strict=True)]
        out[f"rank_spread_pytorch{name}"] = spread(each)
    return out


def generations(
    pair: Pair,
    ours: Callable[[Sequence[Arch]], Any],
    theirs: TorchTimes,
    seeds: Sequence[int],
    loss: Callable[[Sequence[Arch]], Sequence[float]],
) -> dict[str, Any]:
    """Compare scoring one generation of 50, with parents ranked by `loss`."""
    mine, whole, small, macs, differences = Times(), Times(), Times(), [], []
    for seed in seeds:
        archs = generation(pair.network.net.space, seed, loss)
        half, first = len(archs) // 2, len(theirs.archs)
        theirs(archs[:half])
        rest()
        scores = mine.take(lambda a=archs: ours(a))
        rest()
        theirs(archs[half:])
        whole.add(theirs.whole, *range(first, first + len(archs)))
        small.add(theirs.small, *range(first, first + len(archs)))
        differences.append(_largest(scores.loss, theirs.losses[first:]))
        macs.append(pair.work.ratio(archs))
    return (
        compared("generation_ratio", whole, mine)
        | compared(f"generation_ratio_batch{SMALL}", small, mine)
        | {
            "generation_seconds": mine.seconds() / len(seeds),
            "generation_seconds_pytorch": whole.seconds() / len(seeds),
            "generation_macs_shared": statistics.mean(macs),
            "generation_max_score_difference": max(differences),
            "generation_seeds": len(seeds),
        }
    )


def scorers(pair: Pair, seed: int) -> tuple[Evaluator, Weights, Any]:
    """Return our evaluator, warmed up, our weights, and PyTorch's scorer of them."""
    from benchmarks.torch_spos import TorchScorer, place

    weights = pair.weights(seed)
    ours = uncached(pair.network.net, pair.data)
    ours.warm_up()
    model = place(pair.make_torch(weights))
    return ours, weights, TorchScorer(model, pair.data.calibrate.x, pair.data.validate)


def _alternate(ours: Callable, theirs: Callable, repeats: int) -> tuple[Times, Times]:
    """Time both sides in turn, after one untimed call of each."""
    times = Times(), Times()
    for i in range(repeats + 1):
        for side, call in zip(times, (ours, theirs), strict=True):
            (side if i else Times()).take(call)
            rest()
    return times


def _medians(samples: Sequence[Times]) -> Times:
    """Return the median of each, as samples of one."""
    clocks = ([t.median(clock) for t in samples] for clock in ("wall", "cpu"))
    return Times(*clocks)


def _images(pair: Pair) -> int:
    norms = any(m.has_batch_statistics for m in pair.network.net.modules.values())
    return len(pair.data.validate.y) + norms * len(pair.data.calibrate.y)


def _largest(a: Sequence[float], b: Sequence[float]) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())
