"""Data by name: scikit-learn's digits, a file of arrays or of text, or a function."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from oneshot.data import Data, checked


def load_data(name: str, calibrate: int = 1024) -> Data:
    """Return the data that a run names.

    Args:
      name: "digits"; an .npz file with `x` and `y`, or with `x_train`, `y_train` and
        perhaps `x_test`, `y_test`; a .txt or .txt.gz file, for its characters; or
        "module:function" that returns a `Data`.
      calibrate: How many training images recalibrate BatchNorm.

    Returns:
      The data. Images of bytes become float32 in 0 to 1, with a channel axis. A fifth
      is held out for validation, and for a test where the file has none, always the
      same. Text becomes windows of 128 characters, one from each 32nd on in training;
      its last tenth is the test, the tenth before that validation (`oneshot.tokens`).

    Raises:
      ValueError: If there is no such data, or the file lacks the arrays.
    """
    if name == "digits":
        from sklearn.datasets import load_digits  # loads slowly

        x, y = load_digits(return_X_y=True)
        return _split(x.reshape(-1, 8, 8).astype(np.float32) / 16, y, None, calibrate)
    if ":" in name and not Path(name).exists():
        from oneshot.factories import resolve

        data = resolve(name)()
        if not isinstance(data, Data):
            raise ValueError(
                f"{name!r} returned {type(data).__name__}; it has to return "
                "oneshot.Data, for example from Data.from_arrays."
            )
        return data
    if name.endswith((".txt", ".txt.gz")):
        from oneshot.tokens import character_data

        return character_data(name, stride=32, calibrate=calibrate)
    return _from_file(Path(name), calibrate)


def _from_file(file: Path, calibrate: int) -> Data:
    if not file.is_file():
        raise ValueError(
            f"There is no data {str(file)!r}: give 'digits', an .npz file, a "
            ".txt or .txt.gz file, or module:function that returns oneshot.Data."
        )
    with _open(file) as arrays:
        names = set(arrays.files)
        if {"x_train", "y_train"} <= names:
            train = arrays["x_train"], arrays["y_train"]
        elif {"x", "y"} <= names:
            train = arrays["x"], arrays["y"]
        else:
            raise ValueError(
                f"{str(file)!r} holds {sorted(names)}; it needs x and y, or x_train, "
                "y_train and perhaps x_test, y_test."
            )
        test = None
        if {"x_test", "y_test"} <= names:
            test = _images(arrays["x_test"]), arrays["y_test"]
    return _split(_images(train[0]), train[1], test, calibrate)


def _open(file: Path) -> Any:
    try:
        arrays = np.load(file)
    except (zipfile.BadZipFile, EOFError, ValueError, OSError) as error:
        raise ValueError(
            f"{str(file)!r} is not an .npz file of arrays: {error}. Write one with "
            "np.savez(file, x=images, y=labels)."
        ) from error
    if not hasattr(arrays, "files"):
        raise ValueError(
            f"{str(file)!r} holds a single array; an .npz file with x and y is needed: "
            "np.savez(file, x=images, y=labels)."
        )
    return arrays


def _images(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x


def _split(x: np.ndarray, y: np.ndarray, test, calibrate: int) -> Data:
    x, y = checked("whole", (x, y))
    if x.ndim == 3:
        x = x[..., None]
        test = None if test is None else (test[0][..., None], test[1])
    if test is None:
        order = np.random.default_rng(0).permutation(len(x))
        held = len(x) // 5
        test = x[order[:held]], y[order[:held]]
        x, y = x[order[held:]], y[order[held:]]
    share = 0.25 if len(x) < 4000 else 0.2
    return Data.from_arrays((x, y), validate=share, test=test, calibrate=calibrate)
