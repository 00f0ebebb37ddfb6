"""The report is one well-formed page, whatever a run recorded or did not."""

import html
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from oneshot.diagnostics import ranking
from oneshot.report import render, scales, svg
from oneshot.report.plots import front, front_figure, ranking_figure, training_figure
from oneshot.report.sections import trust
from oneshot.report.text import count, count_ticks, fixed, number, seconds

HOSTILE = "<script>alert('x')</script>&\"'\x00\ud800"
NAN, INF = float("nan"), float("inf")


def _trial(i, **changes):
    return {
        "arch": [i % 3, 0, 1],
        "scores": {"loss": 1 / (i + 1), "loss_se": 0.01, "accuracy": 0.9},
        "costs": {"macs": 1000 * (i + 1), "params": 100 * (i + 1)},
        "seconds": 0.1,
        "status": "done",
        "reason": None,
        **changes,
    }


def _row(role, chosen, loss, accuracy):
    return {
        "role": role,
        "chosen": chosen,
        "arch": [0, 1],
        "network": f"net of {role}",
        "params": 12_345,
        "macs": 3_000,
        "inherited_loss": loss,
        "inherited_loss_se": 0.02,
        "inherited_accuracy": 0.8,
        "tuned_accuracy": accuracy,
        "tuned_low": accuracy - 0.02,
        "tuned_high": accuracy + 0.01,
        "tuned_correct": 300,
        "test_n": 360,
    }


def _inputs():
    pairs = [
        {"macs": i, "inherited_loss": 0.1 * i, "tuned_loss": 0.2 * i} for i in range(9)
    ]
    result = {
        "name": "quickstart",
        "space": {
            "name": "digits",
            "size": 81,
            "distinct": 40,
            "fingerprint": "abc",
            "choices": [{"name": "op", "options": ["skip", 3, [1, 2]]}],
        },
        "seed": 0,
        "rows": [
            _row("budget 1 M", True, 0.3, 0.95),
            _row("budget 2 M", True, 0.2, 0.97),
            _row("random", False, 0.4, 0.96),
        ],
        "ranking": {
            "tau": 0.6,
            "low": 0.4,
            "high": 0.8,
            "n": 30,
            "drawn": "stratified",
            "params": {"tau": 0.2, "low": 0.0, "high": 0.4},
            "macs": {"tau": 0.5, "low": 0.3, "high": 0.7},
            "depth": None,
            "top_half": 0.3,
            "ceiling": None,
            "words": "No better than size.",
            "pairs": pairs,
        },
        "seconds": {"train": 75.0, "search": 3.0},
        "test_opened": [{"time": "2030-01-01T00:00:00", "reason": "table"}],
        "command": "oneshot quickstart --seed 0",
    }
    steps = range(400)
    return {
        "result": result,
        "metrics": [
            {"step": i, "loss": 2 / (i + 1), "learning_rate": 1 - i / 400}
            for i in steps
        ],
        "trials": [_trial(i) for i in range(12)],
        "config": {"train": {"steps": 400, "widths": [1, 2]}, "note": None},
        "environment": {"jax": "0.10.2"},
    }


_REST = ("metrics", "trials", "config", "environment")


def _render(inputs):
    return render(inputs.pop("result"), **inputs)


def _poison(tree, value):
    if isinstance(tree, dict):
        return {key: _poison(item, value) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_poison(item, value) for item in tree]
    return value


def _check(page):
    root = ET.fromstring(page.encode("utf-8"))
    HTMLParser().feed(page)
    assert not root.findall(".//script")
    assert not re.search(r"\b(nan|inf)\b", " ".join(_drawn(root)), re.I)
    for element in root.iter():
        assert not {"src", "href", "onload", "onclick"} & set(element.attrib)
    assert "url(" not in page and "@import" not in page
    return root


def _drawn(root):
    for shape in root.iter():
        if shape.tag in ("path", "circle", "text", "svg"):
            yield " ".join(shape.attrib.values())


def _text(root):
    return " ".join("".join(root.itertext()).replace("\xa0", " ").split())


def test_a_full_page_is_well_formed_and_says_what_was_found():
    root = _check(_render(_inputs()))
    text = _text(root)
    headings = [h.text for h in root.iter("h2")]
    assert headings == [
        "Results",
        "What the search found",
        "How far to trust this ranking",
        "Training the supernet",
        "What ran",
        "Space",
        "Settings and environment",
    ]
    assert "best by validation loss is net of budget 2 M" in text
    assert "97.0 % of the test examples right" in text
    assert "the intervals overlap" in text
    assert "No better than size." in text
    assert "opened once" in text
    assert "oneshot quickstart --seed 0" in text
    assert len(root.findall(".//figure")) == 3


@pytest.mark.parametrize("missing", list(_inputs()) + list(_inputs()["result"]))
@pytest.mark.parametrize("value", [None, {}])
def test_any_part_may_be_missing(missing, value):
    inputs = _inputs()
    (inputs if missing in inputs else inputs["result"])[missing] = value
    _check(_render(inputs))


def test_what_is_missing_names_the_command_that_adds_it():
    empty = {"result": {}, "metrics": [], "trials": [], "config": {}, "environment": {}}
    text = _text(_check(_render(empty)))
    for command in ("train", "search", "extract", "quickstart"):
        assert f"oneshot {command}" in text
    assert "Nothing has run yet." in text


@pytest.mark.parametrize("value", [None, NAN, INF, -INF, "text", True, [], {}, 10**400])
def test_any_leaf_may_be_anything(value):
    _check(_render(_poison(_inputs(), value)))


def test_hostile_text_stays_text():
    inputs = _poison(_inputs(), HOSTILE)
    for row in inputs["result"]["rows"]:
        row.update(chosen=True, inherited_loss=0.1, macs=1000)
    inputs["trials"] = [
        _trial(0, arch=HOSTILE),
        _trial(1, status="failed", reason=HOSTILE),
    ]
    inputs["result"]["ranking"].update(tau=0.5, words=HOSTILE)
    inputs["config"] = {HOSTILE: HOSTILE}
    page = _render(inputs)
    _check(page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_measured_ranking_is_shown_with_what_is_beside_it():
    up = np.arange(40.0)
    free = {
        "params": up % 7,
        "macs": -up % 9,
        "depth": up % 5,
        "strata": up[:, None] % 2,
    }
    found = ranking(up % 11, up, **free, drawn="all", ceiling=0.9)
    page = trust(found.to_json())
    for name in ("given the multiply-adds", "equal covariates only", "best tenth only"):
        assert f"Inherited loss, {name}" in page
    assert "Ceiling: seed against seed" in page and html.escape(found.words()) in page


def test_failed_trials_are_counted_and_not_drawn():
    inputs = _inputs()
    bad = [
        _trial(0, status="failed", reason="out of memory"),
        _trial(1, status="failed", reason="out of memory", scores=None),
        _trial(2, scores={"loss": NAN}),
    ]
    root = _check(_render({**inputs, "trials": inputs["trials"] + bad}))
    assert "2 of 15 trials gave no score" in _text(root)
    drawn = [c for c in root.iter("circle") if c.get("class") == "trial"]
    assert len(drawn) == len(inputs["trials"]) + 1  # and the one in the legend


RACE = {"top": 10, "confidence": 0.95, "parts": 4, "images": {"least": 25, "all": 100}}


def test_a_race_is_said_and_those_on_fewer_images_are_marked():
    inputs = _inputs()
    inputs["result"]["race"] = RACE
    for i, trial in enumerate(inputs["trials"]):
        trial["scores"]["n"] = 25 if i < 5 else 100
    root = _check(_render(inputs))
    text = _text(root)
    assert "Racing was on" in text
    assert "among the best 10, at a confidence of 95 %" in text
    assert "5 of 12 were scored on fewer than the 100 images, on 25 at least" in text
    hollow = [c for c in root.iter("circle") if c.get("class") == "trial fewer"]
    assert len(hollow) == 5 + 1  # and the one in the legend
    assert "on 25 of 100 images" in text and "scored on fewer images" in text
    on_front = [c for c in root.iter("circle") if c.get("class") == "front fewer"]
    assert len(on_front) == 5  # the small ones: every trial is on this front


def test_a_race_that_stopped_nobody_says_so():
    inputs = _inputs()
    inputs["result"]["race"] = {**RACE, "images": {"least": 100, "all": 100}}
    page = _render(inputs)
    assert "Every subnet kept up" in _text(_check(page)) and "fewer images" not in page


def test_the_front_is_of_the_score_that_ranked():
    inputs = _inputs()
    inputs["result"]["search"] = {"ranked_by": "refitted"}
    for i, trial in enumerate(inputs["trials"]):
        trial["scores"]["refitted"] = 0.8 + 0.01 * i
    rows = inputs["result"]["rows"]
    chosen = [row for row in rows if row["chosen"]]
    for row in rows:
        row["search"] = inputs["result"]["search"]
    for i, row in enumerate(chosen):  # the other way round than by loss
        row["inherited_refitted"] = 0.9 - 0.001 * row["inherited_loss"] - 0.1 * i
    inputs["result"]["ranking"]["words"] = "In words."
    text = _text(_check(_render(inputs)))
    assert "Refitted head's error over multiply-adds of 12 subnets" in text
    assert f"best by refitted head's error is {chosen[-1]['network']}" in text
    assert "Validation loss over multiply-adds" not in text
    assert "Refitted head's error" in text.split("Role")[1]  # a column
    assert "tuned alike" in text
    for row in chosen:
        row["tuned_accuracy"] = None
    inputs["result"] = {**_inputs()["result"], "rows": rows}
    assert "tuned alike" not in _text(_check(_render(inputs)))
    told = text.index("what follows is of validation losses, and says nothing of that")
    assert told < text.index("In words.")


@pytest.mark.parametrize("row_says", [True, False])
def test_rows_of_an_earlier_search_are_not_the_best_of_this_one(row_says):
    """Nor are those of a version that did not say of which search they were."""
    inputs = _inputs()
    now, before = ({"settings": name, "ranked_by": "loss"} for name in "ab")
    inputs["result"]["search"] = now
    for row in inputs["result"]["rows"] if row_says else ():
        row["search"] = before
    root = _check(_render(inputs))
    assert "no subnet that this search chose is extracted yet" in _text(root)
    assert "best by" not in _text(root)
    assert not [c for c in root.iter("circle") if c.get("class") == "chosen"]
    inputs = _inputs()
    inputs["result"]["search"] = now
    for row in inputs["result"]["rows"]:
        row["search"] = now
    assert "the search's best by validation loss is" in _text(_check(_render(inputs)))


@pytest.mark.parametrize("race", [None, {}])
def test_nothing_is_said_of_a_race_that_was_not(race):
    inputs = _inputs()
    inputs["result"]["race"] = race
    for trial in inputs["trials"]:
        trial["scores"]["n"] = 100
    page = _render(inputs)
    assert "Racing" not in page and "fewer images" not in page
    assert not re.search(r'class="(trial|front) fewer"', page)


@pytest.mark.parametrize("value", [None, NAN, INF, "text", True, [], {}, 10**400])
def test_a_race_may_be_anything(value):
    inputs = _inputs()
    for race in (value, _poison(RACE, value), {**RACE, "images": value}):
        inputs["result"]["race"] = race
        _check(render(inputs["result"], **{k: inputs[k] for k in _REST}))


def test_the_front_is_what_nothing_beats():
    points = [(1.0, 5.0), (2.0, 5.0), (2.0, 3.0), (3.0, 4.0), (1.0, 6.0), (4.0, 1.0)]
    assert front(points) == [(1.0, 5.0), (2.0, 3.0), (4.0, 1.0)]


@pytest.mark.parametrize("figure", [lambda x: front_figure(x, []), ranking_figure])
def test_nothing_to_draw_is_no_figure(figure):
    assert figure([]) == ""
    assert figure([{}, {"status": "failed"}]) == ""


def test_a_long_training_stays_a_small_figure():
    rows = [{"step": i, "loss": 1 / (i + 1)} for i in range(50_000)]
    assert len(training_figure(rows)) < 40_000


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [[], [NAN], [3.0], [0.0], [-2.0, 5.0], [1e-9, 1e12], [7.0, 7.0], [1, 1.01]],
)
def test_scales_are_finite_and_tick_inside(values, log):
    scale = scales.make_scale(values, 0.0, 100.0, log=log)
    assert scale.low < scale.high
    for value in filter(math.isfinite, values):
        assert 0.0 <= scale(value) <= 100.0
    assert 2 <= len(scale.ticks()) <= 12
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks())


def test_labels_never_cover_one_another():
    drawn = svg.labels([(300.0, 100.0, "same place")] * 20)
    boxes = re.findall(r'x="([\d.-]+)" y="([\d.-]+)"', drawn)
    assert 2 <= len(boxes) < 20
    assert len(set(boxes)) == len(boxes)


def test_numbers_as_text():
    assert [count(x) for x in (0, 999, 1000, 12_345, 999_999, 2.5e9, NAN)] == [
        *("0", "999", "1\xa0k", "12.3\xa0k", "1.00\xa0M", "2.50\xa0G", "–")
    ]
    assert count_ticks([100.0, 1200.0, 20_000.0]) == ["100", "1.2\xa0k", "20\xa0k"]
    assert seconds(59.99) == "1\xa0min 0\xa0s"
    assert fixed(-0.5, 1) == "−0.5"
    assert number("3") is None


def _browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.mark.slow
@pytest.mark.parametrize("width", [420, 1100])
def test_a_browser_draws_it_within_the_window(tmp_path, width):
    browser = _browser()
    if browser is None:
        pytest.skip("needs a Chromium browser on the PATH")
    # A page that fits says so itself: CSS cannot, so a copy with a script does.
    page = _render(_inputs())
    page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    script = "document.title=`${document.documentElement.scrollWidth}<=${innerWidth}`"
    (tmp_path / "r.html").write_text(page + f"<script>{script}</script>")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    flags += ["--disable-sync", "--disable-quic", f"--window-size={width},2000"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    address = (tmp_path / "r.html").as_uri()
    done = subprocess.run(
        [browser, *flags, address], capture_output=True, text=True, timeout=120
    )
    title = re.search(r"<title>(\d+)&lt;=(\d+)</title>", done.stdout)
    assert title, done.stderr[-2000:]
    assert int(title[1]) <= int(title[2])
