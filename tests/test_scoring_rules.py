"""Rules that rank networks by one pass: temperatures, and smoothing by options."""

import itertools

import numpy as np
import pytest

from benchmarks.scoring_rules import (
    TEMPERATURES,
    kept,
    least_along,
    scores_by_rule,
    scoring_metrics,
)
from benchmarks.smoothing import features, smoothed
from oneshot.correlations import kendall_tau
from oneshot.losses import CLASSIFICATION

ARCHS = np.array(list(itertools.product(range(3), repeat=4)))


def additive(rng):
    effects = rng.normal(size=(4, 3))
    pair = rng.normal(size=(3, 3))
    return (
        sum(effects[i, ARCHS[:, i]] for i in range(4)) + pair[ARCHS[:, 0], ARCHS[:, 2]]
    )


def test_what_options_and_pairs_explain_is_kept():
    true = additive(np.random.default_rng(0))
    np.testing.assert_allclose(smoothed(ARCHS, true), true, atol=0.05)


def test_noise_of_single_networks_is_taken_away():
    rng = np.random.default_rng(1)
    true = additive(rng)
    noisy = true + true.std() * rng.normal(size=len(true))
    assert kendall_tau(smoothed(ARCHS, noisy), true) > kendall_tau(noisy, true) + 0.05


def test_features_name_each_option_and_each_pair():
    found = features(ARCHS)
    assert found.shape == (81, 4 * 3 + 6 * 9)
    assert (found.sum(axis=1) == 4 + 6).all()


def test_the_best_temperature_lies_between_those_measured():
    grid = np.linspace(-1, 1, 7)[:, None]
    places = np.array([[-0.9, -0.31, 0.0, 0.52]])
    values = (grid - places) ** 2 + 0.25
    np.testing.assert_allclose(least_along(values), 0.25, atol=1e-9)
    beyond = (grid - 5.0) ** 2  # the least lies outside: no further than a step
    assert 0 < least_along(beyond)[0] <= beyond.min()
    assert least_along(np.array([[1.0], [1.5], [1.9]])) == [1.0]  # bent down


def test_logits_that_are_too_large_lose_nothing_once_calibrated():
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=2000)
    logits = rng.normal(size=(2000, 10)).astype(np.float32)
    logits[np.arange(2000), labels] += 1.0
    kinds = [logits, 1.7 * logits, 0.6 * logits, 0.9 * logits + 0.2]
    means = {
        name: np.array([metric((one, one), labels).mean() for one in kinds])
        for name, metric in scoring_metrics(CLASSIFICATION).items()
    }
    rules = scores_by_rule(kept(means), ARCHS[:4])
    assert set(rules) == {
        "loss",
        "accuracy",
        "calibrated",
        "refitted",
        "alignment",
        "summed",
        "smoothed",
        "alignment, smoothed",
    }
    scaled = scores_by_rule(
        {**kept(means), "alignment": 9 * -rules["alignment"]}, ARCHS[:4]
    )
    np.testing.assert_allclose(scaled["summed"], rules["summed"])
    parts = rules["loss"], rules["alignment"]
    want = sum((part - part.mean()) / part.std() for part in parts)
    np.testing.assert_allclose(rules["summed"], want)
    # Of features neither scale nor mean matters.
    assert np.ptp(rules["alignment"]) < 1e-4 < rules["alignment"].min()
    assert np.ptp(rules["loss"]) > 0.05 > 40 * np.ptp(rules["calibrated"])
    np.testing.assert_allclose(rules["loss"], -means["loss"], rtol=1e-6)


def test_a_temperature_of_one_is_the_loss_itself():
    assert 1.0 in TEMPERATURES
    logits, labels = np.eye(3, dtype=np.float32), np.arange(3)
    metrics = scoring_metrics(CLASSIFICATION)
    assert metrics["loss_at_1.000"]((logits, logits), labels) == pytest.approx(
        metrics["loss"]((logits, logits), labels)
    )
