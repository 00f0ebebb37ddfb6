"""The real data of the spaces' benchmark, as functions that `oneshot train` calls.

The files come from the folder that ONESHOT_DATA names. The test split of each is what
its publishers left for testing, or the end of a text.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np

from oneshot.data import Data

CONTEXT = 128  # characters that the decoder sees at once
TRAINING, VALIDATION = 0.85, 0.05  # shares of the text, in its order; the rest tests


def folder() -> Path:
    """Return the folder of data files.

    Raises:
      ValueError: If none is named, or it is no folder.
    """
    named = Path(os.environ.get("ONESHOT_DATA", ""))
    if not os.environ.get("ONESHOT_DATA") or not named.is_dir():
        raise ValueError(
            f"The data files are in the folder that ONESHOT_DATA names, but it is "
            f"{os.environ.get('ONESHOT_DATA')!r}."
        )
    return named


def cifar10() -> Data:
    """Return 10,000 images of CIFAR-10, a tenth for validation, and 2,000 to test.

    Krizhevsky 2009. Pixels are float32, each channel with mean 0 and deviation 1 over
    the training images.
    """
    with np.load(folder() / "cifar10_small.npz") as arrays:
        parts = {k: arrays[k] for k in ("x_train", "y_train", "x_test", "y_test")}
    pixels = parts["x_train"].reshape(-1, 3).astype(np.float32)
    mean, deviation = pixels.mean(0), pixels.std(0)

    def images(x: np.ndarray) -> np.ndarray:
        return (x.astype(np.float32) - mean) / deviation

    return Data.from_arrays(
        (images(parts["x_train"]), parts["y_train"]),
        validate=0.1,
        test=(images(parts["x_test"]), parts["y_test"]),
        calibrate=512,
    )


def text() -> tuple[np.ndarray, int]:
    """Return Shakespeare's characters as numbers, int32, and how many differ."""
    with gzip.open(folder() / "tinyshakespeare.txt.gz", "rt") as file:
        characters = np.array(list(file.read()))
    symbols, numbers = np.unique(characters, return_inverse=True)
    return numbers.astype(np.int32), len(symbols)


def text_parts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the text's beginning to train on, what validates, and its end to test."""
    numbers, _ = text()
    first = int(TRAINING * len(numbers))
    second = int((TRAINING + VALIDATION) * len(numbers))
    return numbers[:first], numbers[first:second], numbers[second:]


def shakespeare() -> Data:
    """Return windows of Shakespeare's characters and the characters that follow.

    Training windows overlap, so that a character is met at several places. Of those
    that validate and test, the second half is scored, after a first half to read: each
    character once, and none without context.
    """
    train, validate, test = text_parts()
    return Data.from_arrays(
        _windows(train, CONTEXT // 4),
        validate=_scored(validate),
        test=_scored(test),
        calibrate=64,
    )


def _windows(numbers: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    views = np.lib.stride_tricks.sliding_window_view(numbers, CONTEXT + 1)[::stride]
    return views[:, :-1].copy(), views[:, 1:].copy()


def _scored(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _windows(numbers, CONTEXT // 2)
    y[:, : CONTEXT // 2] = -1
    return x, y
