"""The data of the spaces' benchmarks: who said what, in which split."""

import jax
import numpy as np
import optax
import pytest

from benchmarks import space_data
from oneshot.ctc import CTC, check_sequences
from oneshot.evaluate import Evaluator
from oneshot.extraction import extract
from oneshot.fitting import fit
from oneshot.spaces import speech
from oneshot.strategies import Uniform
from oneshot.train import Trainer


@pytest.fixture
def folder(data_dir, monkeypatch):
    monkeypatch.setenv("ONESHOT_DATA", str(data_dir))
    return data_dir


def recordings(n=40, frames=6):
    """Sounds that say who made them: the value is speaker + digit / 16."""
    rng = np.random.default_rng(0)
    y, speaker = rng.integers(0, 10, n), rng.integers(1, 4, n)
    x = np.zeros((n, frames, 3), np.float32)
    x[:, 1:-1] = (speaker + y / 16)[:, None, None]
    return {"x": x, "y": y, "speaker": speaker}


def test_strings_are_recordings_of_one_speaker_one_after_the_other():
    arrays = recordings()
    x, y = space_data.strings(arrays, 50, seed=1)
    assert x.shape == (50, 5 * 8, 3) and y.shape == (50, 5)
    assert set((y >= 0).sum(1)) == {3, 4, 5}
    for sound, digits in zip(x, y, strict=True):
        heard = sound[:, 0][sound[:, 0] > 0].reshape(-1, 4)
        speakers = np.floor(heard)
        assert (speakers == speakers[0]).all() and (heard == heard[:, :1]).all()
        said = ((heard - speakers) * 16)[:, 0].round().astype(int)
        assert said.tolist() == digits[digits >= 0].tolist()
    outputs = jax.ShapeDtypeStruct((50, 10, 11), np.float32)
    check_sequences(outputs, y)
    again = space_data.strings(arrays, 50, seed=1)
    np.testing.assert_array_equal(again[0], x)
    assert not np.array_equal(space_data.strings(arrays, 50, seed=2)[1], y)


def test_digits_are_split_by_take(folder):
    data = space_data.speech()
    test = data.open_test("sizes")
    assert len(test.x) == 300 and len(data.validate.x) == 180
    assert len(data.train.x) == 2520 and data.train.x.shape[1:] == (32, 32, 1)
    counts = [np.bincount(s.y) for s in (data.train, data.validate, test)]
    assert all(len(set(count)) == 1 for count in counts)  # each digit equally often
    images = [{image.tobytes() for image in s.x} for s in (data.train, test)]
    assert not images[0] & images[1]


def test_strings_of_digits_share_no_take_between_splits(folder):
    data = space_data.digit_strings(train=50, scored=20)
    single = space_data.speech()
    known = {row.tobytes() for image in single.train.x for row in image if row.any()}

    def shared(split):
        rows = [row for image in split.x for row in image if row.any()]
        return np.mean([row.tobytes() in known for row in rows])

    assert shared(data.train) == 1
    assert shared(data.validate) < 0.05 and shared(data.open_test("rows")) < 0.05


def test_adult_has_its_columns_and_official_test(folder):
    data = space_data.adult()
    test = data.open_test("sizes")
    assert len(test.x) == 16281 and len(data.train.x) + len(data.validate.x) == 32561
    numbers, codes = np.split(data.train.x, [6], axis=1)
    assert abs(numbers.mean()) < 0.02 and np.allclose(numbers.std(0), 1, atol=0.05)
    limits = np.array(space_data.ADULT_CATEGORIES)
    for split in (data.train, data.validate, test):
        codes = split.x[:, 6:]
        assert (codes == codes.round()).all() and (codes >= 0).all()
        assert (codes < limits[None]).all()
    assert 0.23 < test.y.mean() < 0.25


@pytest.mark.slow
def test_images_are_standardised(folder):
    data = space_data.cifar()
    whole = np.concatenate([data.train.x, data.validate.x]).astype(float)
    np.testing.assert_allclose(whole.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(whole.std((0, 1, 2)), 1, atol=1e-3)
    assert len(data.open_test("sizes").x) == 2000


def test_without_a_folder_it_says_what_to_name(monkeypatch):
    monkeypatch.delenv("ONESHOT_DATA", raising=False)
    with pytest.raises(ValueError, match="ONESHOT_DATA"):
        space_data.adult()


@pytest.mark.slow
def test_ctc_learns_strings_of_digits(folder):
    sizes = {"width": 48, "depth": [1], "kernel": [7], "expand": [2], "heads": [2]}
    net = speech(model="conformer", size=sizes, output="ctc")
    data = space_data.digit_strings(train=1500, scored=100)
    steps = 400
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 40, steps)
    trainer = Trainer(
        net, Uniform(net.space), optax.adamw, rate, loss=CTC, clip_norm=5.0
    )
    state = trainer.init(0, data.train.x[:32])
    for last, _ in fit(trainer, state, data, steps, batch_size=32):
        state = last
    arch = net.space.arch({})
    scores = Evaluator(net, data, engine=trainer.engine, loss=CTC)(
        state.weights, [arch]
    )
    assert scores.examples["token_error_rate"].mean() < 0.6  # 1 for blanks alone
    model = extract(net, state.weights, arch, data.calibrate.x)
    logits = model(data.validate.x)
    np.testing.assert_allclose(
        CTC["loss"](logits, data.validate.y), scores.examples["loss"][0], 1e-3, 1e-3
    )
