"""Data sets of the spaces' benchmarks, from the files in the folder ONESHOT_DATA.

Each function is named to the command line as `--data benchmarks.space_data:speech`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from oneshot.data import Data

DIGITS = "fsdd_logmel.npz"
TEST_TAKES = 5  # the Free Spoken Digit Dataset's own split: takes 0 to 4 are its test
ADULT_NUMBERS = (
    "age",
    "fnlwgt",
    "education_num",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
)
ADULT_BINS = 32  # codes of each number
ADULT_CATEGORIES = (9, 16, 7, 15, 6, 5, 2, 42, *[ADULT_BINS] * 6)


def folder() -> Path:
    """Return the folder of data files.

    Raises:
      ValueError: If ONESHOT_DATA does not name one.
    """
    named = os.environ.get("ONESHOT_DATA", "")
    if not named or not Path(named).is_dir():
        raise ValueError(
            "This data is read from files: name their folder in the environment "
            f"variable ONESHOT_DATA, which is {named!r}."
        )
    return Path(named)


# --- spoken digits ----------------------------------------------------------------


def speech() -> Data:
    """Return single spoken digits: x [n, 32 frames, 32 mels, 1] in 0 to 1, y [n].

    With the last axis they are images, too, for cropping.
    """
    arrays = spoken_digits(folder() / DIGITS)
    x, y, take = arrays["x"][..., None], arrays["y"], arrays["take"]
    test = take < TEST_TAKES
    # Three of 45 takes, of every speaker and digit, tell subnets from each other.
    held = (take >= TEST_TAKES) & (take % 15 == 7)
    rest = ~test & ~held
    return Data.from_arrays(
        (x[rest], y[rest]), validate=(x[held], y[held]), test=(x[test], y[test])
    )


def digit_strings(train: int = 4000, scored: int = 300) -> Data:
    """Return strings of 3 to 5 spoken digits of one speaker, for CTC.

    No take is in two splits: the test's are the official ones, and validation's are
    those that `speech` validates on.

    Args:
      train: Strings to train on.
      scored: Strings of either other split.
    """
    arrays = spoken_digits(folder() / DIGITS)
    take = arrays["take"]
    test = take < TEST_TAKES
    held = ~test & (take % 15 == 7)
    parts = (~test & ~held, train), (held, scored), (test, scored)
    splits = [
        strings({k: v[where] for k, v in arrays.items()}, n, seed=i)
        for i, (where, n) in enumerate(parts)
    ]
    return Data.from_arrays(splits[0], validate=splits[1], test=splits[2])


def spoken_digits(file: Path) -> dict[str, np.ndarray]:
    """Return x [3000, 32 frames, 32 mels] in 0 to 1, and y, speaker, take [3000]."""
    with np.load(file) as arrays:
        images = arrays["x"].transpose(0, 2, 1).astype(np.float32) / 255
        return {"x": images} | {k: arrays[k] for k in ("y", "speaker", "take")}


def strings(
    arrays: dict[str, np.ndarray],
    n: int,
    *,
    seed: int,
    lengths: tuple[int, int] = (3, 5),
    gap: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Join recordings of one speaker to strings, a few frames of silence between.

    Args:
      arrays: x [m, frames, mels] with silence of 0 around each recording; y, speaker
        [m]. Only these recordings are used.
      n: Number of strings.
      seed: Decides which.
      lengths: Fewest and most recordings in a string.
      gap: Most frames of silence before each.

    Returns:
      x [n, most * (frames + gap), mels], filled up with silence, and int32 y [n, most],
      filled up with -1.
    """
    rng = np.random.default_rng(seed)
    speakers = np.unique(arrays["speaker"])
    members = {s: np.flatnonzero(arrays["speaker"] == s) for s in speakers}
    _, frames, mels = arrays["x"].shape
    x = np.zeros((n, lengths[1] * (frames + gap), mels), np.float32)
    y = np.full((n, lengths[1]), -1, np.int32)
    for i in range(n):
        mine, place = members[rng.choice(speakers)], 0
        chosen = rng.choice(mine, rng.integers(lengths[0], lengths[1] + 1))
        for j, one in enumerate(chosen):
            sound = _trimmed(arrays["x"][one])
            place += int(rng.integers(0, gap + 1))
            x[i, place : place + len(sound)] = sound
            y[i, j], place = arrays["y"][one], place + len(sound)
    return x, y


def _trimmed(sound: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(sound.max(1) > 0)
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound


# --- tables and images ------------------------------------------------------------


def adult() -> Data:
    """Return UCI Adult: float32 x [n, 6 numbers and 14 codes], y [n] income over 50K.

    Codes are those of 8 categories, and each number's again by quantiles of the
    official training split, since income jumps at some values. The capital columns
    are taken as logarithms, and all numbers are standardised. The test split is the
    official one.
    """
    with np.load(folder() / "adult.npz") as arrays:
        return Data.from_arrays(
            _adult(arrays, "train"), validate=0.15, test=_adult(arrays, "test")
        )


def _adult(arrays: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    numbers, bins = [], []
    for name in ADULT_NUMBERS:
        train, column = (_number(name, arrays, s) for s in ("train", split))
        numbers.append((column - train.mean()) / train.std())
        # Most capital is 0, which is a bin of its own.
        edges = np.quantile(train[train > 0], np.linspace(0, 1, ADULT_BINS - 1))
        bins.append(np.searchsorted(np.unique(edges), column, side="right"))
    categories = [
        arrays[f"{split}_{name.removeprefix('cat_')}"].astype(np.float64)
        for name in arrays.files
        if name.startswith("cat_") and name != "cat_income"
    ]
    x = np.stack([*numbers, *categories, *bins], axis=1).astype(np.float32)
    return x, arrays[f"{split}_income"].astype(np.int32)


def _number(name: str, arrays: Any, split: str) -> np.ndarray:
    column = arrays[f"{split}_{name}"].astype(np.float64)
    return (
        np.log1p(column) if name.startswith("capital") or name == "fnlwgt" else column
    )


def cifar() -> Data:
    """Return 10,000 CIFAR-10 images, x [n, 32, 32, 3] standardised, y [n]."""
    with np.load(folder() / "cifar10_small.npz") as arrays:
        train, test = (arrays[f"x_{s}"].astype(np.float32) for s in ("train", "test"))
        mean, std = (
            f(train, (0, 1, 2), dtype=np.float64).astype(np.float32)
            for f in (np.mean, np.std)
        )
        return Data.from_arrays(
            ((train - mean) / std, arrays["y_train"]),
            validate=0.1,
            test=((test - mean) / std, arrays["y_test"]),
        )
