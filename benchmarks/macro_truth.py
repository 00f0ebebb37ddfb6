"""NAS-Bench-Macro's published truth, and what ranks its networks for free.

python -m benchmarks.macro_truth --data DIR    # or ONESHOT_DATA; half a minute

The table is trained by Su et al., arXiv:2103.11922: three seeds of each arch. Of the
6,561 archs 3,969 are distinct networks; what is here is of their canonical codes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.network_truth import (
    NetworkTruth,
    first_of_a_permutation,
    rows_of,
    table_file,
)
from oneshot.spaces.nb_macro import nb_macro

FILE = "nas_bench_macro.npz"  # arch [6561, 8], test_acc [6561, 3], params, flops
STAGES = (2, 3, 3)  # layers
NUM_CHOOSING = 1_000


def load(named: Path | None = None) -> NetworkTruth:
    """Return the truth of the distinct networks.

    Args:
      named: The folder of the table; None is that which ONESHOT_DATA names.

    Raises:
      ValueError: If there is no such file, or it lacks a network.

    Example:
      >>> found = load()  # doctest: +SKIP
      >>> found.archs.shape, found.seeds.shape  # doctest: +SKIP
      ((3969, 8), (3, 3969))
    """
    file = table_file(named, FILE, "NAS-Bench-Macro")
    archs = np.array(list(nb_macro().space.enumerate("canonical")))
    with np.load(file) as table:
        rows = rows_of(archs, table["arch"], file)
        counts = stage_blocks(archs)
        return NetworkTruth(
            words="NAS-Bench-Macro's truth",
            archs=archs,
            seeds=table["test_acc"][rows].astype(float).T,
            params=table["params"][rows].astype(np.int64),
            macs=table["flops"][rows].astype(np.int64),
            depth=counts.sum(axis=1),
            depth_words="blocks that are not the identity",
            choosing=first_of_a_permutation(len(archs), NUM_CHOOSING),
            strata=counts,
        )


def stage_blocks(archs: np.ndarray) -> np.ndarray:
    """Return numbers of blocks that are not the identity [n, 3], by stage."""
    parts = np.split(archs > 0, np.cumsum(STAGES)[:-1], axis=1)
    return np.stack([part.sum(axis=1) for part in parts], axis=1)


def main() -> None:
    """Print what ranks the networks for free."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of data files")
    found = load(parser.parse_args().data)
    everything = np.arange(len(found.archs))
    parts = {
        f"all {len(everything):,}": everything,
        f"{len(found.choosing):,} to choose by": found.choosing,
        f"{len(found.reporting):,} to report on": found.reporting,
    }
    for drawn, where in parts.items():
        # The score has to be some ranking: that of multiply-adds.
        words = found.rank(found.macs[where], where, drawn).words()
        Console().print(f"Scores: multiply-adds. {words}\n", soft_wrap=True)


if __name__ == "__main__":
    main()
