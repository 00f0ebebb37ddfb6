"""CIFAR-10 to train supernets on whose rankings are then compared with the truth."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from oneshot.augment import compose, crop, flip
from oneshot.data import Data

MEAN = np.array([0.49139968, 0.48215827, 0.44653124], np.float32)
STD = np.array([0.24703233, 0.24348505, 0.26158768], np.float32)
SMALL, LARGE = "cifar10_small.npz", "cifar10_jpegs.npz"
CALIBRATE, SCORED = 256, 2_000


def images(named: Path | None, number: int) -> Data:
    """Return CIFAR-10: `number` images to train on, 2,000 test images to rank by.

    Training images are shifted by up to four pixels and flipped; 256 of them, as they
    are, recalibrate BatchNorm.

    Args:
      named: The folder of data files; None is that which ONESHOT_DATA names.
      number: How many of the training images, up to 50,000.

    Raises:
      ValueError: If there is no such file, too few images are in it, or what reads
        them is not installed.
    """
    folder = named or Path(os.environ.get("ONESHOT_DATA", ""))
    file = folder / (SMALL if number <= 10_000 else LARGE)
    if not file.is_file():
        raise ValueError(
            f"Images are read from {file.name}, but {file} is no file. Name its folder "
            "by --data or in the environment variable ONESHOT_DATA."
        )
    with np.load(file) as arrays:
        read = _arrays if number <= 10_000 else _decoded
        train, test = read(arrays, number)
    if len(train[0]) < number:
        raise ValueError(
            f"{file} holds {len(train[0])} training images, but {number} were asked "
            "for. Ask for fewer."
        )
    return Data.from_arrays(
        train, validate=test, calibrate=CALIBRATE, augment=compose(crop(4), flip())
    )


def _arrays(arrays, number: int):
    return tuple(
        (_scaled(arrays[f"x_{split}"][:n]), arrays[f"y_{split}"][:n].astype(np.int32))
        for split, n in (("train", number), ("test", SCORED))
    )


def _decoded(arrays, number: int):
    try:
        from PIL import Image  # only for the full set
    except ImportError as error:
        raise ValueError(
            f"{LARGE} holds JPEGs, which Pillow reads, but that is not installed. "
            "Install it with pip install -e '.[cifar]', or take 10,000 images."
        ) from error

    arrays = {name: arrays[name] for name in ("header", "body", "length", "y")} | {
        "n_train": int(arrays["n_train"])
    }
    ends = np.cumsum(arrays["length"].astype(np.int64))
    starts = np.concatenate([[0], ends])
    head, body = arrays["header"].tobytes(), arrays["body"]

    def read(places):
        jpegs = (head + body[starts[i] : starts[i + 1]].tobytes() for i in places)
        x = np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs])
        return _scaled(x), arrays["y"][places].astype(np.int32)

    first = arrays["n_train"]
    return read(np.arange(min(number, first))), read(np.arange(first, first + SCORED))


def _scaled(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32) / 255 - MEAN) / STD
