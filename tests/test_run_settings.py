"""A run's loss, optimizer, warm-up, smoothing and augmentation, from end to end."""

import json
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

import oneshot
from oneshot import augment, datasets, run_training
from oneshot.augmentations import augmentation, calls, parsed
from oneshot.cli import main
from oneshot.compilations import CompilationCounter
from oneshot.fitting import fit
from oneshot.losses import as_metrics
from oneshot.mixing import mixup
from oneshot.optimizer import adamw, check_optimizer, muon, sgd
from oneshot.progress import Bars
from oneshot.report.headline import headline
from oneshot.run import Run
from oneshot.scores import Scores
from oneshot.settings import RunSettings
from oneshot.tasks import TASKS
from oneshot.token_losses import bits
from oneshot.tuning import cosine

QUIET = Bars(Console(quiet=True))
TOKENS = {
    "supernet": "tests.run_models:supernet",
    "data": "tests.run_models:data",
    "arguments": '{"dropout": 0.1}',
    "loss": "next_token",
    "optimizer": "adamw",
    "learning_rate": 0.02,
    "weight_decay": 0.01,
    "warmup": 0.25,
    "label_smoothing": 0.05,
    "strategy": "fair",
    "steps": 40,
    "batch_size": 16,
}
# An image model whose batches are shifted, mirrored and mixed.
MIXED = {
    "arguments": '{"widths": [4, 6], "depth": 1, "expand": [1, 2], "classes": 2}',
    "data": "tests.run_models:images",
    "augment": '["crop(1)", "flip", "mixup(0.5, 2)"]',
    "optimizer": "adamw",
    "strategy": "sandwich",
    "warmup": 4,
    "learning_rate": 0.01,
    "steps": 40,
    "batch_size": 16,
}


def options(settings):
    pairs = ((f"--{k.replace('_', '-')}", str(v)) for k, v in settings.items())
    return [text for pair in pairs for text in pair]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tokens"
    assert main(["train", "--out", str(path), *options(TOKENS)]) == 0
    assert main(["search", str(path), "--budget", "6", "--batch", "3"]) == 0
    return path


@pytest.mark.slow
def test_a_search_of_a_decoder_shows_bits_and_no_accuracy(tokens, capsys):
    args = ["search", str(tokens), "--budget", "6", "--batch", "3"]
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert "bits" in shown and "accuracy" not in shown
    with oneshot.Trials(tokens / "trials.sqlite") as trials:
        scores = trials.all()[0].scores
    assert {"loss", "bits", "token_accuracy", "n"} <= set(scores)
    assert scores["bits"] == pytest.approx(scores["loss"] / np.log(2), rel=1e-6)


@pytest.mark.slow
def test_extract_tunes_by_the_runs_optimizer_and_prints_its_headline(tokens, capsys):
    args = ["extract", str(tokens), "--tune-steps", "20", "--tune-rate", "0.01"]
    assert main([*args, "--test"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Test bits a token: " in shown and "n = 20" in shown
    (row,) = json.loads((tokens / "result.json").read_text())["rows"]
    assert row["tuned_low"] <= row["tuned_bits"] <= row["tuned_high"]
    assert row["tuned_bits"] < row["inherited_bits"] < np.log2(7)
    model = oneshot.load(tokens / "best")
    x, y = datasets.load_data(TOKENS["data"]).open_test("a test of the saved model")
    found = float(bits(model(x), y).mean())
    assert found == pytest.approx(row["tuned_bits"], rel=1e-4)
    page = (tokens / "report.html").read_text("utf-8")
    assert "Test bits a token, tuned" in page and "ccuracy" not in page
    assert f"{row['tuned_bits']:.4f}" in page


@pytest.mark.slow
def test_warm_up_and_rate_are_logged(tokens):
    rows = [json.loads(x) for x in (tokens / "metrics.jsonl").read_text().splitlines()]
    rates = [r["learning_rate"] for r in rows]
    assert np.argmax(rates) == 9 and max(rates) == pytest.approx(0.02)
    assert rates[0] == pytest.approx(0.002) and rates[-1] < 1e-4
    assert {"loss", "bits", "token_accuracy"} <= set(rows[0])


@pytest.mark.slow
@pytest.mark.parametrize("settings", [TOKENS, MIXED], ids=["tokens", "mixed"])
def test_an_interrupted_run_goes_on_to_equal_bits(settings, tmp_path, monkeypatch):
    """Killed after 20 steps, all settings in use: the same weights and rows."""
    whole = Run(tmp_path / "whole", RunSettings(**settings), QUIET)
    whole.train("")
    monkeypatch.setattr(run_training, "CHECKPOINT_EVERY", 20)

    def killed(*args, **named):
        yield next(iter(fit(*args, **named)))
        raise KeyboardInterrupt

    monkeypatch.setattr(run_training, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "again", RunSettings(**settings), QUIET).train("")
    monkeypatch.setattr(run_training, "fit", fit)
    resumed = Run(tmp_path / "again", None, QUIET)
    assert resumed.state.step == 20
    resumed.train("")
    both = map(jax.tree.leaves, (whole.weights, resumed.weights))
    for a, b in zip(*both, strict=True):
        np.testing.assert_array_equal(a, b)
    rows = [(tmp_path / n / "metrics.jsonl").read_text() for n in ("whole", "again")]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_programs_for_mixed_labels_are_compiled_before_the_first_step(tmp_path):
    run = Run(tmp_path / "run", RunSettings(**MIXED), QUIET)
    batches = run.data.batches(0, 16, run.trainer.engine)
    assert batches(0)[1].shape == (16, 2)  # shares of the classes
    run.trainer.warm_up(batches(0))
    state = run.trainer.init(0, batches(0)[0])
    with CompilationCounter() as counter:
        for step in range(3):
            state, _ = run.trainer.step(state, batches(step))
    assert counter.count == 0


@pytest.mark.slow
def test_a_run_of_an_older_version_is_read_and_continued(tokens, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(tokens, old)
    config = json.loads((old / "config.json").read_text())
    for name in ("label_smoothing", "augment"):
        del config["run"][name]
    (old / "config.json").write_text(json.dumps(config))
    assert Run(old, None, QUIET).settings.label_smoothing == 0
    given = RunSettings(**{**TOKENS, "label_smoothing": 0.0})
    assert Run(old, given, QUIET).settings == given


# --- settings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"label_smoothing": 1.0}, "from 0 to below 1"),
        ({"warmup": -1}, "share of the steps"),
        ({"warmup": 2.5}, "share of the steps"),
        ({"warmup": 1000}, "less than all 1000"),
        ({"learning_rate": float("nan")}, "at least 0, but got nan"),
        ({"clip_norm": -1.0}, "`clip_norm` is above 0"),
        ({"momentum": 3.0}, "from 0 to below 1, but got 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, expected):
    with pytest.raises(ValueError, match=expected):
        RunSettings(**settings)


def test_a_run_keeps_its_rate_unless_another_is_named(tmp_path):
    own = RunSettings(learning_rate=0.02, clip_norm=2.0)
    (tmp_path / "config.json").write_text(json.dumps({"run": own.to_json()}))
    for asked, rate in ((RunSettings(), 0.02), (RunSettings(learning_rate=0.05), 0.05)):
        run = Run(tmp_path, asked, QUIET)
        found = run.settings.learning_rate, run.settings.clip_norm
        assert found == (rate, 2.0)
        words = "" if rate == 0.02 else "learning_rate 0.05 instead of 0.02"
        assert run.adjusted == words


def test_other_data_than_a_run_was_trained_on_is_refused(tmp_path):
    config = {"run": RunSettings().to_json()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    known = dict(Run(tmp_path, None, QUIET).data.fingerprint)
    for name in known:
        stored = {"data": {"fingerprints": known | {name: "0" * 16}}}
        (tmp_path / "result.json").write_text(json.dumps(stored))
        with pytest.raises(ValueError, match=f"trained on other data.*: .*{name}"):
            _ = Run(tmp_path, None, QUIET).data
    stored = {"data": {"fingerprints": known}}
    (tmp_path / "result.json").write_text(json.dumps(stored))
    assert Run(tmp_path, None, QUIET).data.fingerprint == known


def test_tuning_warms_up_in_proportion():
    assert RunSettings(steps=200, warmup=0.1).warmup_steps(50) == 5
    assert RunSettings(steps=200, warmup=20).warmup_steps(50) == 5
    assert RunSettings(steps=200, warmup=199).warmup_steps(1) == 0


def test_the_rate_rises_and_falls():
    rate = cosine(1.0, 100, 10)
    found = np.array([float(rate(i)) for i in range(100)])
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10, rtol=1e-5)
    fall = 0.5 * (1 + np.cos(np.pi * np.arange(90) / 90))
    np.testing.assert_allclose(found[10:], fall, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [sgd, adamw, muon])
def test_ready_optimizers_work_module_by_module(make):
    check_optimizer(make(0.9, 0.01))


def test_adamw_decays_matrices_that_are_no_biases():
    transformation = adamw(0.9, 0.5)(0.1)
    square = np.ones((2, 2), np.float32)  # a bias may have heads and their features
    params = {"kernel": square, "bias": square, "down_bias": square, "scale": square[0]}
    zero = jax.tree.map(np.zeros_like, params)
    updates, _ = transformation.update(zero, transformation.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    for name in ("bias", "down_bias", "scale"):
        np.testing.assert_array_equal(updates[name], 0)


def test_sgd_decays_all_or_spares_what_adamw_spares():
    square = np.ones((2, 2), np.float32)
    params = {"kernel": square, "bias": square, "scale": square[0]}
    zero = jax.tree.map(np.zeros_like, params)
    for decay_all in (True, False):
        make = sgd(0.0, 0.5, decay_all=decay_all)(0.1)
        updates, _ = make.update(zero, make.init(params), params)
        np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
        for name in ("bias", "scale"):
            np.testing.assert_allclose(updates[name], -0.05 * decay_all, rtol=1e-6)


def test_muon_moves_all_directions_of_a_matrix_alike():
    transformation = muon(0.9)(0.1)
    rng = np.random.default_rng(0)
    shapes = {"pointwise": (1, 1, 12, 8), "spatial": (3, 3, 4, 8), "kernel": (6, 8)}
    others = {"depthwise": (3, 3, 1, 8), "scale": (8,)}
    params = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in (shapes | others).items()
    }
    # Steep in one direction, which plain descent would follow.
    gradients = {name: p * 100.0 ** (p > 1) for name, p in params.items()}
    state = transformation.init(params)
    updates, state = transformation.update(gradients, state, params)
    for name, shape in shapes.items():
        matrix = np.asarray(updates[name]).reshape(-1, shape[-1])
        values = np.linalg.svd(matrix, compute_uv=False)
        assert values.max() < 2.5 * values.min()  # of Newton and Schulz's five steps
    for name in others:  # Adam's first step is of one size, whatever the gradient
        sizes = np.abs(updates[name])
        np.testing.assert_allclose(sizes, sizes.max(), rtol=1e-3)
        assert 0.005 < sizes.max() < 0.02  # a tenth of the matrices' rate


# --- tasks ------------------------------------------------------------------------


def test_every_loss_on_offer_has_a_task_with_its_headline():
    import typing

    hints = typing.get_type_hints(RunSettings)
    assert set(TASKS) == set(typing.get_args(hints["loss"]))
    for task in TASKS.values():
        assert "loss" in as_metrics(task.metrics)
        assert task.headline.metric in task.metrics
        shown = headline({"headline": task.headline.to_json()})
        assert shown.metric == task.headline.metric


def test_a_headlines_interval():
    values = {"accuracy": np.array([[1.0, 1, 0, 1]]), "bits": np.array([[2.0, 2.2]])}
    one = Scores(((0,),), {"accuracy": values["accuracy"]}, np.zeros(1))
    row = TASKS["cross_entropy"].headline.row(one, "tuned")
    assert row["tuned_accuracy"] == 0.75 and row["tuned_correct"] == 3
    assert row["tuned_low"] == pytest.approx(0.3006, abs=1e-3)  # Wilson's
    two = Scores(((0,),), {"bits": values["bits"]}, np.zeros(1))
    row = TASKS["next_token"].headline.row(two, "tuned")
    assert row["tuned_high"] - row["tuned_bits"] == pytest.approx(1.96 * 0.1)


# --- augmentation -----------------------------------------------------------------


def shifted(by, scale=1.0):
    """An augmentation of the tests' own: every value moves by `by`."""
    return lambda key, x, y: (scale * x + by, y)


def test_calls_by_name():
    assert calls("") == [] and calls("flip") == ["flip"]
    assert calls('["crop(4)", "flip"]') == ["crop(4)", "flip"]
    assert parsed("a:b(4, alpha=0.2, why=None)") == (
        "a:b", [4], {"alpha": 0.2, "why": None},
    )  # fmt: skip
    assert augmentation("  ") is None
    x, y = np.ones((2, 3)), np.arange(2)
    moved = augmentation("tests.test_run_settings:shifted(by=1, scale=2)")
    np.testing.assert_array_equal(moved(None, x, y)[0], 3)


@pytest.mark.slow
def test_ready_augmentations_go_by_their_names_in_the_order_given(key):
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    y = np.arange(4)
    named = augmentation('["crop(2)", "flip(probability=1.0)", "mixup(0.5, 4)"]')
    parts = augment.crop(2), augment.flip(1.0), mixup(0.5, 4)
    for a, b in zip(named(key, x, y), augment.compose(*parts)(key, x, y), strict=True):
        np.testing.assert_array_equal(a, b)
    masked, _ = augmentation("spec_augment(3, 3)")(key, x[..., 0], y)
    assert masked.shape == (4, 8, 8) and not np.array_equal(masked, x[..., 0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mixup(0.2)", r"missing a required argument: 'classes'.*It takes \(alpha"),
        ("blur", "No augmentation is called 'blur'; there are crop, .*, mixup"),
        ("tests.test_run_settings:shifted()", "missing a required argument"),
        ("tests.test_run_settings:shifted(print(1))", "literal arguments"),
        ("tests.test_run_settings:shifted(1", "literal arguments"),
        ("tests.test_run_settings:nothing", "Cannot import"),
        ("[1, 2]", "JSON list"),
        ('["crop(4)"', "JSON list"),
    ],
)
def test_augmentations_that_cannot_be_made_are_refused(text, expected):
    with pytest.raises(ValueError, match=expected):
        augmentation(text)
