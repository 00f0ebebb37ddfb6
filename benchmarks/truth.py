"""Ground truth of our own: hundreds of networks of a small space, each trained alone.

    python -m benchmarks.truth --space mixers --data DIR \\
        --table benchmarks/results/truth_mixers.csv \\
        --json benchmarks/results/truth_mixers.json

Networks are drawn uniformly and without repetition from a space of
`benchmarks.truth_spaces`; each is trained alone from fresh weights with each of three
seeds, and its loss taken on test examples, which supernets never see. Every network of
every seed trains with the same steps, batch size and learning rate; on accelerators all
seeds of a network train at once, on CPUs one after the other. Rows are added to
the table as they end, so a run that is stopped goes on; half-trained networks are
trained again.

What is printed: the ceiling (how one seed's losses rank the mean of the other two) and
what parameters, multiply-adds and depth rank on their own. A table is of use as a truth
where the ceiling is 0.80 or more and none of these exceeds 0.60.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from benchmarks import results
from benchmarks.network_truth import NetworkTruth, first_of_a_permutation
from benchmarks.truth_spaces import TRUTHS, TruthSpace, number
from benchmarks.truth_together import losses_together
from oneshot.correlations import kendall_tau
from oneshot.costs import Costs
from oneshot.evaluate import Evaluator
from oneshot.fitting import fit
from oneshot.optimizer import adamw
from oneshot.rank_taus import seed_ceiling
from oneshot.space import Arch
from oneshot.strategies import Fixed
from oneshot.supernet import Weights
from oneshot.train import Trainer
from oneshot.tuning import cosine

SIZES = ("params", "macs", "depth")
COLUMNS = ("arch", "seed", "steps", *SIZES, "loss", "seconds", "space")
LEAST_CEILING, MOST_TRIVIAL = 0.80, 0.60


class Alone:
    """Trains networks of one space alone; all share compiled programs.

    Args:
      space: The networks, their data, and how they train.
    """

    def __init__(self, space: TruthSpace):
        self.space, self.net, self.data = space, space.make(), space.data()
        self.x = self.data.train.x[: space.batch]
        first = Fixed(tuple(0 for _ in self.net.space.choices))
        self.trainer = Trainer(
            self.net,
            first,
            adamw(weight_decay=space.decay),
            space.rate,
            loss=space.metrics,
            clip_norm=space.clip,
        )
        self.trainer.warm_up((self.x, self.data.train.y[: space.batch]))
        self.rate = cosine(space.rate, steps=space.steps)
        self.init = jax.jit(lambda key: tuple(self.net.init(key, self.x)))
        engine = self.trainer.engine
        tested = dataclasses.replace(self.data, validate=space.tested(), _on_device={})
        self.evaluator = Evaluator(self.net, tested, loss=space.metrics, engine=engine)
        self.costs = Costs(self.net, self.data.train.x[:1])
        self.fingerprint = space.fingerprint

    def rows(
        self, arch: Arch, seeds: Sequence[int], together: bool
    ) -> Iterator[dict[str, Any]]:
        """Give what the table holds of a network trained from each of some seeds."""
        groups = [list(seeds)] if together else [[seed] for seed in seeds]
        for some in groups:
            start = time.perf_counter()
            own = [number(self.net, arch) + 100_000 * seed for seed in some]
            if together:
                found = losses_together(self, arch, own)
            else:
                found = [self.loss(arch, one) for one in own]
            each = (time.perf_counter() - start) / len(some)
            for seed, loss in zip(some, found, strict=True):
                yield self._row(arch, seed, loss, each)

    def _row(
        self, arch: Arch, seed: int, loss: float, seconds: float
    ) -> dict[str, Any]:
        return {
            "arch": "".join(map(str, arch)),
            "seed": seed,
            "steps": self.space.steps,
            "params": self.costs.params(arch),
            "macs": self.costs.macs(arch),
            "depth": self.space.depth(self.net, arch),
            "loss": f"{loss:.5f}",
            "seconds": f"{seconds:.2f}",
            "space": self.fingerprint,
        }

    def loss(self, arch: Arch, seed: int) -> float:
        """Return the held-out loss of a network whose weights and batches follow from a
        number."""
        trainer = self.trainer.with_strategy(Fixed(arch), self.rate)
        weights = self.init(jax.random.key(seed))
        state = trainer.init(seed, self.x, Weights(*weights))
        how = {"batch_size": self.space.batch}
        for last, _ in fit(trainer, state, self.data, self.space.steps, **how):
            state = last
        return float(self.evaluator(state.weights, [arch]).loss[0])


def drawn(space: TruthSpace) -> list[Arch]:
    """Return the distinct archs to train, the same ones each time."""
    rng, found, net = np.random.default_rng(0), {}, space.make()
    while len(found) < space.networks:
        for arch in net.space.sample(rng, space.networks, space.over):
            found.setdefault(net.space.path_key(arch), None)
    return list(found)[: space.networks]


def rows_of(table: Path, space: TruthSpace) -> list[dict[str, str]]:
    """Return the rows of a table, none where there is no file.

    Raises:
      ValueError: If they are of other networks, data or settings.
    """
    if not table.exists():
        return []
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if other := {row.get("space", "unknown") for row in rows} - {space.fingerprint}:
        raise ValueError(
            f"{table} holds networks of another space, or trained by other data or "
            f"settings than now ({other.pop()}, now {space.fingerprint}: "
            f"{space.words}, {space.steps} steps). Name another table."
        )
    return rows


def train(
    table: Path, space: TruthSpace, console: Console, together: bool = False
) -> None:
    """Add the rows that a table lacks, one network after the other.

    Args:
      table: The file.
      space: What to train.
      console: Where progress goes.
      together: Whether the seeds of a network train at once.
    """
    _drop_half_a_row(table)
    todo = list(_missing(table, drawn(space), space))
    if not todo:
        return
    alone, new = Alone(space), not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        for i, (arch, seeds) in enumerate(todo):
            for row in alone.rows(arch, seeds, together):
                writer.writerow(row)
                file.flush()
                if i % 10 == 0 and row["seed"] == seeds[0]:
                    left = len(todo) - i
                    console.print(f"{left} to go: {row['arch']} {row['loss']}")


def _drop_half_a_row(table: Path) -> None:
    """Take away what a process that was killed left behind its last whole row."""
    if table.exists() and not (text := table.read_text()).endswith("\n"):
        table.write_text(text[: text.rfind("\n") + 1])


def _missing(
    table: Path, archs: list[Arch], space: TruthSpace
) -> Iterator[tuple[Arch, list[int]]]:
    """Give the networks that lack seeds, with those, in order, so that what is there is
    of whole networks."""
    have = {(row["arch"], row["seed"]) for row in rows_of(table, space)}
    for arch in archs:
        own, seeds = "".join(map(str, arch)), range(space.seeds)
        if lacking := [seed for seed in seeds if (own, str(seed)) not in have]:
            yield arch, lacking


def truth(table: Path, space: TruthSpace) -> NetworkTruth:
    """Return what a table knows of the networks that have all seeds.

    Raises:
      ValueError: If it holds none, or networks that trained for other steps.
    """
    found: dict[str, dict[int, dict[str, str]]] = {}
    for row in rows_of(table, space):
        found.setdefault(row["arch"], {})[int(row["seed"])] = row
    seeds = range(space.seeds)
    whole = {a: own for a, own in found.items() if set(own) >= set(seeds)}
    if not whole:
        raise ValueError(
            f"{table} holds no network with all {space.seeds} seeds. Make it by "
            "`python -m benchmarks.truth --space NAME --table FILE`."
        )
    first = [own[0] for own in whole.values()]
    sizes = {name: np.array([int(row[name]) for row in first]) for name in SIZES}
    return NetworkTruth(
        words=space.words,
        archs=np.array([list(map(int, arch)) for arch in whole]),
        seeds=np.array(
            [[-float(own[s]["loss"]) for own in whole.values()] for s in seeds]
        ),
        depth_words=space.depth_words,
        choosing=first_of_a_permutation(len(whole), len(whole) // 3),
        **sizes,
    )


def summary(table: Path, space: TruthSpace) -> dict[str, Any]:
    """Return flat results: the ceiling, the trivial baselines, spread and hours."""
    found = truth(table, space)
    mean = found.truth
    trivial = {name: kendall_tau(getattr(found, name), mean) for name in SIZES}
    best, ceiling = max(map(abs, trivial.values())), seed_ceiling(found.seeds)
    seconds = [float(row["seconds"]) for row in rows_of(table, space)]
    return {
        "networks": len(mean),
        "seeds": space.seeds,
        "steps": space.steps,
        "ceiling": ceiling,
        **{f"{name}_tau": value for name, value in trivial.items()},
        "best_trivial": best,
        "loss_best": float(-mean.max()),
        "loss_median": float(-np.median(mean)),
        "loss_worst": float(-mean.min()),
        "seed_deviation": float(found.seeds.std(axis=0, ddof=1).mean()),
        "network_deviation": float(mean.std()),
        "hours": sum(seconds) / 3600,
        "fit_as_truth": bool(ceiling >= LEAST_CEILING and best <= MOST_TRIVIAL),
    }


def main() -> None:
    """Train what is missing, and print what the table is worth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--space", choices=TRUTHS, default="mixers")
    parser.add_argument("--table", type=Path, help="by default under runs/")
    parser.add_argument(
        "--together",
        action=argparse.BooleanOptionalAction,
        default=jax.default_backend() != "cpu",
        help="train all seeds of a network at once, as accelerators do",
    )
    parser.add_argument("--networks", type=int, help="fewer, to try it out")
    parser.add_argument("--data", type=Path, help="folder of data files")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.data is not None:
        os.environ["ONESHOT_DATA"] = str(options.data)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    console, space = Console(), TRUTHS[options.space]
    if options.networks is not None:
        space = dataclasses.replace(space, networks=options.networks)
    table = options.table or Path("runs") / f"truth_{options.space}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    train(table, space, console, options.together)
    found = summary(table, space)
    for name, value in found.items():
        console.print(f"{name:20} {value}")
    results.write(options.json, found)


if __name__ == "__main__":
    main()
