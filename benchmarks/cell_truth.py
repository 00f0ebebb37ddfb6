"""NAS-Bench-201's published accuracies of its distinct cells on CIFAR-10.

The table is that of Dong and Yang, arXiv:2001.00326: mean test accuracies after 200
epochs. What is here is of the 5,224 cells that are distinct networks
(`oneshot.spaces.cell201_symmetry`), by the first arch of each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.network_truth import (
    NetworkTruth,
    first_of_a_permutation,
    rows_of,
    table_file,
)
from oneshot.spaces import cell201
from oneshot.spaces.cell201_symmetry import OPERATIONS

FILE = "nas_bench_201.npz"
NUM_CHOOSING = 1_000
_CONVOLUTIONS = [i for i, name in enumerate(OPERATIONS) if "conv" in name]


def load(named: Path | None = None) -> NetworkTruth:
    """Return the truth of the distinct cells. It is of one number each: no ceiling.

    Args:
      named: The folder of the table; None is that which ONESHOT_DATA names.

    Raises:
      ValueError: If there is no such file, or it lacks a cell.

    Example:
      >>> load().archs.shape  # doctest: +SKIP
      (5224, 6)
    """
    file = table_file(named, FILE, "NAS-Bench-201")
    archs = np.array(list(cell201(size="tiny").space.enumerate("canonical")))
    with np.load(file) as table:
        rows = rows_of(archs, table["arch"], file)
        return NetworkTruth(
            words="NAS-Bench-201's truth on CIFAR-10",
            archs=archs,
            seeds=table["cifar10_test_200ep"][rows].astype(float)[None],
            params=table["params"][rows].astype(np.int64),
            macs=table["macs"][rows].astype(np.int64),
            depth=np.isin(archs, _CONVOLUTIONS).sum(axis=1),
            depth_words="convolutions of the cell",
            choosing=first_of_a_permutation(len(archs), NUM_CHOOSING),
        )
