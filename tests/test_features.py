"""Scores by features: alignment and refitted heads against their definitions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from supernets import BY_NAME

from oneshot import Evaluator, Race, Resources, evaluation_blocks
from oneshot.data import Split
from oneshot.feature_scores import part_of
from oneshot.features import (
    Alignment,
    OfOutputs,
    Refitted,
    _of_examples,
    with_features,
)
from oneshot.losses import SmoothedCrossEntropy, accuracy, cross_entropy
from oneshot.score_keys import metric_name
from oneshot.scoring import _chunks
from oneshot.tasks import TASKS

CLASSES, N, D = 4, 30, 7
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, D)), RNG.integers(0, CLASSES, N)
X = X + 0.5 * np.eye(D)[Y]
OUTPUTS = np.zeros((N, CLASSES), np.float32), X.astype(np.float32)


def alignment(x, y):
    """The definition: two centred kernels, without their diagonals."""
    x, y = x - x.mean(0), np.eye(CLASSES)[y] - np.eye(CLASSES)[y].mean(0)
    k, target = (a @ a.T * (1 - np.eye(len(x))) for a in (x, y))
    return (k * target).sum() / np.linalg.norm(k) / np.linalg.norm(target)


def test_alignment_is_that_of_two_kernels():
    got = Alignment()(OUTPUTS, Y)
    assert got.shape == (N,)
    np.testing.assert_allclose(-np.mean(got), alignment(X, Y), rtol=1e-4)
    wide = OUTPUTS[0], RNG.normal(size=(N, 50)).astype(np.float32)
    want = alignment(wide[1].astype(float), Y)
    np.testing.assert_allclose(-np.mean(Alignment()(wide, Y)), want, rtol=1e-3)


@pytest.mark.parametrize("d", [5, 200])
def test_the_error_of_an_alignment_is_that_of_other_draws(d):
    rng, n, means, errors = np.random.default_rng(1), 120, [], []
    for _ in range(150):
        y = rng.integers(0, CLASSES, n)
        x = rng.normal(size=(n, d)) + np.eye(CLASSES, d)[y] * d**0.5 / 2
        found = Alignment()((np.zeros((n, CLASSES)), x.astype(np.float32)), y)
        means.append(np.mean(found))
        errors.append(np.std(found, ddof=1) / n**0.5)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.25)


def test_scale_rotation_and_mean_of_features_do_not_matter():
    turn = np.linalg.qr(RNG.normal(size=(D, D)))[0]
    other = OUTPUTS[0], (3 * X @ turn + 5).astype(np.float32)
    for metric in (Alignment(), Refitted()):
        want = np.mean(metric(OUTPUTS, Y))
        np.testing.assert_allclose(np.mean(metric(other, Y)), want, rtol=1e-3)


@pytest.mark.parametrize("ridge", [0.002, 0.02, 1.0])
def test_a_refitted_head_predicts_each_example_by_the_others(ridge):
    """Fitted anew for each; means and the penalty are those of all examples."""
    x, y = X - X.mean(0), np.eye(CLASSES)[Y] - np.eye(CLASSES)[Y].mean(0)
    penalty, want = ridge * (x**2).sum(), []
    for i in range(N):
        others = np.arange(N) != i
        a, b = x[others], y[others]
        head = np.linalg.solve(a.T @ a + penalty * np.eye(D), a.T @ b)
        want.append(((y[i] - x[i] @ head) ** 2).sum())
    np.testing.assert_allclose(Refitted(ridge)(OUTPUTS, Y), want, rtol=1e-3)


@pytest.mark.parametrize("metric", [Alignment(), Refitted()])
def test_padding_does_not_count(metric):
    more = [np.concatenate([a, 9 + np.zeros_like(a[:5])]) for a in OUTPUTS]
    got = metric(more, np.concatenate([Y, [-1] * 5]))
    np.testing.assert_allclose(got[:N], metric(OUTPUTS, Y), rtol=1e-4)
    np.testing.assert_array_equal(got[N:], 0)


@pytest.mark.parametrize("metric", [Alignment(), Refitted()])
def test_labels_may_be_shares_of_classes(metric):
    shares = np.eye(CLASSES, dtype=np.float32)[Y]
    np.testing.assert_allclose(metric(OUTPUTS, shares), metric(OUTPUTS, Y), rtol=1e-5)
    more = [np.concatenate([a, 9 + np.zeros_like(a[:5])]) for a in OUTPUTS]
    got = metric(more, np.concatenate([shares, np.full_like(shares[:5], -1)]))
    np.testing.assert_allclose(got[:N], metric(OUTPUTS, Y), rtol=1e-4)


@pytest.mark.parametrize("metric", [Alignment(), Refitted()])
def test_tokens_are_examples_of_their_own(metric):
    tokens = [a.reshape(6, 5, -1) for a in OUTPUTS]
    got, want = metric(tokens, Y.reshape(6, 5)), metric(OUTPUTS, Y).reshape(6, 5)
    np.testing.assert_allclose(got, want.mean(1), rtol=1e-4)


def test_sequences_may_have_numbers_of_tokens_of_their_own():
    some = np.where(np.arange(30) % 7 == 3, -1, Y)
    kept = [a[some >= 0] for a in OUTPUTS]
    tokens = [a.reshape(6, 5, -1) for a in OUTPUTS]
    got = float(np.mean(Alignment()(tokens, some.reshape(6, 5))))
    want = float(np.mean(Alignment()(kept, Y[some >= 0])))
    assert got == pytest.approx(want, rel=1e-4)


def test_equal_features_are_no_error():
    same = OUTPUTS[0], np.ones((N, D), np.float32)
    for metric in (Alignment(), Refitted()):
        assert np.isfinite(metric(same, Y)).all()
    with pytest.raises(ValueError, match="above 0, but got 0"):
        Refitted(0.0)


@pytest.mark.parametrize("name", ["mixed", "decoder"])
def test_features_are_what_the_head_is_given(name):
    reference = BY_NAME[name]
    net, pool = reference.make(), name == "mixed"
    weights, (x, _) = reference.weights(net), reference.batch()
    arch = reference.archs(net, 2)[1]
    (outputs, features), _ = with_features(net, pool=pool).apply(*weights, arch, x)
    np.testing.assert_array_equal(outputs, net.apply(*weights, arch, x)[0])
    carry = x
    for step in net.path(arch)[:-1]:
        module, own = net.modules[step.module], (p[step.module] for p in weights)
        carry, _ = module.apply(*own, carry, options=step.options, mode="eval")
    carry = max(jax.tree.leaves(carry), key=np.size)
    middle = tuple(range(1, carry.ndim - 1)) if pool else ()
    np.testing.assert_allclose(features, carry.mean(middle), rtol=1e-5)


def test_features_are_of_examples_only():
    """What travels along, such as a table of embeddings, has no row for each."""
    table, rows = jnp.zeros((50, 8)), jnp.ones((6, 5, 4))
    found = _of_examples({"table": table, "rows": rows, "few": rows[:, 0]}, rows)
    assert [a.shape for a in found] == [(6, 4), (6, 5, 4)]
    with pytest.raises(ValueError, match=r"it is given float32\[50, 8\]"):
        _of_examples({"table": table}, rows)


def test_settings_name_metrics_alike_in_every_process():
    reference = BY_NAME["mixed"]
    net, data = reference.make(), reference.data(75)
    metrics = {"loss": OfOutputs(cross_entropy), "refitted": Refitted(0.1)}
    settings = [
        Evaluator(
            with_features(net), data, loss=metrics, resources=Resources(chunk=n)
        ).settings
        for n in (16, 8)
    ]
    assert settings[0]["metrics"] == {
        "loss": "OfOutputs(metric=oneshot.losses.cross_entropy)",
        "refitted": "Refitted(ridge=0.1)",
    }
    assert [one["chunk"] for one in settings] == [16, 8]
    plain = Evaluator(net, data, resources=Resources(chunk=16)).settings
    assert "chunk" not in plain


def test_names_of_metrics_tell_them_apart():
    assert [metric_name(m) for m in TASKS["cross_entropy"].metrics.values()] == [
        "oneshot.losses.cross_entropy",
        "oneshot.losses.accuracy",
    ]
    assert metric_name(SmoothedCrossEntropy(0.1)) == "SmoothedCrossEntropy(amount=0.1)"
    a, b = (functools.partial(cross_entropy, axis=i) for i in (0, 1))
    assert metric_name(a) != metric_name(b)
    for metric in (a, OfOutputs(a), OfOutputs((accuracy, a)), OfOutputs({"a": a})):
        assert " at 0x" not in metric_name(metric) and "axis" in metric_name(metric)


def test_a_chunk_that_does_not_fit_is_no_smaller_one():
    """Fewer examples to compare would be another score."""
    reference = BY_NAME["mixed"]
    net, data = reference.make(), reference.data(75)
    metrics = {"loss": OfOutputs(cross_entropy), "alignment": Alignment()}
    few = Resources(chunk=16, memory_limit=60_000)
    Evaluator(net, data, resources=few)
    with pytest.raises(MemoryError, match="Comparing 16 images .* a chunk of"):
        Evaluator(with_features(net), data, loss=metrics, resources=few)


def test_labels_are_checked_behind_features():
    reference = BY_NAME["mixed"]
    net, data = reference.make(), reference.data(75)
    x, y = data.validate
    wrong = dataclasses.replace(data, validate=Split(x, y + 100), _on_device={})
    with pytest.raises(ValueError, match="labels"):
        Evaluator(with_features(net), wrong, loss=OfOutputs(cross_entropy))


def test_metrics_that_compare_examples_do_not_race():
    reference = BY_NAME["mixed"]
    net, data = reference.make(), reference.data(75)
    metrics = {"loss": OfOutputs(cross_entropy), "alignment": Alignment()}
    with pytest.raises(ValueError, match="'alignment' depends on the others"):
        Evaluator(with_features(net), data, loss=metrics, race=Race(top=2))


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_what_fills_up_a_chunk_is_told_by_its_targets(dtype):
    x, y = np.arange(10.0)[:, None], np.arange(20).reshape(10, 2).astype(dtype)
    first, last = _chunks(Split(x, y), 6)
    np.testing.assert_array_equal(first.y, y[:6])
    np.testing.assert_array_equal(last.y, [*y[6:], [-1, -1], [-1, -1]])
    np.testing.assert_array_equal(last.x[:, 0], [6, 7, 8, 9, 9, 9])


@pytest.mark.parametrize("n", [1, 400, 1024, 1025, 2047, 10_000, 51_201, 60_000])
def test_about_equal_parts_are_compared(n):
    size = part_of(n)
    parts = -(-n // size)
    last = n - (parts - 1) * size
    assert size <= 1024 and size - parts < last <= size


def test_an_evaluator_scores_features_chunk_by_chunk(monkeypatch):
    """The last chunk is filled up with an example that does not count twice, and the
    head does not take its examples a few at a time."""
    monkeypatch.setattr(evaluation_blocks, "group_bytes", lambda: 1)
    reference = BY_NAME["mixed"]
    net, data, size = reference.make(), reference.data(75), 16
    assert len(data.validate.x) == size + 9
    weights, archs = reference.weights(net), reference.archs(net, 3)
    seen = with_features(net)
    metrics = {"loss": OfOutputs(cross_entropy), "alignment": Alignment()}
    evaluator = Evaluator(seen, data, loss=metrics, resources=Resources(chunk=size))
    found = evaluator(weights, archs)
    plain = Evaluator(net, data, resources=Resources(chunk=size))(weights, archs)
    np.testing.assert_allclose(found.loss, plain.loss, rtol=1e-5)
    for i, arch in enumerate(archs):
        own = evaluator.recalibrated(weights, arch)
        want = []
        for part in (slice(0, size), slice(size, size + 9)):
            outputs, _ = seen.apply(*own, arch, data.validate.x[part])
            want += list(jax.device_get(Alignment()(outputs, data.validate.y[part])))
        np.testing.assert_allclose(found.examples["alignment"][i], want, atol=1e-4)
