"""The trial store: what is written is read back, in every weather."""

import math
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from oneshot.space import Choice, SearchSpace
from oneshot.trials import Trial, Trials

SPACE = SearchSpace([Choice("a", (0, 1)), Choice("b", (0, 1, 2))])


def trial(*arch, **fields):
    return Trial(arch, arch, arch, **fields)


def test_round_trip(tmp_path):
    written = [
        Trial((1, 2), (1, 0), (0, 1), {"loss": 0.1}, {"macs": 3e9}, 1.5, step=7),
        trial(0, 0, status="failed", reason="out of memory", weights_digest="w"),
        trial(0, 1, scores={"loss": 1 / 3, "tiny": 5e-324}, settings_digest="s"),
    ]
    with Trials(tmp_path / "trials.sqlite", SPACE) as store:
        store.add(written)
        assert store.all() == written and len(store) == 3
    with Trials(tmp_path / "trials.sqlite", SPACE) as store:
        assert store.all() == written


def test_lookup_is_by_path_weights_and_settings():
    with Trials(":memory:") as store:
        ours = trial(1, 0, weights_digest="w", settings_digest="s")
        store.add([ours])
        assert store.lookup([(1, 0), (0, 0)], "w", "s") == {(1, 0): ours}
        assert store.lookup([(1, 0)], "other", "s") == {}
        assert store.lookup([(1, 0)], "w", "other") == {}
        assert store.lookup([(1, 0)]) == {}


def test_a_second_scoring_replaces_and_keeps_its_place():
    with Trials(":memory:") as store:
        store.add([trial(0, 0, status="failed", reason="x"), trial(0, 1)])
        store.add([trial(0, 0, scores={"loss": 1.0})])
        assert [t.path for t in store.all()] == [(0, 0), (0, 1)]
        assert store.all()[0].status == "done" and store.all()[0].reason == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_a_failure(value):
    with Trials(":memory:") as store:
        store.add([trial(0, 0, scores={"accuracy": 0.5, "loss": value})])
        [read] = store.all()
    assert read.status == "failed" and "'loss'" in read.reason
    assert math.isnan(read.scores["loss"]) and read.scores["accuracy"] == 0.5


def test_failed_trials_can_be_forgotten():
    with Trials(":memory:") as store:
        store.add([trial(0, 0, status="failed", reason="x"), trial(0, 1)])
        assert store.forget_failed() == 1
        assert [t.path for t in store.all()] == [(0, 1)]


def test_a_batch_is_written_whole_or_not_at_all():
    with Trials(":memory:") as store:
        bad = trial(0, 1, status="neither")
        with pytest.raises(sqlite3.IntegrityError):
            store.add([trial(0, 0), bad])
        assert len(store) == 0


def test_a_store_of_another_space_is_refused(tmp_path):
    other = SearchSpace([Choice("a", (0, 1)), Choice("c", (0, 1, 2))])
    Trials(tmp_path / "t.sqlite", SPACE).close()
    with pytest.raises(ValueError, match="Search the space it was made for"):
        Trials(tmp_path / "t.sqlite", other)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "text").write_text("this is no database, and long enough to be read")
    with pytest.raises(ValueError, match="is not a usable trial store"):
        Trials(tmp_path / "text")
    with pytest.raises(ValueError, match="could not be opened"):
        Trials(tmp_path / "no" / "folder" / "t.sqlite")


def test_a_store_of_another_version_is_refused(tmp_path):
    Trials(tmp_path / "t.sqlite").close()
    with sqlite3.connect(tmp_path / "t.sqlite") as db:
        db.execute("UPDATE meta SET value = '999' WHERE name = 'schema'")
    db.close()
    with pytest.raises(ValueError, match="has format 999"):
        Trials(tmp_path / "t.sqlite")


def test_others_read_while_one_writes(tmp_path):
    with Trials(tmp_path / "t.sqlite", SPACE) as writer:
        writer.add([trial(0, 0)])
        with writer._db:  # a transaction is open
            writer._db.execute("DELETE FROM trials")
            with Trials(tmp_path / "t.sqlite", SPACE) as reader:
                assert len(reader) == 1
        assert len(writer) == 0


WRITER = """
import sys
from oneshot.trials import Trial, Trials

with Trials(sys.argv[1]) as store:
    for batch in range(10**6):
        paths = [(batch, i) for i in range(50)]
        store.add([Trial(p, p, p, {"loss": 0.5}) for p in paths])
        print(batch, flush=True)
"""


def test_a_killed_writer_loses_no_finished_batch(tmp_path):
    file = tmp_path / "t.sqlite"
    command = [sys.executable, "-c", WRITER, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(30, process.kill)
        guard.start()
        assert process.stdout is not None
        finished = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        finished += process.stdout.readlines()
        guard.cancel()
    assert process.returncode == -signal.SIGKILL
    with Trials(file) as store:
        trials = store.all()
        assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.add([trial(0, 0)])  # it can be written to again
    # The last batch may have been written and not yet reported.
    assert len(trials) % 50 == 0
    assert len(trials) // 50 - sum(line.endswith("\n") for line in finished) in (0, 1)
