"""Simple models that the spaces are held against: logistic regressions, a 5-gram."""

from __future__ import annotations

import numpy as np

from benchmarks import space_data, text_data
from benchmarks.character_ngram import CharacterNgram
from benchmarks.space_data import folder
from oneshot.data import Data

Strengths = tuple[float, ...]  # weights of the data against the L2 penalty


def logistic(data: Data, strengths: Strengths) -> float:
    """Return the test accuracy of a logistic regression on all numbers of an example.

    Features have mean 0 and deviation 1 over the training split.

    Args:
      data: With integer labels.
      strengths: What is tried; the best on the validation split is tested.
    """
    train, validate, test = data.train, data.validate, data.open_test("a baseline")
    x, other, last = (_flat(s.x) for s in (train, validate, test))
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x, other, last = ((a - mean) / deviation for a in (x, other, last))
    best = _best(x, train.y, other, validate.y, strengths)
    return float((best.predict(last) == test.y).mean())


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float32)


def _best(x, y, x_held, y_held, strengths: Strengths):
    from sklearn.linear_model import LogisticRegression  # loads slowly

    models = [LogisticRegression(C=c, max_iter=300) for c in strengths]
    return max(
        (model.fit(x, y) for model in models), key=lambda m: m.score(x_held, y_held)
    )


def pixels() -> float:
    """Return the accuracy of a logistic regression on CIFAR-10's pixels."""
    return logistic(space_data.cifar(), (1e-5, 1e-4, 1e-3))


def spoken_digits() -> float:
    """Return the accuracy of a logistic regression on the log-mel features."""
    return logistic(space_data.speech(), (1e-2, 1e-1, 1))


def adult() -> float:
    """Return the accuracy of a logistic regression on Adult.

    Numbers have mean 0 and deviation 1, categories are one-hot; without the sampling
    weight `fnlwgt`, which says nothing of a person.
    """
    with np.load(folder() / "adult.npz") as arrays:
        names = [k.removeprefix("train_") for k in arrays.files if k[:6] == "train_"]
        names = [n for n in names if n not in ("fnlwgt", "income")]
        splits = [_columns(arrays, part, names) for part in ("train", "test")]
        targets = [arrays[f"{part}_income"] for part in ("train", "test")]
    x, last = splits
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x, last = (x - mean) / deviation, (last - mean) / deviation
    held = np.random.default_rng(0).permutation(len(x))
    held, rest = held[: len(x) // 5], held[len(x) // 5 :]
    best = _best(x[rest], targets[0][rest], x[held], targets[0][held], (1e-2, 1e-1, 1))
    return float((best.predict(last) == targets[1]).mean())


def _columns(arrays, part: str, names: list[str]) -> np.ndarray:
    out = []
    for name in names:
        column = arrays[f"{part}_{name}"]
        if f"cat_{name}" in arrays.files:
            out.append(np.eye(len(arrays[f"cat_{name}"]), dtype=np.float32)[column])
        else:
            out.append(column[:, None].astype(np.float32))
    return np.concatenate(out, 1)


def ngram() -> float:
    """Return the bits a character of a 5-gram on the decoder's test characters."""
    train, _, test = text_data.text_parts()
    model = CharacterNgram(train, text_data.text()[1])
    # The decoder's first scored character, and the 4 before it as context.
    start = text_data.CONTEXT // 2 + 1
    return model.bits(test[start - model.length + 1 :])
