"""The command line: the steps over a run directory, and bad input in plain words."""

import json
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

import oneshot
from oneshot.cli import main
from oneshot.feature_scores import scoring_features
from oneshot.features import Alignment, Refitted
from oneshot.progress import Bars
from oneshot.run import Run
from oneshot.rundir import RunDirectory
from oneshot.settings import RunSettings
from oneshot.tasks import TASKS

ARGUMENTS = {"widths": [4, 6], "depth": 2, "expand": [1, 2], "kernel": [3]}
SMALL = ["--supernet", "tiny", "--arguments", json.dumps(ARGUMENTS)]
SHORT = ["--steps", "12", "--batch-size", "16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "small"
    assert main(["train", "--out", str(path), *SMALL, *SHORT]) == 0
    assert main(["search", str(path), "--budget", "4", "--batch", "2"]) == 0
    return path


def refused(capsys, *args):
    assert main([str(a) for a in args]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message and len(message.strip().splitlines()) == 1
    return message


def test_a_run_directory_holds_what_is_needed_to_check_or_continue_it(run):
    names = {p.name for p in run.iterdir()}
    assert names >= {
        "config.json", "space.json", "environment.json", "metrics.jsonl",
        "trials.sqlite", "checkpoints", "report.html", "result.json",
    }  # fmt: skip
    rows = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(12))
    space = oneshot.SearchSpace.from_json(json.loads((run / "space.json").read_text()))
    assert (
        space.fingerprint == json.loads((run / "space.json").read_text())["fingerprint"]
    )


@pytest.mark.slow
def test_the_extracted_model_opens_again_and_is_reported(run, capsys):
    assert main(["extract", str(run), "--tune-steps", "2", "--test"]) == 0
    model = oneshot.load(run / "best")
    assert model(np.zeros((3, 8, 8, 1), np.float32)).shape == (3, 10)
    result = json.loads((run / "result.json").read_text())
    (row,) = result["rows"]
    assert row["tuned_low"] < row["tuned_accuracy"] < row["tuned_high"]
    assert [entry["reason"] for entry in result["test_opened"]] == [
        "oneshot extract --test"
    ]
    assert main(["report", str(run)]) == 0


def test_a_finished_training_is_not_repeated(run, capsys):
    before = (run / "metrics.jsonl").read_text()
    config = (run / "config.json").read_text()
    assert main(["train", "--out", str(run), *SMALL, *SHORT]) == 0
    assert (run / "metrics.jsonl").read_text() == before
    late = refused(
        capsys, "train", "--out", run, *SMALL, *SHORT, "--learning-rate", "0.5"
    )
    assert "learning_rate (there 0.1, here 0.5)" in late
    assert (run / "config.json").read_text() == config
    command = json.loads((run / "result.json").read_text())["command"]
    assert shlex.split(command)[4:] == [*SMALL[2:], *SHORT]


def test_a_mistake_does_not_hold_the_directory(tmp_path, capsys):
    out = ["train", "--out", tmp_path / "new", *SMALL]
    assert "1 to" in refused(capsys, *out, "--steps", "1", "--batch-size", "100000")
    assert not (tmp_path / "new" / "config.json").exists()


def test_json_holds_what_another_program_goes_on_with(run, tmp_path, capsys):
    path = tmp_path / "copy"
    shutil.copytree(run, path)
    RunDirectory(path).update_result(rows=[])
    search = ["search", str(path), "--budget", "4", "--batch", "2"]
    capsys.readouterr()
    assert main([*search, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trials"], found["minimised"]) == (4, ["loss", "macs"])
    macs = [row["costs"]["macs"] for row in found["front"]]
    assert macs == sorted(macs, reverse=True)  # the lowest loss comes first
    last = found["front"][-1]
    extract = ["extract", str(path), "--arch", json.dumps(last["arch"]), "--json"]
    assert main(extract) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["arch"], row["macs"]) == (last["arch"], last["costs"]["macs"])
    assert row["inherited_loss"] == pytest.approx(last["scores"]["loss"], rel=1e-5)
    assert oneshot.load(row["model"])(np.zeros((1, 8, 8, 1), np.float32)).shape[0] == 1
    both = refused(capsys, *extract[:-1], "--max-macs", "1")
    assert "--arch names a subnet whatever it costs" in both
    assert "nothing is tuned" in refused(capsys, *extract[:-1], "--tune-rate", "0.1")


def test_a_search_scores_no_stored_trial_again(run):
    with oneshot.Trials(run / "trials.sqlite") as trials:
        before = [(t.path, t.seconds) for t in trials.all()]
    assert main(["search", str(run), "--budget", "6", "--batch", "2"]) == 0
    with oneshot.Trials(run / "trials.sqlite") as trials:
        after = [(t.path, t.seconds) for t in trials.all()]
    assert after[: len(before)] == before and len(after) == 6


@pytest.fixture(scope="module")
def raced(run, tmp_path_factory):
    args = ["--budget", "6", "--batch", "6", "--race-top", "2"]
    args += ["--race-confidence", "0.8", "--algorithm", "random"]
    return searched(run, tmp_path_factory.mktemp("raced") / "small", args), args


def searched(run, path, args):
    """Return a copy of a run, nothing extracted, after a search of its own."""
    shutil.copytree(run, path)
    RunDirectory(path).update_result(rows=[])
    assert main(["search", str(path), *args]) == 0
    return path


def stored(path):
    """Return the last search's trials."""
    settings = json.loads((path / "result.json").read_text())["search"]["settings"]
    with oneshot.Trials(path / "trials.sqlite") as trials:
        return [t for t in trials.all() if t.settings_digest == settings]


def test_a_search_without_a_race_says_nothing_of_one(run):
    assert json.loads((run / "result.json").read_text())["race"] is None
    assert "Racing" not in (run / "report.html").read_text()
    assert len({t.scores["n"] for t in stored(run)}) == 1


def test_a_search_that_raced_says_so(raced):
    path, _ = raced
    race = json.loads((path / "result.json").read_text())["race"]
    images = race.pop("images")
    assert race == {"top": 2, "confidence": 0.8, "parts": 4}
    found = [int(t.scores["n"]) for t in stored(path)]
    assert len(found) == 6 and images == {"least": min(found), "all": max(found)}
    fewer = sum(n < max(found) for n in found)
    page = (path / "report.html").read_text()
    assert "among the best 2, at a confidence of 80 %" in page
    assert f"{fewer} of 6 were scored on fewer than the {max(found)} images" in page


def test_a_repeated_race_scores_no_stored_trial_again(raced):
    path, args = raced
    before = stored(path)
    assert main(["search", str(path), *args]) == 0
    assert stored(path) == before


@pytest.mark.slow
def test_the_report_is_of_the_last_search_though_its_trials_were_stored_before(
    raced, tmp_path
):
    path, args = tmp_path / "copy", raced[1]
    shutil.copytree(raced[0], path)
    assert main(["search", str(path), "--budget", "4", "--batch", "2"]) == 0
    page = (path / "report.html").read_text()
    assert "Racing" not in page and "fewer images" not in page
    assert main(["search", str(path), *args]) == 0
    page = (path / "report.html").read_text()
    assert "Racing" in page and "6 subnets scored" in page


def test_the_best_of_a_race_is_extracted_with_its_score_on_all_images(raced):
    path, _ = raced
    best = min(stored(path), key=lambda t: t.scores["loss"])
    assert main(["extract", str(path)]) == 0
    (row,) = json.loads((path / "result.json").read_text())["rows"]
    assert tuple(row["arch"]) == best.path
    assert row["inherited_loss"] == pytest.approx(best.scores["loss"], rel=1e-5)


@pytest.fixture(scope="module")
def aligned(run, tmp_path_factory):
    args = ["--budget", "6", "--batch", "6", "--algorithm", "random"]
    path = tmp_path_factory.mktemp("aligned") / "small"
    return searched(run, path, [*args, "--rank-by", "alignment"])


def test_a_search_ranks_by_alignment(aligned):
    path, trials = aligned, stored(aligned)
    assert len(trials) == 6 and all("alignment" in t.scores for t in trials)
    page = (path / "report.html").read_text()
    assert "Minus alignment of features over multiply-adds of 6 subnets" in page
    best = min(trials, key=lambda t: t.scores["alignment"])
    assert main(["extract", str(path)]) == 0
    (row,) = json.loads((path / "result.json").read_text())["rows"]
    assert tuple(row["arch"]) == best.path
    for name in ("loss", "alignment"):
        want = pytest.approx(best.scores[name], rel=1e-4)
        assert row[f"inherited_{name}"] == want
    page = (path / "report.html").read_text()
    assert "the search's best by minus alignment of features" in page


def test_searches_by_features_share_their_trials(aligned, tmp_path, capsys):
    path, before = tmp_path / "copy", stored(aligned)
    shutil.copytree(aligned, path)
    args = ["--budget", "6", "--batch", "6", "--algorithm", "random"]
    for score in ("alignment", "refitted"):
        assert main(["search", str(path), *args, "--rank-by", score]) == 0
        assert stored(path) == before
    tables = capsys.readouterr().out  # whose headings may be broken into lines
    assert "alignment" in tables and "refitted" in tables


def test_a_later_search_did_not_choose_what_an_earlier_one_did(aligned, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(aligned, path)
    assert main(["extract", str(path)]) == 0
    assert main(["search", str(path), "--budget", "4", "--batch", "2"]) == 0
    page = (path / "report.html").read_text()
    assert "no subnet that this search chose is extracted yet" in page
    assert "Validation loss over multiply-adds" in page
    best = min(stored(path), key=lambda t: t.scores["loss"])
    assert main(["extract", str(path)]) == 0
    *_, row = json.loads((path / "result.json").read_text())["rows"]
    assert tuple(row["arch"]) == best.path and "inherited_alignment" not in row
    assert "best by validation loss is" in (path / "report.html").read_text()


@pytest.mark.slow
def test_an_arch_that_was_named_is_not_called_the_best(run, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(run, path)
    RunDirectory(path).update_result(rows=[])  # other tests extract here, too
    assert main(["extract", str(path), "--arch", "[0, 0, 0, 0, 0]"]) == 0
    *_, row = json.loads((path / "result.json").read_text())["rows"]
    assert not row["chosen"] and row["search"] is None
    page = (path / "report.html").read_text()
    assert "no subnet that this search chose is extracted yet" in page
    # Its own best, and the same one by name.
    for args in ([], ["--tune-steps", "1"]):
        assert main(["extract", str(path), *args]) == 0
        *_, row = json.loads((path / "result.json").read_text())["rows"]
        named = ["--arch", json.dumps(row["arch"])]
    assert main(["extract", str(path), *named]) == 0
    *_, row = json.loads((path / "result.json").read_text())["rows"]
    assert row["chosen"] and row["search"]["asked"]["batch"] == 2


def test_features_are_scored_of_all_that_validates(aligned, run):
    """By the library alone, from the run's own weights."""
    one = Run(run, None, Bars(Console(quiet=True)))
    evaluator, trial = one.ranker("alignment"), stored(aligned)[0]
    own = evaluator.recalibrated(one.weights, trial.path)
    x, y = one.data.validate
    outputs, _ = evaluator.supernet.apply(*own, trial.path, x)
    for name, metric in (("alignment", Alignment()), ("refitted", Refitted())):
        want = float(np.mean(metric(outputs, y)))
        assert trial.scores[name] == pytest.approx(want, rel=1e-3)
    with pytest.raises(ValueError, match="but this one by 'luck'"):
        one.ranker("luck")


def test_features_do_not_race(run, capsys):
    message = refused(
        capsys, "search", run, "--race-top", "2", "--rank-by", "alignment"
    )
    assert "compares images with each other" in message


def test_no_features_are_scored_where_labels_have_no_place(run):
    one = Run(run, None, Bars(Console(quiet=True)))
    with pytest.raises(ValueError, match="token error rate labels each sequence"):
        scoring_features(one.supernet, one.data, TASKS["ctc"])


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--race-top", "0"], "at least 1 and less than the batch of 32, but got 0"),
        (["--race-top", "8", "--batch", "8"], "less than the batch of 8, but got 8"),
        (["--race-confidence", "95"], "between 0 and 1, both excluded, but got 95"),
    ],
)
def test_a_race_that_cannot_be_is_refused(run, capsys, args, expected):
    assert expected in refused(capsys, "search", run, *args)


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ("search", ["--budget", "0"], "`budget` is at least 1, but got 0"),
        ("search", ["--batch", "0"], "`batch` is at least 1, but got 0"),
        ("extract", ["--tune-steps", "-5"], "`tune_steps` is at least 0, but got -5"),
        ("extract", ["--tune-rate", "-1"], "`tune_rate` is a rate of at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(run, capsys, command, args, expected):
    before = (run / "result.json").read_text()
    assert expected in refused(capsys, command, run, *args)
    assert (run / "result.json").read_text() == before


def test_without_a_test_split_nothing_is_tuned(tmp_path, capsys):
    config = {"run": RunSettings(data="tests.run_models:untested").to_json()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    message = refused(capsys, "extract", tmp_path, "--arch", "[0]", "--test")
    assert "untested' has no test split. Leave out --test" in message


def test_an_arch_of_the_wrong_length_is_refused(run, capsys):
    message = refused(capsys, "extract", run, "--arch", "[0, 1]")
    assert "5 option indices" in message and "(0, 1)" in message


def test_an_index_out_of_range_is_refused(run, capsys):
    message = refused(capsys, "extract", run, "--arch", "[9, 0, 0, 0, 0]")
    assert "stage1.depth" in message and "9" in message


def test_an_arch_that_is_no_list_is_refused(run, capsys):
    assert "JSON list" in refused(capsys, "extract", run, "--arch", "nonsense")


def test_a_constraint_that_nothing_meets_is_refused_with_the_range(run, capsys):
    message = refused(capsys, "search", run, "--max-macs", "10")
    assert "macs" in message and "10" in message and "Raise the maximum" in message


def test_other_settings_in_the_same_directory_are_refused(run, capsys):
    message = refused(capsys, "train", "--out", run, *SMALL, "--steps", "99")
    assert "steps (there 12, here 99)" in message


def test_a_run_of_another_space_is_refused(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["run"]["arguments"] = json.dumps({**ARGUMENTS, "depth": 3})
    (copy / "config.json").write_text(json.dumps(config))
    assert "another space" in refused(capsys, "search", copy)


def test_a_directory_without_a_run_is_refused(tmp_path, capsys):
    for command in ("search", "extract", "report"):
        assert "not a run directory" in refused(capsys, command, tmp_path)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_rows(tmp_path, capsys):
    out = tmp_path / "hot"
    args = ["train", "--out", out, *SMALL, *SHORT, "--learning-rate", "1e30"]
    message = refused(capsys, *args)
    assert "loss became" in message and "Lower the learning rate" in message


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": np.zeros((0, 8, 8, 1), np.float32), "y": np.zeros(0, int)}, "empty"),
        ({"x": np.zeros((40, 8, 8, 1), np.float32), "y": np.arange(40)}, "10 logits"),
        ({"x": np.full((40, 8, 8, 1), np.nan), "y": np.zeros(40, int)}, "not finite"),
        ({"x": np.zeros((40, 8, 8, 1), np.float32), "y": np.zeros(7, int)}, "7"),
        ({"images": np.zeros((40, 8, 8, 1))}, "x_train"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(tmp_path, capsys, arrays, expected):
    file = tmp_path / "data.npz"
    np.savez(file, **arrays)
    args = ["train", "--out", tmp_path / "run", "--data", file, *SMALL, *SHORT]
    assert expected in refused(capsys, *args)


def test_unknown_names_are_refused(tmp_path, capsys):
    out = ["--out", tmp_path / "run"]
    assert "no ready space" in refused(capsys, "train", *out, "--supernet", "tinny")
    assert "Cannot import" in refused(capsys, "train", *out, "--supernet", "no:where")
    assert "no data" in refused(capsys, "train", *out, *SMALL, "--data", "digitz")
    assert "JSON object" in refused(capsys, "train", *out, "--arguments", "width=1")


def test_an_unknown_option_is_refused_with_the_nearest():
    out = subprocess.run(
        [sys.executable, "-m", "oneshot.cli", "quickstart", "--sed", "1"],
        capture_output=True,
        text=True,
    )
    assert out.returncode == 2
    assert "--seed" in out.stdout + out.stderr
    assert "Traceback" not in out.stderr


def test_help_loads_neither_jax_nor_flax():
    code = (
        "import sys\nfrom oneshot.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('jax', 'flax', 'numpy', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip().endswith("[]"), out.stdout + out.stderr
