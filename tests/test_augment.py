"""Augmentation: its bits, its ranges, and what it does to labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from supernets import BY_NAME

from oneshot.augment import (
    as_augment,
    compose,
    crop,
    erase,
    flip,
    one_of,
    shrink,
)
from oneshot.data import Data
from oneshot.engine import Engine
from oneshot.losses import SmoothedCrossEntropy, accuracy, check_labels, cross_entropy
from oneshot.mixing import cutmix, mixup
from oneshot.spec_augment import spec_augment

N, SIZE, CLASSES = 64, 8, 5


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1, (N, SIZE, SIZE, 2)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(rng.integers(0, CLASSES, N).astype(np.int32))


@pytest.fixture(scope="module")
def engine():
    return Engine(BY_NAME["mixed"].make())


def plain():
    return compose(crop(2), flip(), erase(0.5), spec_augment(2, 2))


def mixing():
    return compose(plain(), one_of(mixup(0.5, CLASSES), cutmix(1.0, CLASSES)))


def drawn(data, seed, engine, steps=range(4)):
    batches = data.batches(seed, 16, engine)
    return [jax.device_get(batches(step)) for step in steps]


def same(a, b):
    return all(
        np.array_equal(p, q) for one, two in zip(a, b, strict=True)
        for p, q in zip(one, two, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize(
    "augment", [plain, pytest.param(mixing, marks=pytest.mark.slow)]
)
def test_batches_are_bits_of_seed_and_step(images, engine, augment):
    data = Data.from_arrays(images, validate=0.25, augment=augment())
    whole = drawn(data, 3, engine)
    again = Data.from_arrays(images, validate=0.25, augment=augment())
    assert same(whole, drawn(again, 3, engine))
    assert same(whole[2:], drawn(again, 3, engine, range(2, 4)))  # as when resumed
    assert not same(whole, drawn(data, 4, engine))
    x, y = whole[0]
    assert x.shape == (16, SIZE, SIZE, 2)
    assert y.shape == ((16,) if augment is plain else (16, CLASSES))


def test_another_augmentation_replaces_the_first(images, engine):
    data = Data.from_arrays(images, validate=0.25)
    plain = drawn(data, 0, engine)
    blank = dataclasses.replace(data, augment=lambda key, x, y: (0 * x, y))
    assert not drawn(blank, 0, engine)[0][0].any()
    assert same(plain, drawn(data, 0, engine))
    assert blank.fingerprint == data.fingerprint


def test_an_augmentation_may_take_the_images_alone(images, engine):
    data = Data.from_arrays(images, validate=0.25, augment=lambda key, x: x + 1)
    plain = Data.from_arrays(images, validate=0.25)
    (x, y), (x0, y0) = drawn(data, 0, engine)[0], drawn(plain, 0, engine)[0]
    np.testing.assert_array_equal(x, x0 + 1)
    np.testing.assert_array_equal(y, y0)
    with pytest.raises(ValueError, match=r"called as augment\(key, x, y\)"):
        Data.from_arrays(images, augment=lambda x: x)


def test_an_argument_with_a_default_gets_no_labels(key, images):
    x, y = images
    augment = as_augment(lambda key, x, shift=2.0: x + shift)
    np.testing.assert_array_equal(augment(key, x, y)[0], x + 2)
    anything = as_augment(lambda *arguments: arguments[1:])
    assert anything(key, x, y)[1] is y


def test_lists_take_augmentations_of_the_images_alone(key, images):
    x, y = images
    for augment in (
        compose(lambda key, x: x + 1, lambda key, x, y: (x, y + 1)),
        one_of(lambda key, x, y: (x + 1, y + 1), lambda key, x: x),
    ):
        moved, labels = augment(key, x, y)
        assert float((moved - x).mean()) in (0, 1) and labels.shape == y.shape
    with pytest.raises(ValueError, match=r"called as augment\(key, x, y\)"):
        compose(flip(), lambda x: x)


def test_a_crop_shifts_each_image_by_its_own_distance(key, images):
    x, y = images
    out, labels = jax.jit(crop(2))(key, x, y)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = []
    for i in range(N):
        for place in np.ndindex(5, 5):
            a, b = place
            if np.array_equal(out[i], padded[i, a : a + SIZE, b : b + SIZE]):
                found.append(place)
    assert len(found) == N and len(set(found)) > 15 and (labels == y).all()


def test_shrinking_averages_neighbours(key, images):
    x, y = images
    small, labels = shrink(4)(key, x, y)
    assert small.shape == (N, 4, 4, 2) and (labels == y).all()
    inside = np.asarray(x)[:, 1:7, 1:7]  # linear: weights 1, 3, 3, 1 of four neighbours
    weights = np.array([1, 3, 3, 1]) / 8
    centre = np.einsum("nijc,i,j->nc", inside[:, :4, :4], weights, weights)
    np.testing.assert_allclose(small[:, 1, 1], centre, atol=1e-5)
    np.testing.assert_array_equal(shrink(SIZE)(key, x, y)[0], x)
    with pytest.raises(ValueError, match="of 8 x 8 pixels do not shrink to 9"):
        shrink(9)(key, x, y)
    with pytest.raises(ValueError, match="a side of 1 pixel or more"):
        shrink(0)


def test_a_flip_mirrors_about_half_of_the_images(key, images):
    x, y = images
    out, _ = flip()(key, x, y)
    mirrored = [np.array_equal(out[i], x[i, :, ::-1]) for i in range(N)]
    kept = [np.array_equal(out[i], x[i]) for i in range(N)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 20 <= sum(mirrored) <= 44
    np.testing.assert_array_equal(flip(0.0)(key, x, y)[0], x)


def test_erasing_leaves_out_one_rectangle(key, images):
    x, y = images
    out = np.asarray(jax.jit(erase(0.5, (0.1, 0.3)))(key, x, y)[0])
    lost = (out == 0).all(-1)
    assert np.array_equal(out[~lost], np.asarray(x)[~lost])
    hit = lost.any((1, 2))
    assert 16 <= hit.sum() <= 44
    for mask in lost[hit]:
        rows, columns = mask.any(1), mask.any(0)
        assert np.array_equal(mask, rows[:, None] & columns[None])
    assert 0.02 < lost[hit].mean() < 0.3  # some stick out


@pytest.mark.slow
def test_mixup_mixes_labels_as_it_mixes_images(key):
    labels = jnp.arange(32) % CLASSES
    x = jax.nn.one_hot(labels, CLASSES)[:, None, None]  # images that are their labels
    augment = jax.jit(mixup(0.5, CLASSES))
    out, y = augment(key, x, labels)
    np.testing.assert_allclose(out[:, 0, 0], y, rtol=1e-6)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-6)
    assert (y.max(-1) < 0.95).sum() > 5
    again = augment(key, x, jax.nn.one_hot(labels, CLASSES))
    np.testing.assert_array_equal(again[1], y)


def test_cutmix_counts_the_pixels_that_it_pasted(key):
    labels = jnp.arange(32) % CLASSES
    x = jnp.broadcast_to(
        jax.nn.one_hot(labels, CLASSES)[:, None, None], (32, SIZE, SIZE, CLASSES)
    )
    out, y = jax.jit(cutmix(1.0, CLASSES))(key, x, labels)
    np.testing.assert_allclose(out.mean((1, 2)), y, rtol=1e-5, atol=1e-6)
    assert len(np.unique(np.asarray(y).max(-1).round(4))) > 8


@pytest.mark.slow
def test_shares_are_drawn_from_the_beta_distribution(key):
    labels = jnp.zeros(4000, int).at[::2].set(1)
    share = np.asarray(mixup(0.4, 2)(key, jnp.zeros((4000, 1)), labels)[1])
    # Half of the pairs are of unlike labels; Beta(a, a) has variance 1 / (8 a + 4).
    unlike = share[(share[:, 0] > 0) & (share[:, 0] < 1), 0]
    assert abs(unlike.mean() - 0.5) < 0.03
    assert abs(unlike.var() - 1 / (8 * 0.4 + 4)) < 0.01


def test_one_of_draws_each(key, images):
    x, y = images
    augment = jax.jit(one_of(lambda k, x, y: (x, y), lambda k, x, y: (x + 1, y)))
    shifts = [float(augment(k, x, y)[0][0, 0, 0, 0] - x[0, 0, 0, 0])
              for k in jax.random.split(key, 30)]  # fmt: skip
    assert 5 < sum(shift > 0.5 for shift in shifts) < 25


def test_masks_hide_one_stretch_of_time_and_one_band(key):
    x = jnp.ones((200, 20, 12))
    out, _ = jax.jit(spec_augment(6, 4, value=-1.0))(key, x, None)
    hidden = np.asarray(out) == -1
    time, mels = hidden.all(2), hidden.all(1)
    assert np.array_equal(hidden, time[:, :, None] | mels[:, None])
    for lengths, longest in ((time.sum(1), 6), (mels.sum(1), 4)):
        assert set(lengths) == set(range(longest + 1))
        assert abs(lengths.mean() - longest / 2) < 0.5
    assert (np.diff(time.astype(int), axis=1) == 1).sum(1).max() <= 1


def test_wrong_shapes_and_numbers_are_refused(key, images):
    x, y = images
    for augment in (crop(1), flip(), erase(), cutmix(1.0, 5)):
        with pytest.raises(ValueError, match=r"takes images \[n, height"):
            augment(key, x[..., 0], y)
    with pytest.raises(ValueError, match=r"shares \[n, 7\]"):
        mixup(1.0, 7)(key, x, jnp.zeros((N, 5)))
    with pytest.raises(ValueError, match="takes floating point, but x is uint8"):
        mixup(1.0, 5)(key, x.astype(jnp.uint8), y)
    with pytest.raises(ValueError, match="smallest, then largest share"):
        erase(area=(0.3, 0.1))
    with pytest.raises(ValueError, match="above 0, but got 0"):
        mixup(0, 5)
    with pytest.raises(ValueError, match="between 0 and 1, but got 2"):
        flip(2)
    with pytest.raises(ValueError, match="0 or more"):
        spec_augment(-1, 3)
    with pytest.raises(ValueError, match="0 or more pixels"):
        crop(-1)


def test_losses_take_shares_of_the_classes():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(6, CLASSES)).astype(np.float32))
    labels = jnp.asarray(rng.integers(0, CLASSES, 6))
    hard = jax.nn.one_hot(labels, CLASSES)
    for loss in (cross_entropy, SmoothedCrossEntropy(0.1), accuracy):
        np.testing.assert_allclose(loss(logits, hard), loss(logits, labels), rtol=1e-5)
    soft = jnp.asarray(rng.dirichlet(np.ones(CLASSES), 6).astype(np.float32))
    want = -(soft * jax.nn.log_softmax(logits)).sum(-1)
    np.testing.assert_allclose(cross_entropy(logits, soft), want, rtol=1e-5)
    outputs = jax.ShapeDtypeStruct((6, CLASSES), jnp.float32)
    check_labels(outputs, soft, cross_entropy)
    with pytest.raises(ValueError, match="sum to 1"):
        check_labels(outputs, 2 * soft, cross_entropy)
