"""The benchmark of rankings, narrow and short: it trains, scores, resumes, reports."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from benchmarks import macro_truth, ranking_quality
from benchmarks.ranking_recipes import RECIPES, Settings, digest
from benchmarks.ranking_spaces import SPACES
from oneshot import Data, checkpoint
from oneshot.spaces import nb_macro
from oneshot.teaching import PairwiseRank, Teaching

KEPT = 40  # networks


def small_images(*_):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(96, 8, 8, 3)).astype(np.float32), rng.integers(10, size=96)
    return Data.from_arrays((x[:64], y[:64]), validate=(x[64:], y[64:]), calibrate=16)


@pytest.fixture
def small(monkeypatch, data_dir):
    truth = macro_truth.load(data_dir).only(np.arange(KEPT))
    truth = dataclasses.replace(truth, choosing=np.arange(16))
    space = dataclasses.replace(
        SPACES["nb_macro"],
        make=lambda: nb_macro(width=0.125, hidden=16),
        data=small_images,
        truth=lambda folder: truth,
        settings=Settings(steps=4, rate=0.1, batch=16),
    )
    monkeypatch.setitem(SPACES, "nb_macro", space)
    return space


def a_run(space, directory, name="uniform"):
    recipe = RECIPES[name]
    settings = recipe.settings(space.settings, space.make(), 1.0)
    console, data = ranking_quality.Console(quiet=True), small_images()
    where = (settings, data, 0, directory, console)
    return ranking_quality.Run(name, recipe, space, *where)


@pytest.mark.slow
def test_recipes_are_trained_scored_and_reported(small, tmp_path, capsys, monkeypatch):
    out = tmp_path / "results.json"
    folder = ["--directory", str(tmp_path / "runs"), "--images", "64"]
    ranking_quality.main([*folder, "--recipes", "uniform", "--json", str(out)])
    ranking_quality.main([*folder, "--recipes", "pairs", "gdas", "--json", str(out)])
    found = json.loads(out.read_text())
    for name, steps in {"uniform": 4, "pairs": 2, "gdas": 2}.items():
        assert -1 <= found[f"0k_{name}_tau"] <= 1 and found[f"0k_{name}_n"] == KEPT
        assert found[f"0k_{name}_steps"] == steps
    assert len(found["0k_gdas_chosen"]) == 8
    assert found["best"] in ("uniform", "gdas")  # pairs know multiply-adds
    assert found["best_tau"] == found[f"0k_{found['best']}_tau"]
    assert "(guided)" in capsys.readouterr().out
    scores = tmp_path / "runs" / "nb_macro" / "full" / "uniform-64-0.npz"
    with np.load(scores) as kept:
        assert kept["loss"].shape == (KEPT,) and np.isfinite(kept["loss"]).all()
    # Finished scores are kept; those of a recipe that has changed are refused.
    before = scores.stat().st_mtime_ns
    ranking_quality.main([*folder, "--recipes", "uniform"])
    assert scores.stat().st_mtime_ns == before
    other = dataclasses.replace(small.settings, rate=0.2)
    changed = dataclasses.replace(small, settings=other)
    monkeypatch.setitem(SPACES, "nb_macro", changed)
    with pytest.raises(ValueError, match="another recipe"):
        ranking_quality.main([*folder, "--recipes", "uniform"])


@pytest.mark.slow
@pytest.mark.parametrize("windows", [None, 6])
def test_a_stopped_recipe_goes_on_to_equal_bits(small, tmp_path, monkeypatch, windows):
    monkeypatch.setitem(
        RECIPES, "uniform", dataclasses.replace(RECIPES["uniform"], window=windows)
    )
    runs, fit = {}, ranking_quality.fit
    for kind in ("whole", "stopped"):
        directory = tmp_path / kind
        directory.mkdir()
        run = a_run(small, directory)
        if kind == "stopped":
            monkeypatch.setattr(ranking_quality, "SAVE_SECONDS", 0)

            def interrupted(*args, **options):
                yield next(iter(fit(*args, **options, every=2)))
                raise KeyboardInterrupt

            monkeypatch.setattr(ranking_quality, "fit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ranking_quality.trained(run)
            monkeypatch.setattr(ranking_quality, "fit", fit)
            assert checkpoint.latest_step(directory) in (2, run.steps * 3 // 4)
        runs[kind] = ranking_quality.trained(run)[1]
    for part in ("params", "state"):
        a, b = (getattr(runs[kind].weights, part) for kind in ("whole", "stopped"))
        for left, right in zip(*map(jax.tree.leaves, (a, b)), strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_recipe_is_told_from_its_earlier_self():
    recipe, settings = RECIPES["uniform"], Settings(100, 0.1)
    known = digest(recipe, settings, "uniform")
    assert known == digest(dataclasses.replace(recipe), settings, "uniform")
    teaching = Teaching(rank=PairwiseRank(2.0))
    for changed in (
        (dataclasses.replace(recipe, teaching=teaching), settings),
        (recipe, dataclasses.replace(settings, rate=0.2)),
        (recipe, dataclasses.replace(settings, steps=3)),
    ):
        assert digest(*changed, "uniform") != known


def test_recipes_cost_alike():
    space = SPACES["nb_macro"]
    net = space.make()
    uniform, fair, large, darts = (
        RECIPES[name].settings(space.settings, net, 0.5)
        for name in ("uniform", "fair", "large_batch", "darts")
    )
    assert uniform.steps == round(space.settings.steps / 2)
    assert fair.steps == round(space.settings.steps / 6)  # three paths an update
    assert large.steps * large.batch == uniform.steps * uniform.batch
    assert darts.steps * 6 == pytest.approx(uniform.steps, rel=0.01)


@pytest.mark.parametrize("short", ["0", "1.5", "0.5"])
def test_a_share_out_of_range_or_written_is_refused(short, tmp_path):
    out = ["--json", str(tmp_path / "x.json")]
    with pytest.raises(SystemExit, match="above 0 and at most 1"):
        ranking_quality.main(["--short", short, *out])
