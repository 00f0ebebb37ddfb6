"""The benchmark of rankings, narrow and short: it trains, scores, resumes, reports."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from benchmarks import macro_truth, ranking_quality, ranking_table
from benchmarks.ranking_recipes import RECIPES, digest
from oneshot import Data, checkpoint
from oneshot.spaces import nb_macro
from oneshot.teaching import PairwiseRank, Teaching

KEPT = 40  # networks


def few_networks(truth):
    some = {name: getattr(truth, name)[:KEPT] for name in ("archs", "params", "macs")}
    return dataclasses.replace(
        truth,
        **some,
        seeds=truth.seeds[:, :KEPT],
        choosing=np.arange(16),
        reporting=np.arange(16, KEPT),
    )


def small_images(*_):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(96, 8, 8, 3)).astype(np.float32), rng.integers(10, size=96)
    return Data.from_arrays((x[:64], y[:64]), validate=(x[64:], y[64:]), calibrate=16)


@pytest.fixture
def small(monkeypatch, data_dir):
    truth = few_networks(macro_truth.load(data_dir))
    monkeypatch.setattr(macro_truth, "load", lambda named: truth)
    monkeypatch.setattr(ranking_quality, "images", small_images)
    narrow = nb_macro(width=0.125, hidden=16)
    monkeypatch.setattr(ranking_quality, "nb_macro", lambda: narrow)
    recipes = {
        name: dataclasses.replace(RECIPES[name], epochs=2, batch=32)
        for name in ("uniform", "pairs")
    }
    for module in (ranking_quality, ranking_table):
        monkeypatch.setattr(module, "RECIPES", recipes)
    return recipes


@pytest.mark.slow
def test_recipes_are_trained_scored_and_reported(small, tmp_path, capsys):
    out = tmp_path / "results.json"
    folder = ["--directory", str(tmp_path / "runs"), "--images", "64"]
    ranking_quality.main([*folder, "--recipes", "uniform", "--json", str(out)])
    ranking_quality.main([*folder, "--recipes", "pairs", "--json", str(out)])
    found = json.loads(out.read_text())
    for name in small:
        assert -1 <= found[f"0k_{name}_tau"] <= 1 and found[f"0k_{name}_n"] == KEPT
        assert found[f"0k_{name}_steps"] == 4
    assert found["best"] == "uniform"  # pairs know multiply-adds
    assert found["best_tau"] == found[f"0k_{found['best']}_tau"]
    assert "(guided)" in capsys.readouterr().out
    scores = tmp_path / "runs" / "full" / "uniform-64-0.npz"
    with np.load(scores) as kept:
        assert kept["loss"].shape == (KEPT,) and np.isfinite(kept["loss"]).all()
    # Finished scores are kept; those of a recipe that has changed are refused.
    before = scores.stat().st_mtime_ns
    ranking_quality.main([*folder, "--recipes", "uniform"])
    assert scores.stat().st_mtime_ns == before
    small["uniform"] = dataclasses.replace(small["uniform"], rate=0.2)
    with pytest.raises(ValueError, match="another recipe"):
        ranking_quality.main([*folder, "--recipes", "uniform"])


@pytest.mark.slow
def test_a_stopped_recipe_goes_on_to_equal_bits(small, tmp_path, monkeypatch):
    runs, fit = {}, ranking_quality.fit
    for kind in ("whole", "stopped"):
        directory = tmp_path / kind
        directory.mkdir()
        arguments = small["uniform"], small_images(), 0, directory
        console = ranking_quality.Console(quiet=True)
        if kind == "stopped":
            monkeypatch.setattr(ranking_quality, "SAVE_SECONDS", 0)

            def interrupted(*args, **options):
                yield next(iter(fit(*args, **options, every=2)))
                raise KeyboardInterrupt

            monkeypatch.setattr(ranking_quality, "fit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ranking_quality.trained(*arguments, console)
            monkeypatch.setattr(ranking_quality, "fit", fit)
            assert checkpoint.latest_step(directory) == 2
        runs[kind] = ranking_quality.trained(*arguments, console)[1]
    for part in ("params", "state"):
        a, b = (getattr(runs[kind].weights, part) for kind in ("whole", "stopped"))
        for left, right in zip(*map(jax.tree.leaves, (a, b)), strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_recipe_is_told_from_its_earlier_self():
    uniform = RECIPES["uniform"]
    assert digest(uniform, "uniform") == digest(dataclasses.replace(uniform), "uniform")
    for change in (
        {"rate": 0.2},
        {"epochs": 3},
        {"teaching": Teaching(rank=PairwiseRank(2.0))},
    ):
        other = dataclasses.replace(uniform, **change)
        assert digest(other, "uniform") != digest(uniform, "uniform")


@pytest.mark.parametrize("short", ["0", "1.5", "0.5"])
def test_a_share_out_of_range_or_written_is_refused(short, tmp_path):
    out = ["--json", str(tmp_path / "x.json")]
    with pytest.raises(SystemExit, match="above 0 and at most 1"):
        ranking_quality.main(["--short", short, *out])
