"""Shakespeare's text as data for the decoder: windows of characters, in three parts.

`oneshot train --data benchmarks.text_data:shakespeare --loss next_token` calls it.
"""

from __future__ import annotations

import gzip

import numpy as np

from benchmarks.space_data import folder
from oneshot.data import Data

CONTEXT = 128  # characters that the decoder sees at once
TRAINING, VALIDATION = 0.85, 0.05  # shares of the text, in its order; the rest tests


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
