"""Scores a population by shared prefixes against one arch at a time, both ours.

    python -m benchmarks.rank_population --json benchmarks/results/rank_population.json

On NAS-Bench-Macro's space, with 256 images that recalibrate BatchNorm and 512 that are
scored. One at a time, each arch is scored in a call of its own that keeps nothing; by
prefixes, one call scores many. Both alternate, by parts of the space that agree in
their first two choices, or by seeds. Beside each ratio of times stands the exact one of
multiply-adds, stem and head included (`macs_*`); that of times can be larger, because
stem and first layers are shared most, and take most time for each multiply-add:

- `speedup_all`: all 6,561 codes, against one call for each part of them;
- `speedup_distinct`: the same time one at a time, against the 3,969 distinct networks;
- `speedup_generation`: generations of 50 of Single Path One-Shot's search, 10 seeds;
- `speedup_random`: 50 random codes, 3 seeds.

One at a time the 3,969 networks are timed whole; the other 2,592 codes, which are equal
to one of those, on a sample, scaled by multiply-adds. `--alone N` times only N networks
of each of the nine parts so, scales by multiply-adds, and compares the losses of the
rest on few images. Losses of both are compared over all networks (`max_difference`,
relative), and an image may be classified otherwise only where its two largest logits
are within 1e-4 (`max_margin`). `blocks_*` are the blocks
that scoring evaluated for the scored images, stem and head not among them.
`recalibration_share` is the part of the programs' time that calibration takes, measured
in a pass of its own that waits for each program; 256 / 768 of the images are its.

Bars: speedup_all >= 3.5, speedup_distinct >= 5.8, speedup_generation >= 1.8,
speedup_random >= 1.3, max_difference <= 1e-5, recalibration_share <= 0.4. Two hours
on two cores, a third of it with `--alone 60`; `--quick`, to try it out, takes a narrow
network and a few parts of the space.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import inputs, results
from benchmarks.clock import Times, compared, scaled
from benchmarks.evaluators import KINDS, timed_engine, uncached
from benchmarks.generation import generation, random_codes
from benchmarks.pairs import parents_loss
from benchmarks.parts import Part, space_parts
from benchmarks.peaks import fraction_of_peak, shown
from benchmarks.scored import Scored, margin
from benchmarks.work import Work
from oneshot.data import Data
from oneshot.evaluate import Evaluator
from oneshot.losses import cross_entropy
from oneshot.space import Arch
from oneshot.spaces import nb_macro
from oneshot.supernet import Supernet, Weights

SEED = 0
_FEW = (16, 16)  # images that calibrate and that are scored where only losses count
_NARROW = {"width": 0.25, "hidden": 64}
_BARS = {"all": 3.5, "distinct": 5.8, "generation": 1.8, "random": 1.3}


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is scored, by what.

    Attributes:
      net, weights, data: The supernet, its weights, the images.
      evaluator: Scores archs, and keeps nothing between calls.
      work: Counts multiply-adds.
    """

    net: Supernet
    weights: Weights
    data: Data
    evaluator: Evaluator
    work: Work

    @staticmethod
    def make(net: Supernet, data: Data) -> Setup:
        """Return fresh weights and an evaluator that has compiled its programs."""
        weights = net.init(jax.random.key(SEED), data.train.x)
        evaluator = uncached(net, data)
        evaluator.warm_up()
        return Setup(net, weights, data, evaluator, Work(net, data.train.x))

    def together(self, archs: Sequence[Arch], times: Times, found: Scored) -> None:
        """Score archs in one call, as one sample."""
        scores = times.take(lambda: self.evaluator(self.weights, archs))
        found.add(archs, scores)

    def alone(self, archs: Sequence[Arch], times: Times, found: Scored) -> None:
        """Score each arch in a call of its own, all of them as one sample."""
        each = Times()
        for arch in archs:
            scores = each.take(lambda a=arch: self.evaluator(self.weights, [a]))
            found.add([arch], scores)
        times.add(each, *range(len(archs)))

    def margin(self, a: Scored, b: Scored) -> float:
        """Return the largest gap of two logits where both classify unlike; else 0."""
        metrics = {"loss": cross_entropy, "margin": margin}
        evaluator = uncached(
            self.net, self.data, loss=metrics, engine=self.evaluator.engine
        )
        gaps = [
            evaluator(self.weights, [arch]).examples["margin"][0][places].max()
            for arch, places in a.unlike(b).items()
        ]
        return float(max(gaps, default=0.0))


def whole_space(setup: Setup, parts: Sequence[Part], console: Console) -> dict:
    """Compare on all codes and on distinct networks."""
    alone, codes, distinct = Times(), Times(), Times()
    one, all_codes, some = Scored(), Scored(), Scored()
    for part in parts:
        timed, n = Times(), -(-len(part.alone) // 3)
        setup.alone(part.alone[:n], timed, one)
        setup.together(part.codes, codes, all_codes)
        setup.alone(part.alone[n : 2 * n], timed, one)
        setup.together(part.distinct, distinct, some)
        setup.alone(part.alone[2 * n :], timed, one)
        setup.alone(part.sample, timed, one)
        alone.add(scaled(timed, part.factors(setup.work)), 0)
        console.print(
            f"{part.codes[0][:2]}: {alone.wall[-1] / codes.wall[-1]:.2f}, "
            f"{alone.wall[-1] / distinct.wall[-1]:.2f}"
        )
    every = [a for part in parts for a in part.codes]
    canonical = [a for part in parts for a in part.distinct]
    out = compared("speedup_all", alone, codes)
    out |= compared("speedup_distinct", alone, distinct)
    out |= {
        "macs_all": setup.work.ratio(every),
        "macs_distinct": setup.work.ratio(every, canonical),
        "seconds_alone": alone.seconds(),
        "seconds_all": codes.seconds(),
        "seconds_distinct": distinct.seconds(),
        "archs_all": len(every),
        "archs_distinct": len(canonical),
        "archs_alone": sum(len(part.alone) for part in parts),
        "archs_sampled": sum(len(part.sample) for part in parts),
        "alone_scaled": "what was not timed one at a time, by multiply-adds",
    }
    macs = setup.work.shared(canonical).macs * _images(setup.data)
    out["peak_fraction"] = fraction_of_peak(macs, distinct.seconds())
    found = [one.difference(other) for other in (all_codes, some)]
    margins = [setup.margin(one, other) for other in (all_codes, some)]
    return out | {"max_difference": max(found), "max_margin": max(margins)}


def populations(setup: Setup, name: str, archs: Sequence[Sequence[Arch]]) -> dict:
    """Compare on small populations, one a seed."""
    alone, shared = Times(), Times()
    for population in archs:
        half, timed = len(population) // 2, Times()
        setup.alone(population[:half], timed, Scored())
        setup.together(population, shared, Scored())
        setup.alone(population[half:], timed, Scored())
        alone.add(timed, 0, 1)
    macs = [setup.work.ratio(population) for population in archs]
    return compared(f"speedup_{name}", alone, shared) | {
        f"macs_{name}": float(np.mean(macs)),
        f"seconds_{name}": shared.seconds() / len(archs),
    }


def rest_compared(parts: Sequence[Part], seed: int) -> dict[str, Any]:
    """Compare losses of the networks that were not timed alone, on few images."""
    data, _ = inputs.images(None, seed, *_FEW)
    setup, one, many = Setup.make(nb_macro(), data), Scored(), Scored()
    archs = [a for part in parts for a in part.distinct if a not in set(part.alone)]
    setup.alone(archs, Times(), one)
    setup.together(archs, Times(), many)
    return {
        "rest_archs": len(archs),
        "rest_calibrate": _FEW[0],
        "rest_scored": _FEW[1],
        "rest_max_difference": one.difference(many),
        "rest_max_margin": setup.margin(one, many),
    }


def blocks() -> dict[str, int]:
    """Return how many blocks the evaluator runs for the scored images.

    Counted with few images and narrow layers: the paths are those of the whole network.
    """
    net = nb_macro(**_NARROW)
    data, _ = inputs.images(None, SEED, 2, 2)
    weights, evaluator = net.init(jax.random.key(SEED), data.train.x), None
    out = {}
    for name, over in (("all", "archs"), ("distinct", "canonical")):
        evaluator = evaluator or uncached(net, data)
        before = evaluator.counts["evaluate"]
        evaluator(weights, list(net.space.enumerate(over)))
        stem = 1
        out[f"blocks_{name}"] = evaluator.counts["evaluate"] - before - stem
    return out


def recalibration(setup: Setup, archs: Sequence[Arch]) -> dict[str, Any]:
    """Return the share of the programs' time that calibration takes."""
    seconds: dict[str, float] = {}
    engine = timed_engine(setup.net, seconds)
    evaluator = uncached(setup.net, setup.data, engine=engine)
    evaluator.warm_up()
    seconds |= dict.fromkeys(KINDS, 0.0)
    start = time.perf_counter()
    evaluator(setup.weights, archs)
    wall, total = time.perf_counter() - start, sum(seconds.values())
    images = len(setup.data.calibrate.y) / _images(setup.data)
    share = seconds["calibrate"] / total
    return {f"program_seconds_{kind}": seconds[kind] for kind in KINDS} | {
        "recalibration_share": share,
        "recalibration_images": images,
        "recalibration_over_images": share / images,
        "recalibration_archs": len(archs),
        "programs_share_of_wall": total / wall,
    }


def _images(data: Data) -> int:
    return len(data.calibrate.y) + len(data.validate.y)


def table(out: dict[str, Any]) -> Table:
    """Return the speed-ups to print."""
    heads = "one at a time over shared|time|processor|lowest|highest|multiply-adds|bar"
    rows = Table(*heads.split("|"))
    for name, bar in _BARS.items():
        keys = (f"speedup_{name}{s}" for s in ("", "_cpu", "_low", "_high"))
        cells = (out[key] for key in (*keys, f"macs_{name}"))
        rows.add_row(name, *(f"{v:.2f}" for v in (*cells, bar)))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--data", type=Path, help="folder of data files")
    parser.add_argument("--quick", action="store_true", help="small, to try it out")
    parser.add_argument("--alone", type=int, help="networks of a part timed alone")
    args = parser.parse_args(arguments)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    console, folder = Console(), inputs.data_folder(args.data)
    console = console if console.is_terminal else Console(width=100)
    sizes = (16, 32) if args.quick else (256, 512)
    data, images = inputs.images(folder, SEED, *sizes)
    setup = Setup.make(nb_macro(**(_NARROW if args.quick else {})), data)
    parts = space_parts(setup.net.space, SEED, args.quick, args.alone)
    out = whole_space(setup, parts, console)
    if args.alone is not None:
        out |= rest_compared(parts, SEED)
    loss, words = parents_loss(setup.work, folder)
    space, seeds = setup.net.space, (2, 2) if args.quick else (10, 3)
    bred = [generation(space, seed, loss) for seed in range(seeds[0])]
    out |= populations(setup, "generation", bred)
    drawn = [random_codes(space, seed) for seed in range(seeds[1])]
    out |= populations(setup, "random", drawn)
    out |= blocks() | recalibration(setup, parts[-1].distinct)
    out |= {"images": images, "generation_parents_by": words, "seed": SEED}
    out |= {"seeds_generation": seeds[0], "seeds_random": seeds[1]}
    out |= {"calibrate": sizes[0], "scored": sizes[1], "quick": args.quick}
    console.print(table(out))
    for key in sorted(k for k in out if "max_" in k) + [
        "blocks_all",
        "blocks_distinct",
    ]:
        console.print(f"{key}: {out[key]:.4g}")
    for key in ("recalibration_share", "recalibration_over_images"):
        console.print(f"{key}: {out[key]:.3f}")
    console.print(f"fraction of the device's peak: {shown(out['peak_fraction'])}")
    results.write(args.json, out)


if __name__ == "__main__":
    main()
