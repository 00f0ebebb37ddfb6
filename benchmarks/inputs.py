"""Images to train on and to score: CIFAR-10's where there is a file, else noise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from oneshot.data import Data

_FILE = "cifar10_small.npz"  # x_train [n, 32, 32, 3] of bytes, y_train, x_test, y_test


def data_folder(named: Path | None) -> Path | None:
    """Return the folder of data files: the one named, or `ONESHOT_DATA`'s, or None."""
    folder = named or Path(os.environ.get("ONESHOT_DATA", ""))
    return folder if (folder / _FILE).is_file() else None


def images(
    folder: Path | None, seed: int, calibrate: int, score: int
) -> tuple[Data, str]:
    """Return CIFAR-10-sized images to calibrate with and to score, and what they are.

    Args:
      folder: Holds the file, or None for normal noise and random labels.
      seed: Fixes the noise, or which images are taken.
      calibrate: How many to calibrate with.
      score: How many to score.
    """
    rng = np.random.default_rng([seed, 1])
    if folder is None:
        x = rng.normal(size=(calibrate + score, 32, 32, 3)).astype(np.float32)
        y = rng.integers(0, 10, calibrate + score)
        parts = (x[:calibrate], y[:calibrate]), (x[calibrate:], y[calibrate:])
        return Data.from_arrays(parts[0], validate=parts[1], calibrate=calibrate), (
            "normal noise"
        )
    with np.load(folder / _FILE) as arrays:
        parts = [
            _some(rng, arrays[f"x_{split}"], arrays[f"y_{split}"], n)
            for split, n in (("train", calibrate), ("test", score))
        ]
    return Data.from_arrays(parts[0], validate=parts[1], calibrate=calibrate), _FILE


def _some(rng, x: np.ndarray, y: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = rng.permutation(len(x))[:n]
    return (x[chosen].astype(np.float32) / 255 - 0.5) / 0.25, y[chosen]
