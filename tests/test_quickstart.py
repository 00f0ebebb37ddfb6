"""The quickstart, shortened: its table, its files, and the same result each time."""

import html
import io
import json

import numpy as np
import pytest
from rich.console import Console

import oneshot
from oneshot import commands, quickstart
from oneshot.progress import Bars
from oneshot.settings import RunSettings

pytestmark = pytest.mark.slow  # the whole pipeline, twice
QUIET = Bars(Console(quiet=True))
ARGUMENTS = {"widths": [4, 6], "depth": 2, "expand": [1, 2], "kernel": [3]}


@pytest.fixture(scope="module")
def short():
    """The same pipeline over a smaller space, with fewer steps of everything."""
    with pytest.MonkeyPatch.context() as patch:
        settings = RunSettings(arguments=json.dumps(ARGUMENTS), steps=40)
        patch.setattr(quickstart, "TRAINING", settings)
        patch.setattr(quickstart, "BUDGET", 5)
        patch.setattr(quickstart, "TUNING_STEPS", 3)
        patch.setattr(quickstart, "RANKED", 5)
        yield


@pytest.fixture(scope="module")
def done(short, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    return out, quickstart.quickstart(out, 0, QUIET)


def test_result_json_holds_every_number_of_the_table(done):
    out, result = done
    assert json.loads((out / "result.json").read_text()) == json.loads(
        json.dumps(result)
    )
    roles = [row["role"] for row in result["rows"]]
    assert len(roles) == 6 and roles[3:] == ["random", "largest", "cheapest"]
    for row in result["rows"]:
        assert row["tuned_low"] <= row["tuned_accuracy"] <= row["tuned_high"]
        assert row["test_n"] == 359
    macs = [row["macs"] for row in result["rows"]]
    assert macs[4] == max(macs) and macs[5] == min(macs)
    assert result["ranking"]["n"] == 5 and result["ranking"]["macs"]["tau"] is not None


def test_the_test_split_is_opened_once(done):
    assert [entry["reason"] for entry in done[1]["test_opened"]] == ["final table"]


def test_the_best_model_scores_on_the_test_split_as_the_table_says(done):
    out, result = done
    best = json.loads((out / "best" / "model.json").read_text())
    row = next(r for r in result["rows"] if r["arch"] == best["arch"])
    from oneshot.datasets import load_data

    test = load_data("digits").open_test("a test of the saved model")
    predicted = np.argmax(oneshot.load(out / "best")(test.x), axis=-1)
    assert int((predicted == test.y).sum()) == row["tuned_correct"]


def test_the_report_is_there_and_the_result_is_shown_again(done, short):
    out, result = done
    page = (out / "report.html").read_text("utf-8")
    assert html.escape(result["ranking"]["words"]) in page
    console = Console(record=True, width=80, file=io.StringIO())
    commands.quickstart(console, out, 0)
    shown = console.export_text()
    assert "is finished" in shown and "cheapest" in shown
    assert max(map(len, shown.split("Kendall")[0].splitlines())) <= 80


def test_the_same_seed_gives_the_same_result(done, short, tmp_path):
    again = quickstart.quickstart(tmp_path / "second", 0, QUIET)
    for key in ("rows", "ranking", "space"):
        assert again[key] == done[1][key]
