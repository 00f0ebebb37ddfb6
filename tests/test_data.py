"""Splits that are kept apart, errors in words, and batches by step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from supernets import BY_NAME

from oneshot.data import Data
from oneshot.engine import Engine
from oneshot.evaluate import Evaluator


def numbered(n, start=0):
    """Examples that say which they are."""
    x = np.arange(start, start + n, dtype=np.float32)[:, None]
    return x, np.arange(start, start + n) % 3


@pytest.fixture(scope="module")
def engine():
    return Engine(BY_NAME["mixed"].make())


def ids(split):
    return set(split.x[:, 0].astype(int).tolist())


def test_splits_are_disjoint_and_complete():
    data = Data.from_arrays(numbered(20), validate=0.25, test=numbered(7, 100))
    assert ids(data.train) | ids(data.validate) == set(range(20))
    assert not ids(data.train) & ids(data.validate)
    assert len(data.train.x) == 15 and len(data.validate.x) == 5
    assert ids(data.open_test("the final table")) == set(range(100, 107))


def test_calibration_is_a_part_of_training():
    data = Data.from_arrays(numbered(20), calibrate=4)
    assert len(data.calibrate.x) == 4 and ids(data.calibrate) < ids(data.train)
    everything = Data.from_arrays(numbered(20), calibrate=1000)
    assert ids(everything.calibrate) == ids(everything.train)


def test_targets_stay_with_their_examples():
    data = Data.from_arrays(numbered(20), validate=0.5)
    for split in (data.train, data.validate, data.calibrate):
        assert (split.x[:, 0].astype(int) % 3 == split.y).all()


def test_the_seed_decides_the_splits():
    a, again, b = (Data.from_arrays(numbered(30), seed=s) for s in (0, 0, 1))
    assert a.fingerprint == again.fingerprint != b.fingerprint
    assert ids(a.validate) == ids(again.validate) != ids(b.validate)


def test_given_validation_is_kept_as_it_is():
    data = Data.from_arrays(numbered(4), validate=numbered(3, 50))
    assert ids(data.train) == {0, 1, 2, 3}
    np.testing.assert_array_equal(data.validate.x, numbered(3, 50)[0])


def test_fingerprints_change_with_any_split():
    base = Data.from_arrays(numbered(9), validate=numbered(3, 50), test=numbered(2))
    assert set(base.fingerprint) == {"train", "validate", "test"}
    assert all(len(v) == 16 for v in base.fingerprint.values())
    other = Data.from_arrays(numbered(9), validate=numbered(3, 51), test=numbered(2))
    assert base.fingerprint["train"] == other.fingerprint["train"]
    assert base.fingerprint["validate"] != other.fingerprint["validate"]


def test_the_test_split_is_refused_by_name_and_logged_when_opened():
    data = Data.from_arrays(numbered(9), test=numbered(3, 50))
    with pytest.raises(ValueError, match="must not see the test split.*open_test"):
        data.split("test")
    assert data.test_log == []
    data.open_test("the final table")
    (entry,) = data.test_log
    assert entry["reason"] == "the final table" and entry["time"].startswith("20")
    with pytest.raises(ValueError, match="no split 'dev'"):
        data.split("dev")
    with pytest.raises(ValueError, match="no test split"):
        Data.from_arrays(numbered(9)).open_test("curiosity")


def test_an_evaluator_of_the_test_split_is_refused():
    reference = BY_NAME["mixed"]
    with pytest.raises(ValueError, match="must not see the test split"):
        Evaluator(reference.make(), reference.data(), split="test")


X, Y = numbered(6)
BAD = {
    "empty": ((X[:0], Y[:0]), {}, "train split is empty"),
    "lengths": ((X, Y[:5]), {}, r"as many targets.*\[6, 1\] and y \[5\]"),
    "no axis": ((np.float32(1), np.int32(1)), {}, "as many targets"),
    "nan": ((np.where(X == 4, np.nan, X), Y), {}, "not finite in x, first in example"),
    "infinite target": ((X, np.where(Y == 2, np.inf, 1.0)), {}, "not finite in y"),
    "nothing held out": ((X, Y), {"validate": 0.01}, "validate split is empty"),
    "all held out": ((X, Y), {"validate": 1.0}, "share between 0 and 1"),
    "bad test": ((X, Y), {"test": (X, Y[:2])}, "test split needs as many"),
    "shape of x": ((X, Y), {"test": (X[:, 0], Y)}, r"test split have the shape \[\]"),
    "shape of y": ((X, X), {"validate": (X, X[:, 0])}, r"targets \[\], but .*\[1\]"),
    "no calibration": ((X, Y), {"calibrate": 0}, "at least 1 example, but got 0"),
    "negative": ((X, Y), {"calibrate": -5}, "at least 1 example, but got -5"),
    "bad validate": ((X, Y), {"validate": (X[:0], Y[:0])}, "validate split is empty"),
}


@pytest.mark.parametrize("train, options, message", BAD.values(), ids=BAD)
def test_bad_arrays_are_refused_in_words(train, options, message):
    with pytest.raises(ValueError, match=message):
        Data.from_arrays(train, **options)


def test_splits_may_be_of_longer_sequences_and_of_labels_that_are_shares():
    shares = np.eye(6, dtype=np.float32)
    long = np.zeros((4, 9, 1), np.float32), np.zeros(4, int)
    data = Data.from_arrays((X[:, None], shares), validate=long)
    assert (data.train.y.shape, data.validate.x.shape) == ((6, 6), (4, 9, 1))


def test_a_nan_is_found_at_its_example():
    x = X.copy()
    x[4] = np.nan
    with pytest.raises(ValueError, match="first in example 4"):
        Data.from_arrays((x, Y), validate=numbered(2))


def test_wide_numbers_are_narrowed_once():
    data = Data.from_arrays((X.astype(np.float64), Y.astype(np.int64)), validate=0.5)
    assert data.train.x.dtype == np.float32 and data.train.y.dtype == np.int32


@pytest.mark.parametrize("size", [0, 7])
def test_a_batch_larger_than_the_data_is_refused(engine, size):
    data = Data.from_arrays(numbered(6), validate=numbered(2))
    with pytest.raises(ValueError, match=f"1 to 6 examples.*{size} were asked for"):
        data.batches(0, size, engine)


def test_each_epoch_covers_each_example_once_in_another_order(engine):
    data = Data.from_arrays(numbered(12), validate=numbered(2))
    batches = data.batches(0, 3, engine)
    epochs = [[batches.places(4 * e + i) for i in range(4)] for e in range(3)]
    orders = [np.concatenate(e).tolist() for e in epochs]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_a_remainder_is_left_to_other_epochs(engine):
    data = Data.from_arrays(numbered(7), validate=numbered(1))
    batches = data.batches(0, 3, engine)
    seen = [set(batches.places(s).tolist()) for s in range(2)]
    assert len(seen[0] | seen[1]) == 6
    assert len(set().union(*(batches.places(s).tolist() for s in range(10)))) == 7


def test_batches_are_a_function_of_seed_and_step(engine):
    data = Data.from_arrays(numbered(12), validate=numbered(2))
    a, b, other = (data.batches(s, 4, engine) for s in (0, 0, 1))
    forwards = [a.places(s).tolist() for s in range(9)]
    backwards = [b.places(s).tolist() for s in reversed(range(9))]
    assert forwards == backwards[::-1]
    assert forwards != [other.places(s).tolist() for s in range(9)]
    x, y = a(5)
    np.testing.assert_array_equal(x[:, 0], data.train.x[forwards[5], 0])
    np.testing.assert_array_equal(y, data.train.y[forwards[5]])


def test_another_training_split_replaces_the_first(engine):
    data = Data.from_arrays(numbered(12), validate=numbered(2))
    data.batches(0, 4, engine)(0)  # moves the first to the device
    x, y = data.train
    other = dataclasses.replace(data, train=data.train._replace(x=x + 100))
    for each in (other, data):
        batches = each.batches(0, 4, engine)
        found, labels = batches(0)
        np.testing.assert_array_equal(found, each.train.x[batches.places(0)])
        np.testing.assert_array_equal(labels, y[batches.places(0)])


def test_augmentation_is_a_function_of_seed_and_step(engine):
    def shift(key, x):
        return x + jax.random.uniform(key, (len(x), 1), jnp.float32) / 2

    data = Data.from_arrays(numbered(12), validate=numbered(2), augment=shift)
    a, b, other = (data.batches(s, 4, engine) for s in (0, 0, 1))
    late = b(7)
    for s in range(7):
        a(s)
    np.testing.assert_array_equal(a(7)[0], late[0])
    moved = {seed: np.asarray(p(0)[0]) % 1 for seed, p in ((0, a), (1, other))}
    assert not np.allclose(moved[0], moved[1]) and not np.allclose(
        late[0] % 1, moved[0]
    )
    assert (np.floor(late[0][:, 0]) % 3 == late[1]).all()
    assert (data.calibrate.x == np.floor(data.calibrate.x)).all()
