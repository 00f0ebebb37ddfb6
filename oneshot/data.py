"""In-memory data on the device, with splits that are kept apart.

`train` is trained on, `calibrate` is a part of it, `validate` is all that a search may
see, and `test` is opened by name, once, and remembered.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from oneshot.augment import Augment, as_augment
from oneshot.randomness import AUGMENTATION, ORDER, SPLITS, stream_key


class Split(NamedTuple):
    """Examples x [n, ...] and targets y [n, ...] of one split, on the host."""

    x: np.ndarray
    y: np.ndarray


class Destination(Protocol):
    """What data needs to know of the engine."""

    def put(self, tree: Any, kind: Any = "copied") -> Any: ...

    def sharding(self, kind: Any) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Splits of one data set, and the batches that training draws from them.

    Build it with `Data.from_arrays`. Batch order is a permutation for each epoch, a
    function of the seed, and augmentation one of (seed, step): a resumed run sees what
    the uninterrupted one would have seen, and nothing has to be saved.

    Attributes:
      train, validate: The splits of these names.
      calibrate: Part of train, un-augmented, for BatchNorm's statistics.
      augment: Random transformation of training batches, or None. To use another:
        `dataclasses.replace(data, augment=...)`.
      test_log: One entry for each time that `open_test` was called.
    """

    train: Split
    validate: Split
    calibrate: Split
    augment: Augment | None = None
    test_log: list[dict[str, str]] = dataclasses.field(default_factory=list)
    _test: Split | None = None
    # What is on the device, and programs, by engine: moved and compiled once.
    _on_device: dict[Any, Any] = dataclasses.field(default_factory=dict)

    @staticmethod
    def from_arrays(
        train: tuple[Any, Any],
        *,
        validate: tuple[Any, Any] | float = 0.2,
        test: tuple[Any, Any] | None = None,
        calibrate: int = 1024,
        augment: Augment | Callable[..., Any] | None = None,
        seed: int = 0,
    ) -> Data:
        """Check arrays and split them.

        Args:
          train: (x, y) with equal leading axes.
          validate: (x, y), or the share of `train`, in 0 to 1, taken for it at random.
          test: (x, y) or None.
          calibrate: How many training examples recalibrate BatchNorm (all, if fewer).
          augment: `(key, x, y) -> (x, y)` such as those of `oneshot.augment`, or
            `(key, x) -> x`; traced into the batch program.
          seed: Decides which examples are taken.

        Raises:
          ValueError: If a split is empty, lengths differ, or axes of two splits do, a
            number is not finite, or `calibrate` is below 1.

        Example:
          >>> data = Data.from_arrays((images, labels), validate=0.25)
          >>> data.validate.x.shape
        """
        rng = np.random.default_rng([seed, SPLITS])
        whole = checked("train", train)
        if isinstance(validate, float | int):
            if not 0 < validate < 1:
                raise ValueError(
                    f"`validate` is (x, y), or a share between 0 and 1, not {validate}."
                )
            order = rng.permutation(len(whole.x))
            held = round(validate * len(order))
            validate = whole.x[order[:held]], whole.y[order[:held]]
            whole = Split(whole.x[order[held:]], whole.y[order[held:]])
        if calibrate < 1:
            raise ValueError(f"`calibrate` is at least 1 example, but got {calibrate}.")
        chosen = rng.permutation(len(whole.x))[:calibrate]
        splits = (
            checked("train", whole),
            checked("validate", validate),
            checked("calibrate", (whole.x[chosen], whole.y[chosen])),
        )
        held = None if test is None else checked("test", test)
        _check_alike(splits[0], "validate", splits[1])
        if held is not None:
            _check_alike(splits[0], "test", held)
        return Data(*splits, augment=as_augment(augment), _test=held)

    def split(self, name: str) -> Split:
        """Return the split `train`, `validate` or `calibrate`.

        Raises:
          ValueError: For `test`, which only `open_test` returns, and unknown names.
        """
        if name in ("train", "validate", "calibrate"):
            return getattr(self, name)
        if name == "test":
            raise ValueError(
                "A search must not see the test split, or its result means nothing. "
                "Score on 'validate'; for the final table call data.open_test(reason)."
            )
        raise ValueError(
            f"There is no split {name!r}: 'train', 'validate', 'calibrate'."
        )

    def open_test(self, reason: str) -> Split:
        """Return the test split and log the access.

        Args:
          reason: What it is opened for, in words; kept with the time in `test_log`.

        Raises:
          ValueError: If there is none.
        """
        if self._test is None:
            raise ValueError("This data has no test split; give one to from_arrays.")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.test_log.append({"time": now, "reason": reason})
        return self._test

    @functools.cached_property
    def fingerprint(self) -> dict[str, str]:
        """16 hexadecimal digits of each split's content."""
        splits: dict[Literal["train", "validate", "test"], Split | None] = {
            "train": self.train,
            "validate": self.validate,
            "test": self._test,
        }
        return {
            k: split_digest(split) for k, split in splits.items() if split is not None
        }

    def batches(self, seed: int, size: int, engine: Destination) -> Batches:
        """Return training batches by step, gathered and augmented on the device.

        Args:
          seed: Decides order and augmentation.
          size: Examples in a batch.
          engine: Says where arrays live.

        Raises:
          ValueError: If a batch is larger than the training split.
        """
        if size > len(self.train.x) or size < 1:
            raise ValueError(
                f"A batch has 1 to {len(self.train.x)} examples, the size of the "
                f"training split, but {size} were asked for."
            )
        # `dataclasses.replace` shares this dict. A split is kept beside its arrays, so
        # that no other is given its id.
        place = engine, id(self.train)
        if place not in self._on_device:
            arrays = engine.put((self.train.x, self.train.y), "copied")
            self._on_device[place] = self.train, arrays
        program = engine, self.augment
        if program not in self._on_device:
            self._on_device[program] = _gathering(as_augment(self.augment), engine)
        on_device = self._on_device[place][1], self._on_device[program]
        return Batches(len(self.train.x), seed, size, engine, on_device)


class Batches:
    """Training batches as a function of the step; see `Data.batches`."""

    def __init__(
        self,
        n: int,
        seed: int,
        size: int,
        engine: Destination,
        on_device: tuple[Any, Any],
    ):
        self.n, self.size, self.seed, self.put = n, size, seed, engine.put
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, np.int32))
        self._arrays, self._gather = on_device
        self._key = self.put(stream_key(seed, AUGMENTATION))

    def places(self, step: int) -> np.ndarray:
        """Return the training examples of one step, int32 [size]."""
        epoch, i = divmod(step, self.n // self.size)
        if epoch != self._epoch[0]:
            rng = np.random.default_rng([self.seed, ORDER, epoch])
            self._epoch = epoch, rng.permutation(self.n).astype(np.int32)
        return self._epoch[1][i * self.size : (i + 1) * self.size]

    def __call__(self, step: int) -> tuple[Any, Any]:
        """Return the batch (x, y) of one step, on the device."""
        return self.take(self.places(step), step)

    def take(self, places: np.ndarray, step: int) -> tuple[Any, Any]:
        """Return the batch of some training examples, augmented as those of a step.

        Args:
          places: Which examples, int [size].
          step: Decides the augmentation.
        """
        where = self.put(np.asarray(places, np.int32), "data")
        return self._gather(self._arrays, where, self._key, self.put(np.int32(step)))


def _gathering(augment: Augment | None, engine: Destination) -> Callable:
    """Return the program that takes a batch's examples and augments them."""

    def gather(arrays, places, key, step):
        x, y = (array[places] for array in arrays)
        if augment is not None:
            x, y = augment(jax.random.fold_in(key, step), x, y)
        return x, y

    return jax.jit(gather, out_shardings=engine.sharding("data"))


def checked(name: str, arrays: tuple[Any, Any]) -> Split:
    """Return (x, y) as a split, or raise a ValueError that says what is wrong."""
    x, y = (np.asarray(a) for a in arrays)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(
            f"The {name} split needs as many targets as examples, but x has shape "
            f"{list(x.shape)} and y {list(y.shape)}."
        )
    if not len(x):
        raise ValueError(
            f"The {name} split is empty. Give it at least one example; a share of a "
            "small training set can round to none."
        )
    for what, array in (("x", x), ("y", y)):
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int(np.argwhere(~np.isfinite(array))[0][0])
            raise ValueError(
                f"The {name} split holds a number that is not finite in {what}, first "
                f"in example {bad}. Clean the data first: it would turn every weight "
                "to NaN."
            )
    x, y = (a.astype(np.float32) if a.dtype == np.float64 else a for a in (x, y))
    if x.dtype == np.int64:  # tokens; JAX has no 64-bit integers by default
        x = x.astype(np.int32)
    if np.issubdtype(y.dtype, np.integer):
        y = y.astype(np.int32)
    return Split(x, y)


def _check_alike(train: Split, name: str, split: Split) -> None:
    """Raise if examples of a split are of another form than those of training.

    Sequences may be longer, and labels of one split shares of the classes.
    """
    same_kind = train.y.dtype.kind == split.y.dtype.kind
    differ = train.x.ndim != split.x.ndim
    if differ or (same_kind and train.y.ndim != split.y.ndim):
        ours, theirs = ([list(a.shape[1:]) for a in s] for s in (train, split))
        raise ValueError(
            f"Examples of the {name} split have the shape {theirs[0]} and targets "
            f"{theirs[1]}, but those of the train split {ours[0]} and {ours[1]}. Bring "
            "all splits to one form."
        )


def split_digest(split: Split) -> str:
    """Return 16 hexadecimal digits of what a split holds."""
    digest = hashlib.sha256()
    for array in split:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
