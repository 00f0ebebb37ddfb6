"""NAS-Bench-201's published accuracies of its distinct cells on CIFAR-10.

The table is that of Dong and Yang, arXiv:2001.00326: mean test accuracies after 200
epochs. What is here is of the 5,224 cells that are distinct networks
(`oneshot.spaces.cell201_symmetry`), by the first arch of each.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks.network_truth import NetworkTruth, first_of_a_permutation
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
    file = (named or Path(os.environ.get("ONESHOT_DATA", ""))) / FILE
    if not file.is_file():
        raise ValueError(
            f"NAS-Bench-201's accuracies are read from {FILE}, but {file} is no file. "
            "Name its folder by --data or in the environment variable ONESHOT_DATA."
        )
    archs = np.array(list(cell201(size="tiny").space.enumerate("canonical")))
    with np.load(file) as table:
        places = {tuple(arch): i for i, arch in enumerate(table["arch"].tolist())}
        if missing := [a for a in map(tuple, archs.tolist()) if a not in places]:
            raise ValueError(
                f"{file} holds {len(places)} cells, but {len(missing)} of the space "
                f"are not among them, such as {missing[0]}. Make it again from the "
                "published table."
            )
        rows = np.array([places[tuple(arch)] for arch in archs.tolist()])
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
