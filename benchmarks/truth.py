"""Ground truth of our own: hundreds of networks of a small space, each trained alone.

    python -m benchmarks.truth --data DIR --table benchmarks/results/truth_mixers.csv \\
        --json benchmarks/results/truth_mixers.json

Networks are drawn uniformly and without repetition from `benchmarks.mixers`; each is
trained alone from fresh weights with each of three seeds, and scored in bits per
character on text that nothing trained on. Every network of every seed trains with the
same steps, batch size and learning rate. Rows are added to the table as they end, so a
run that is stopped goes on; half-trained networks are trained again.

What is printed: the ceiling (how one seed's scores rank the mean of the other two) and
what parameters, multiply-adds and the number of blocks that mix characters rank on
their own (the depth is the same for all). A table is of use as a truth where the
ceiling is 0.80 or more and none of these exceeds 0.60.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from benchmarks import results
from benchmarks.mixers import MIXERS, mixers, mixers_data
from oneshot.correlations import kendall_tau
from oneshot.costs import Costs
from oneshot.data import Data
from oneshot.evaluate import Evaluator
from oneshot.fitting import fit
from oneshot.losses import bits, next_token
from oneshot.optimizer import adamw
from oneshot.rank_taus import seed_ceiling
from oneshot.space import Arch
from oneshot.strategies import Fixed
from oneshot.supernet import Supernet, Weights
from oneshot.train import Trainer
from oneshot.tuning import cosine

NETWORKS, SEEDS, STEPS, BATCH, RATE = 300, 3, 200, 32, 6e-3
SIZES = ("params", "macs", "mixing")
COLUMNS = ("arch", "seed", "steps", *SIZES, "bits", "seconds")
LEAST_CEILING, MOST_TRIVIAL = 0.80, 0.60


class Alone:
    """Trains networks of one supernet's space alone; all share compiled programs.

    Args:
      supernet: Its modules, with fresh weights for each training.
      data: To train and to score on.
      steps: Of each training.
    """

    def __init__(self, supernet: Supernet, data: Data, steps: int):
        self.supernet, self.data, self.steps = supernet, data, steps
        self.x = data.train.x[:BATCH]
        first = Fixed(tuple(0 for _ in supernet.space.choices))
        loss = {"loss": next_token, "bits": bits}
        self.trainer = Trainer(
            supernet, first, adamw(weight_decay=0.1), RATE, loss=loss, clip_norm=1.0
        )
        self.trainer.warm_up((self.x, data.train.y[:BATCH]))
        self.rate = cosine(RATE, steps=steps)
        self.init = jax.jit(lambda key: tuple(supernet.init(key, self.x)))
        engine = self.trainer.engine
        self.evaluator = Evaluator(supernet, data, loss=loss, engine=engine)

    def bits(self, arch: Arch, seed: int) -> float:
        """Return the bits per character of a network trained alone."""
        trainer = self.trainer.with_strategy(Fixed(arch), self.rate)
        number = int(np.dot(arch, 5 ** np.arange(len(arch)))) + 100_000 * seed
        weights = self.init(jax.random.key(number))
        state = trainer.init(number, self.x, Weights(*weights))
        for last, _ in fit(trainer, state, self.data, self.steps, batch_size=BATCH):
            state = last
        return float(self.evaluator(state.weights, [arch]).mean("bits")[0])


def drawn(supernet: Supernet, n: int) -> list[Arch]:
    """Return n distinct archs, uniform over the space, the same ones each time."""
    rng, found = np.random.default_rng(0), {}
    while len(found) < n:
        for arch in supernet.space.sample(rng, n, "paths"):
            found.setdefault(tuple(map(int, arch)), None)
    return list(found)[:n]


def mixes(option: int) -> bool:
    """Return whether an option mixes characters, as all but the MLP do."""
    return list(MIXERS)[option] != "mlp"


def rows_of(table: Path, steps: int) -> list[dict[str, str]]:
    """Return the rows of a table, none where there is no file.

    Raises:
      ValueError: If they are of trainings of another length.
    """
    if not table.exists():
        return []
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if other := {row["steps"] for row in rows} - {str(steps)}:
        raise ValueError(
            f"{table} holds networks trained for {other.pop()} steps, but {steps} were "
            "asked for. Name another table, or the same steps."
        )
    return rows


def train(table: Path, networks: int, seeds: int, steps: int, console: Console) -> None:
    """Add the rows that a table lacks, one network after the other."""
    _drop_half_a_row(table)
    supernet, data = mixers(), mixers_data()
    todo = list(_missing(table, drawn(supernet, networks), seeds, steps))
    if not todo:
        return
    costs, alone = Costs(supernet, data.train.x[:1]), Alone(supernet, data, steps)
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        for i, (arch, seed) in enumerate(todo):
            start = time.perf_counter()
            found = alone.bits(arch, seed)
            row: dict[str, Any] = {
                "arch": "".join(map(str, arch)),
                "seed": seed,
                "steps": steps,
                "params": costs.params(arch),
                "macs": costs.macs(arch),
                "mixing": sum(map(mixes, arch)),
                "bits": f"{found:.5f}",
                "seconds": f"{time.perf_counter() - start:.2f}",
            }
            writer.writerow(row)
            file.flush()
            if i % 20 == 0:
                console.print(f"{len(todo) - i} to go: {row['arch']} {row['bits']}")


def _drop_half_a_row(table: Path) -> None:
    """Take away what a process that was killed left behind its last whole row."""
    if table.exists() and not (text := table.read_text()).endswith("\n"):
        table.write_text(text[: text.rfind("\n") + 1])


def _missing(
    table: Path, archs: list[Arch], seeds: int, steps: int
) -> Iterator[tuple[Arch, int]]:
    have = {(row["arch"], row["seed"]) for row in rows_of(table, steps)}
    for arch in archs:  # all seeds of one network, so that what is there is complete
        for seed in range(seeds):
            if ("".join(map(str, arch)), str(seed)) not in have:
                yield arch, seed


def truth(table: Path, seeds: int, steps: int) -> tuple[list[Arch], np.ndarray, Any]:
    """Return archs, scores [seeds, n] (higher is better), and what counts for free,
    {name: [n]}, of the networks that have all seeds."""
    found: dict[str, dict[int, dict[str, str]]] = {}
    for row in rows_of(table, steps):
        found.setdefault(row["arch"], {})[int(row["seed"])] = row
    whole = {a: own for a, own in found.items() if set(own) >= set(range(seeds))}
    archs = [tuple(map(int, arch)) for arch in whole]
    score = np.array(
        [[-float(own[s]["bits"]) for own in whole.values()] for s in range(seeds)]
    )
    sizes = {k: np.array([float(own[0][k]) for own in whole.values()]) for k in SIZES}
    return archs, score, sizes


def summary(table: Path, seeds: int, steps: int) -> dict[str, Any]:
    """Return flat results: the ceiling, the trivial baselines, spread and hours."""
    archs, score, sizes = truth(table, seeds, steps)
    mean = score.mean(axis=0)
    trivial = {name: kendall_tau(values, mean) for name, values in sizes.items()}
    best, ceiling = max(map(abs, trivial.values())), seed_ceiling(score)
    hours = sum(float(row["seconds"]) for row in rows_of(table, steps)) / 3600
    return {
        "networks": len(archs),
        "seeds": seeds,
        "steps": steps,
        "ceiling": ceiling,
        **{f"{name}_tau": value for name, value in trivial.items()},
        "best_trivial": best,
        "bits_best": float(-mean.max()),
        "bits_median": float(-np.median(mean)),
        "bits_worst": float(-mean.min()),
        "seed_deviation": float(score.std(axis=0, ddof=1).mean()),
        "network_deviation": float(mean.std()),
        "hours": hours,
        "fit_as_truth": bool(ceiling >= LEAST_CEILING and best <= MOST_TRIVIAL),
    }


def main() -> None:
    """Train what is missing, and print what the table is worth."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", type=Path, default=Path("runs/truth_mixers.csv"))
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    console = Console()
    options.table.parent.mkdir(parents=True, exist_ok=True)
    train(options.table, options.networks, options.seeds, options.steps, console)
    found = summary(options.table, options.seeds, options.steps)
    for name, value in found.items():
        console.print(f"{name:20} {value}")
    results.write(options.json, found)


if __name__ == "__main__":
    main()
