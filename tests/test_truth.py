"""The ground-truth table: networks trained alone, resumable, and what it is worth."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from benchmarks import truth
from benchmarks.mixers import CONTEXT, VOCABULARY, mixers
from benchmarks.ranking_spaces import RESULTS
from benchmarks.truth_spaces import TRUTHS, digits_vit, number


def test_all_networks_differ_and_see_the_past_only():
    net = mixers()
    assert net.space.num_paths == net.space.size == 5**6
    weights = net.init(jax.random.key(0), np.zeros((1, CONTEXT), np.int32))
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (1, CONTEXT))
    changed = tokens.copy()
    changed[0, 40:] = (changed[0, 40:] + 1) % VOCABULARY
    for kind in range(5):
        a, b = (net.apply(*weights, [kind] * 6, x)[0] for x in (tokens, changed))
        np.testing.assert_allclose(a[:, :40], b[:, :40], atol=1e-5)
        assert not np.allclose(a[:, 40:], b[:, 40:], atol=1e-3)


@pytest.mark.slow
def test_a_stopped_table_goes_on_and_says_what_it_is_worth(
    data_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("ONESHOT_DATA", str(data_dir))
    table, console = tmp_path / "table.csv", Console(file=io.StringIO())
    space = dataclasses.replace(TRUTHS["mixers"], networks=2, seeds=2, steps=2)
    truth.train(table, space, console)
    whole = table.read_text()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 5
    table.write_text("".join(lines[:3]) + lines[3][:9])  # killed while it wrote
    truth.train(table, space, console)
    again = truth.rows_of(table, space)
    assert [row["loss"] for row in again] == [line.split(",")[6] for line in lines[1:]]
    found = truth.summary(table, space)
    assert found["networks"] == 2 and found["seeds"] == 2
    assert 3 < found["loss_best"] <= found["loss_worst"] < 6
    assert abs(found["best_trivial"]) <= 1 and not found["fit_as_truth"]
    for other in (
        dataclasses.replace(space, steps=3),
        dataclasses.replace(space, data=TRUTHS["vit"].data),
        dataclasses.replace(space, make=digits_vit),
    ):
        with pytest.raises(ValueError, match="of another space, or trained by other"):
            truth.rows_of(table, other)
    table.write_text(lines[0] + lines[1])
    with pytest.raises(ValueError, match="no network with all 2 seeds"):
        truth.truth(table, space)


@pytest.mark.slow
def test_seeds_together_train_as_they_do_alone(data_dir, monkeypatch):
    monkeypatch.setenv("ONESHOT_DATA", str(data_dir))
    space = dataclasses.replace(TRUTHS["mixers"], steps=4, clip=0.5)
    alone, arch = truth.Alone(space), (0, 1, 2, 3, 4, 0)
    apart = [float(row["loss"]) for row in alone.rows(arch, (0, 1), together=False)]
    once = [float(row["loss"]) for row in alone.rows(arch, (0, 1), together=True)]
    np.testing.assert_allclose(once, apart, atol=2e-4)
    assert abs(apart[0] - apart[1]) > 1e-3


def test_our_table_is_fit_as_a_truth(data_dir, monkeypatch):
    monkeypatch.setenv("ONESHOT_DATA", str(data_dir))
    found = truth.summary(RESULTS / "truth_mixers.csv", TRUTHS["mixers"])
    assert found["networks"] == 300 and found["seeds"] == 3 and found["fit_as_truth"]
    stored = json.loads((RESULTS / "truth_mixers.json").read_text())
    for name, value in found.items():
        assert stored[name] == pytest.approx(value), name


def test_archs_are_numbered_apart():
    net = digits_vit()
    archs = list(net.space.enumerate("archs"))
    numbers = [number(net, arch) for arch in archs]
    assert sorted(numbers) == list(range(net.space.size))
