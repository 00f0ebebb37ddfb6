"""Token streams are split without leaks; characters come back; features are a mel's."""

import gzip

import jax.numpy as jnp
import numpy as np
import pytest

from oneshot.datasets import load_data
from oneshot.logmel import log_mel, mel_filters
from oneshot.tokens import CharTokenizer, character_data, read_text, token_data, windows


def test_targets_are_the_next_tokens():
    x, y = windows(np.arange(11), 4, 2)
    np.testing.assert_array_equal(
        x, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    )
    np.testing.assert_array_equal(y, x + 1)
    assert x.dtype == y.dtype == np.int32


@pytest.mark.parametrize("length, stride, n", [(4, None, 100), (7, 3, 211), (8, 1, 97)])
def test_no_token_is_in_two_splits(length, stride, n):
    data = token_data(np.arange(n), length, validate=0.2, test=0.2, stride=stride)
    splits = [data.train, data.validate, data.open_test("the test")]
    tokens = [set(np.concatenate(s).ravel().tolist()) for s in splits]
    assert max(tokens[0]) < min(tokens[1]) and max(tokens[1]) < min(tokens[2])
    for split in splits[1:]:  # each target once
        assert len(set(split.y.ravel())) == split.y.size
    assert len(tokens[0]) > 0.6 * n - 2 * length


def test_streams_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match="take 9, but this part"):
        token_data(np.arange(20), 8)
    with pytest.raises(ValueError, match="together they are below 1"):
        token_data(np.arange(99), 4, validate=0.5, test=0.5)
    with pytest.raises(ValueError, match="is integers"):
        token_data(np.zeros(9), 4)
    with pytest.raises(ValueError, match="stride 0"):
        token_data(np.arange(99), 4, stride=0)


def test_characters_come_back():
    text = "Grüße, 世界!\n"
    tokenizer = CharTokenizer.from_text(text)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert len(tokenizer) == len(set(text)) and tokens.max() == len(tokenizer) - 1
    with pytest.raises(ValueError, match="'q' is none of the"):
        tokenizer.encode("q")
    with pytest.raises(ValueError, match="each character once"):
        CharTokenizer("aa")


def test_texts_are_read_from_files(tmp_path):
    text = "To be, or not to be, that is the question. " * 50
    plain, zipped = tmp_path / "a.txt", tmp_path / "a.txt.gz"
    plain.write_text(text)
    zipped.write_bytes(gzip.compress(text.encode()))
    assert read_text(plain) == read_text(zipped) == text
    one, other = load_data(str(plain)), character_data(zipped, 128, stride=32)
    assert one.fingerprint == other.fingerprint and one.train.x.shape[1] == 128
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="not a text"):
        read_text(tmp_path / "b.txt.gz")
    with pytest.raises(ValueError, match="no text file"):
        load_data(str(tmp_path / "c.txt"))


def log_mel_by_hand(wave, rate, mels, size, step, bins, low):
    """One frame, one frequency and one band at a time."""
    frames = []
    for start in range(0, len(wave) - size + 1, step):
        frame = wave[start : start + size].astype(np.float64)
        frame = frame * np.sin(np.pi * np.arange(size) / size) ** 2
        k = np.arange(bins // 2 + 1)[:, None]
        waves = np.exp(-2j * np.pi * k * np.arange(size)[None] / bins)
        frames.append(np.abs(waves @ frame) ** 2)
    hertz = np.arange(bins // 2 + 1) * rate / bins

    def mel(f):
        return 1127.0105 * np.log(1 + f / 700)

    ends = np.linspace(mel(low), mel(rate / 2), mels + 2)
    ends = 700 * (np.exp(ends / 1127.0105) - 1)
    bank = [np.interp(hertz, ends[i : i + 3], [0, 1, 0]) for i in range(mels)]
    return np.log(np.maximum(np.array(frames) @ np.array(bank).T, 1e-6))


def test_features_are_those_of_a_plain_loop():
    rng, rate = np.random.default_rng(0), 8000
    waves = rng.normal(size=(2, 1000)).astype(np.float32)
    waves[1] = np.sin(2 * np.pi * 1000 * np.arange(1000) / rate)
    found = log_mel(jnp.asarray(waves), rate, mels=20)
    assert found.shape == (2, 11, 20) and found.dtype == jnp.float32
    for wave, features in zip(waves, found, strict=True):
        want = log_mel_by_hand(wave, rate, 20, 200, 80, 256, 20.0)
        np.testing.assert_allclose(features, want, atol=2e-3)
    assert set(np.argmax(np.asarray(found[1]), -1)) == {9}  # the band around 1 kHz


def test_silence_is_finite_and_wrong_bands_are_refused():
    silence = log_mel(jnp.zeros((1, 400)), 8000, mels=10, floor=1e-4)
    np.testing.assert_allclose(silence, np.log(1e-4), rtol=1e-6)
    with pytest.raises(ValueError, match="at least 200 samples"):
        log_mel(jnp.zeros((1, 100)), 8000)
    with pytest.raises(ValueError, match="holds none of the transform's"):
        mel_filters(128, 256, 8000)
    with pytest.raises(ValueError, match="half the rate"):
        mel_filters(10, 256, 8000, high=5000)
