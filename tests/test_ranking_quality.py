"""The benchmark of rankings, narrow and short: it trains, scores, resumes, reports."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from benchmarks import (
    macro_truth,
    ranking_quality,
    ranking_readme,
    ranking_run,
)
from benchmarks.ranking_recipes import RECIPES, Settings, digest
from benchmarks.ranking_run import Run
from benchmarks.ranking_spaces import SPACES
from benchmarks.ranking_table import Found
from oneshot import Data, checkpoint
from oneshot.augment import crop
from oneshot.correlations import kendall_tau
from oneshot.data import Split
from oneshot.evaluate import Evaluator
from oneshot.spaces import nb_macro
from oneshot.teaching import PairwiseRank, Teaching

KEPT = 40  # networks


def small_images(*_):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(96, 8, 8, 3)).astype(np.float32), rng.integers(10, size=96)
    return Data.from_arrays(
        (x[:64], y[:64]), validate=(x[64:], y[64:]), calibrate=16, augment=crop(1)
    )


def tiny():
    return nb_macro(width=0.125, hidden=16)


@pytest.fixture
def small(monkeypatch, data_dir):
    truth = macro_truth.load(data_dir).only(np.arange(KEPT))
    truth = dataclasses.replace(truth, choosing=np.arange(16))
    space = dataclasses.replace(
        SPACES["nb_macro"],
        make=tiny,
        data=small_images,
        truth=lambda folder: truth,
        settings=Settings(steps=4, rate=0.1, batch=16),
    )
    monkeypatch.setitem(SPACES, "nb_macro", space)
    return space


def a_run(space, directory, name="uniform"):
    where = (0, directory, directory.with_suffix(".npz"))
    archs = space.truth(None).archs
    return Run(name, RECIPES[name], space, 1.0, small_images(), archs, *where)


@pytest.mark.slow
def test_recipes_are_trained_scored_and_reported(small, tmp_path, capsys, monkeypatch):
    out = tmp_path / "results.json"
    folder = ["--directory", str(tmp_path / "runs"), "--json", str(out)]
    ranking_quality.main([*folder, "--recipes", "uniform"])
    alone = json.loads(out.read_text())
    assert alone["best"] == "uniform"
    ranking_quality.main([*folder, "--recipes", "pairs", "gdas"])
    found = json.loads(out.read_text())
    for name, steps in {"uniform": 4, "pairs": 2, "gdas": 2}.items():
        assert -1 <= found[f"{name}_tau"] <= 1 and found[f"{name}_n"] == KEPT
        assert found[f"{name}_steps"] == steps
    assert found["uniform_tau"] == alone["uniform_tau"]
    assert len(found["gdas_chosen"]) == 8
    best, rule = found["best"], found["best_rule"].replace(", ", "_")
    assert best in ("uniform", "gdas")  # pairs know multiply-adds
    assert found["best_tau"] == pytest.approx(found[f"{best}_tau_by_{rule}"])
    choosing = [v for k, v in found.items() if "choosing_by" in k and "pairs" not in k]
    assert found[f"{best}_choosing_by_{rule}"] == max(choosing)
    assert "(guided)" in capsys.readouterr().out
    table = ranking_readme.table(found)
    assert "pairs ranked by multiply-adds, guided" in table and "**chosen: " in table
    assert {line.count("|") for line in table.splitlines()[2:]} == {9}
    assert "agree with each other too little" not in table
    assert "agree with each other too little" in ranking_readme.table(
        found | {"free_ceiling": 0.5}
    )
    scores = tmp_path / "runs/scores/nb_macro/full/10000/uniform-0.npz"
    with np.load(scores) as kept:
        assert kept["loss"].shape == (KEPT,) and np.isfinite(kept["loss"]).all()
    # Finished scores are kept; those of a recipe that has changed are refused, also
    # where another recipe is asked for.
    before = scores.stat().st_mtime_ns
    ranking_quality.main([*folder, "--recipes", "uniform"])
    assert scores.stat().st_mtime_ns == before
    other = dataclasses.replace(small.settings, rate=0.2)
    changed = dataclasses.replace(small, settings=other)
    monkeypatch.setitem(SPACES, "nb_macro", changed)
    for names in (["uniform"], []):
        with pytest.raises(ValueError, match="another recipe"):
            ranking_quality.main([*folder, "--recipes", *names])


def test_scores_of_both_numbers_of_images_are_collected(small, tmp_path, monkeypatch):
    """Each knows the data that it was trained on."""

    def data(_, number):
        x, y = small_images().train
        own = Split(x + number, y)
        return dataclasses.replace(small_images(), train=own)

    budget = dataclasses.replace(small.settings, steps_large=8)
    space = dataclasses.replace(small, data=data, settings=budget)
    monkeypatch.setitem(SPACES, "nb_macro", space)
    out, rng = tmp_path / "results.json", np.random.default_rng(0)
    folder = ["--directory", str(tmp_path / "runs"), "--json", str(out)]
    names = "loss", "calibrated", "refitted", "alignment", "accuracy"
    for number, seed in ((10_000, 0), (10_000, 1), (50_000, 0), (50_000, 1)):
        args = ranking_quality.arguments([*folder, "--images", str(number)])
        truth, own = space.truth(None), data(None, number)
        run = ranking_quality._run(args, "uniform", seed, number, truth, own)
        arrays = {name: rng.normal(size=KEPT).astype(np.float32) for name in names}
        if number == 50_000:  # each knows something: together they know more
            known = truth.truth / truth.truth.std() + rng.normal(size=KEPT)
            arrays = {name: (-known).astype(np.float32) for name in names}
            arrays["accuracy"] = -arrays["loss"]
        arrays |= {"wall": 60.0, "cpu": 60.0, "steps": run.settings.steps}
        arrays |= {"digest": run.digest, "environment": json.dumps({"device": "here"})}
        run.scores.parent.mkdir(parents=True, exist_ok=True)
        np.savez(run.scores, **arrays)
    ranking_quality.main([*folder, "--recipes"])
    found = json.loads(out.read_text())
    assert {"uniform_tau", "best_tau", "50k_uniform_tau", "best_tau_50k"} <= set(found)
    table = ranking_readme.table(found)
    assert ", 50,000 images" in table
    assert table.count("the same, 2 supernets' scores together") == 1
    assert found["best_together_cpu_minutes"] == 2
    assert (found["best_supernets"], found["best_supernets_50k"]) == (1, 2)
    assert table.count(", 2 supernets together (each alone 0.") == 1


def test_supernets_rank_together_by_what_each_says_in_its_own_units(small):
    """One whose scores spread ten times as far counts as much as the other."""
    truth, rng = small.truth(None), np.random.default_rng(0)
    a, b = rng.normal(size=(2, KEPT))
    kept = ({"cpu": 60.0}, {"cpu": 120.0})
    both = [
        Found("uniform", kept, {"loss": [a, factor * b + shift]}, (), truth)
        for factor, shift in ((1, 0), (10, 5))
    ]
    one, other = (found.together("loss") for found in both)
    assert one == other and one["together_cpu_minutes"] == 3
    z = (a - a.mean()) / a.std() + (b - b.mean()) / b.std()
    assert one["together_tau"] == pytest.approx(kendall_tau(z, truth.truth))
    assert Found("uniform", kept[:1], {"loss": [a]}, (), truth).together("loss") == {}


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_a_tenth_of_a_training_ranks_our_own_truth(data_dir, tmp_path, monkeypatch):
    """It did so by 0.49; parameters, multiply-adds and depth do by 0.18 at most."""
    monkeypatch.setenv("ONESHOT_DATA", str(data_dir))
    space = SPACES["mixers"]
    truth, data = ranking_quality._fewer(space.truth(None), space.data(None, 0))
    where = (0, tmp_path / "run", tmp_path / "scores.npz")
    run = Run("uniform", RECIPES["uniform"], space, 0.1, data, truth.archs, *where)
    ranking_run.scored(run, Console(quiet=True))
    found = truth.rank(-ranking_run.scores_of(run)["loss"], np.arange(100), "100")
    assert found.tau > 0.35 and found.overall.lead.low > 0


@pytest.mark.slow
@pytest.mark.parametrize("shrunken", [(), ((0.5, 0.5), (0.2, 0.75))])
def test_a_stopped_recipe_goes_on_to_equal_bits(small, tmp_path, monkeypatch, shrunken):
    recipe = dataclasses.replace(RECIPES["uniform"], shrunken=shrunken)
    monkeypatch.setitem(RECIPES, "uniform", recipe)
    runs, fit, quiet = {}, ranking_run.fit, Console(quiet=True)
    for kind in ("whole", "stopped"):
        directory = tmp_path / kind
        directory.mkdir()
        run = a_run(small, directory)
        if kind == "stopped":
            monkeypatch.setattr(ranking_run, "SAVE_SECONDS", 0)

            def interrupted(*args, **options):
                yield next(iter(fit(*args, **options, every=2)))
                raise KeyboardInterrupt

            monkeypatch.setattr(ranking_run, "fit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ranking_run.trained(run, quiet)
            monkeypatch.setattr(ranking_run, "fit", fit)
            assert checkpoint.latest_step(directory) == 2
        runs[kind] = ranking_run.trained(run, quiet)[1]
    for part in ("params", "state"):
        a, b = (getattr(runs[kind].weights, part) for kind in ("whole", "stopped"))
        for left, right in zip(*map(jax.tree.leaves, (a, b)), strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_a_stopped_scoring_goes_on_to_equal_bits(small, tmp_path, monkeypatch):
    scored, quiet, asked = Evaluator.__call__, Console(quiet=True), []
    monkeypatch.setattr(ranking_run, "PART", 15)

    def interrupted(self, weights, archs):
        if len(asked) == 1:
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(len(archs))
        return scored(self, weights, archs)

    whole, stopped = (a_run(small, tmp_path / kind) for kind in ("whole", "stopped"))
    ranking_run.scored(whole, quiet)
    monkeypatch.setattr(Evaluator, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ranking_run.scored(stopped, quiet)
    assert not stopped.scores.exists()
    ranking_run.scored(stopped, quiet)
    assert asked == [15, 0, 15, 10]
    want, got = map(ranking_run.scores_of, (whole, stopped))
    for name in ("loss", "calibrated", "accuracy", "refitted", "alignment"):
        np.testing.assert_array_equal(got[name], want[name])


def test_a_recipe_is_told_from_its_earlier_self():
    recipe, settings = RECIPES["uniform"], Settings(100, 0.1)
    known = digest(recipe, settings, [16, 32])
    assert known == digest(dataclasses.replace(recipe), settings, [16, 32])
    teaching = Teaching(rank=PairwiseRank(2.0))
    for changed in (
        (dataclasses.replace(recipe, teaching=teaching), settings, [16, 32]),
        (recipe, dataclasses.replace(settings, rate=0.2), [16, 32]),
        (recipe, dataclasses.replace(settings, steps=3), [16, 32]),
        (recipe, settings, [8, 32]),
        (RECIPES["uniform_archs"], settings, [16, 32]),
    ):
        assert digest(*changed) != known


@pytest.mark.parametrize("name", SPACES)
def test_recipes_cost_alike_in_every_space(name):
    """In pixels that go through a path."""
    space = SPACES[name]
    searched, budget = space.searched, space.settings
    options = max(len(choice.options) for choice in searched.choices)
    paths = {"fair": options, "sandwich": 5, "pairs": 2, "darts": 2 * options}
    for recipe in (*space.recipes, "darts", "gdas", "small_batch"):
        own = RECIPES[recipe].settings(budget, searched, 0.5)
        each = {"gdas": 2}.get(recipe, paths.get(recipe, 1))
        ends, sides = zip(*RECIPES[recipe].sizes(own.steps), strict=True)
        cost = np.diff(ends, prepend=0) @ np.square(sides) * own.batch * each
        assert cost == pytest.approx(budget.steps * budget.batch / 2, rel=0.01)
        assert (own.steps_large > 0) == (budget.steps_large > 0)


def test_a_brief_recipe_takes_no_more_steps_of_more_images():
    space = SPACES["nb_macro"]
    brief, combined = (
        RECIPES[name].settings(space.settings, space.searched, 1.0)
        for name in ("brief", "combined")
    )
    assert brief.steps_large == brief.steps == combined.steps
    assert combined.steps_large > 5 * combined.steps
    assert "brief" in space.recipes_large
    with pytest.raises(
        SystemExit, match="'brief' is for --images 50000, but got 10000"
    ):
        ranking_quality.arguments(["--recipes", "combined", "brief"])


def test_a_space_without_a_large_budget_trains_its_own(tmp_path):
    space, x = SPACES["vit"], np.zeros((10_001, 1), np.float32)
    data = dataclasses.replace(small_images(), train=Split(x, np.zeros(len(x), int)))
    archs = np.zeros((4, 3), int)
    places = 0, tmp_path, tmp_path
    run = Run("uniform", RECIPES["uniform"], space, 1.0, data, archs, *places)
    assert run.steps == space.settings.steps
    run = dataclasses.replace(run, space=SPACES["nb_macro"])
    assert run.steps == SPACES["nb_macro"].settings.steps_large


def test_small_images_come_first():
    recipe = dataclasses.replace(RECIPES["uniform"], shrunken=((0.5, 0.5),))
    assert recipe.sizes(100) == [(80, 0.5), (100, 1)]
    net = tiny()
    assert recipe.settings(Settings(100, 0.1), net.space, 1.0).steps == 250
    assert RECIPES["uniform"].sizes(7) == [(7, 1)]


def test_only_images_shrink(small, tmp_path):
    run = a_run(small, tmp_path, "shrunken")
    x = np.zeros((32, 8), np.float32)
    data = dataclasses.replace(run.data, train=Split(x, np.zeros(32, int)))
    with pytest.raises(ValueError, match="shrinks images, but .* of shape \\[8\\]"):
        ranking_run.trained(dataclasses.replace(run, data=data), Console(quiet=True))


@pytest.mark.parametrize("short", ["0", "1.5", "0.5"])
def test_a_share_out_of_range_or_written_is_refused(short, tmp_path):
    out = ["--json", str(tmp_path / "x.json")]
    with pytest.raises(SystemExit, match="above 0 and at most 1"):
        ranking_quality.main(["--short", short, *out])
