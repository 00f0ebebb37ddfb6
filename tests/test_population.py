"""Tries, shares of a population, devices and processes."""

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from supernets import BY_NAME

from oneshot.engine import Engine
from oneshot.evaluate import Evaluator
from oneshot.paths import Step, depth_first, num_nodes, partition, shared_prefix
from oneshot.resources import Resources
from oneshot.spaces import nb_macro

codes = st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=5), max_size=12)


def as_paths(lists):
    return depth_first(
        tuple(Step(i, str(v)) for i, v in enumerate([0, *values, 9]))
        for values in lists
    )


def depth_cost(path):
    return [1.0 + step.layer for step in path]


def work(share, cost=depth_cost):
    """The cost of a share by hand: of each distinct prefix, its last step."""
    prefixes = {p[: i + 1]: cost(p)[i] for p in share for i in range(len(p))}
    return sum(prefixes.values())


@given(codes)
@settings(derandomize=True, deadline=None)
def test_nodes_are_the_distinct_prefixes(lists):
    paths = as_paths(lists)
    assert num_nodes(paths) == len({p[: i + 1] for p in paths for i in range(len(p))})


@given(codes, st.integers(1, 5))
@settings(derandomize=True, deadline=None)
def test_shares_hold_every_path_once_and_the_dearest_is_as_cheap_as_can_be(
    lists, parts
):
    paths = as_paths(lists)
    shares = partition(paths, depth_cost, parts)
    assert len(shares) == parts and [p for s in shares for p in s] == paths
    cuts = itertools.combinations_with_replacement(range(len(paths) + 1), parts - 1)
    best = min(
        max(work(paths[a:b]) for a, b in itertools.pairwise([0, *cut, len(paths)]))
        for cut in itertools.islice(cuts, 2000)
    )
    if len(paths) ** (parts - 1) < 2000:
        assert max(map(work, shares)) == pytest.approx(best)


@pytest.mark.slow
def test_nb_macro_runs_the_published_numbers_of_blocks():
    net = nb_macro()
    every = [net.path(code) for code in net.space.enumerate()]
    distinct = [
        net.path(c) for c in {net.space.canonical(c) for c in net.space.enumerate()}
    ]
    inner = [path[1:-1] for path in every]
    assert sum(map(len, inner)) == 41_553
    assert num_nodes(inner) == 6_813
    assert num_nodes(path[1:-1] for path in distinct) == 4_167


def test_a_population_of_nb_macro_splits_evenly():
    net = nb_macro()
    rng = np.random.default_rng(0)
    paths = depth_first(net.path(code) for code in net.space.sample(rng, 300))
    for parts in (2, 4):
        shares = partition(paths, depth_cost, parts)
        costs = [work(share) for share in shares]
        assert max(costs) <= 1.1 * np.mean(costs)
        # Cutting costs little more than the walks from the root to where parts begin.
        whole = work(paths)
        assert sum(costs) <= whole + (parts - 1) * max(map(sum, map(depth_cost, paths)))


@pytest.fixture(scope="module")
def case():
    reference = BY_NAME["mixed"]
    net = reference.make()
    return reference, net, reference.weights(net), reference.data(n=30)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_scores_do_not_depend_on_the_number_of_devices(case, count):
    reference, net, weights, data = case
    archs = reference.archs(net, 12)
    alone = Evaluator(net, data)
    want = alone(weights, archs)
    devices = jax.devices()[:count]
    spread = Evaluator(net, data, resources=Resources(devices=devices))
    seconds = spread.warm_up()
    compiled = spread.num_programs
    got = spread(weights, archs)
    assert seconds > 0 and spread.num_programs == compiled
    # Each device compiles its own programs, as many as the one has.
    alone.warm_up()
    assert compiled == count * alone.num_programs
    for name, values in want.examples.items():
        np.testing.assert_array_equal(got.examples[name], values)
    assert len(spread.shares(archs)) == count
    assert spread.counts["score"] == alone.counts["score"]


@pytest.mark.slow
def test_chunks_and_devices_go_together(case):
    reference, net, weights, data = case
    archs = reference.archs(net, 9)
    want = Evaluator(net, data)(weights, archs)
    resources = Resources(devices=jax.devices(), chunk=4)
    got = Evaluator(net, data, resources=resources)(weights, archs)
    np.testing.assert_allclose(got.examples["loss"], want.examples["loss"], 1e-5, 1e-6)


def test_an_error_on_one_device_reaches_the_caller(case, monkeypatch):
    reference, net, weights, data = case
    spread = Evaluator(net, data, resources=Resources(devices=jax.devices()))
    blocks = spread._population.scorers[2].blocks

    def fail(*args):
        raise MemoryError("no room")

    monkeypatch.setattr(blocks, "evaluate", fail)
    with pytest.raises(MemoryError, match="no room"):
        spread(weights, reference.archs(net, 12))


def test_devices_and_a_mesh_exclude_each_other(case):
    _, net, _, data = case
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match="both were asked for"):
        Evaluator(
            net,
            data,
            resources=Resources(devices=jax.devices()),
            engine=Engine(net, mesh),
        )
    with pytest.raises(ValueError, match="both were given"):
        Engine(net, mesh, jax.devices()[0])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run_processes(folder: Path, *extra: str, count: int = 2):
    worker = Path(__file__).with_name("scoring_worker.py")
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    port = str(free_port())
    running = [
        subprocess.Popen(
            [
                sys.executable,
                str(worker),
                str(i),
                str(count),
                port,
                str(folder),
                *extra,
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in running]
    return [process.returncode for process in running], outputs


@pytest.mark.slow
def test_two_processes_get_the_scores_of_one(case, tmp_path):
    reference, net, weights, data = case
    codes, outputs = run_processes(tmp_path)
    assert codes == [0, 0], outputs
    want = Evaluator(net, data)(weights, reference.archs(net, 12))
    counts = []
    for i in range(2):
        with np.load(tmp_path / f"scores{i}.npz") as found:
            np.testing.assert_allclose(found["loss"], want.loss, 1e-6)
            np.testing.assert_array_equal(found["accuracy"], want.accuracy)
            counts.append(int(found["paths"]))
    assert sum(counts) == 12 and min(counts) > 0  # each did a part


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_of_them(tmp_path):
    codes, outputs = run_processes(tmp_path, "fail")
    assert all(codes)
    assert "no room" in outputs[1]
    assert "Scoring failed in process 1, which says why" in outputs[0]


def test_neighbours_share_most():
    paths = as_paths([[0, 0, 0], [2, 0, 0], [0, 0, 1], [2, 0, 1]])
    assert [shared_prefix(a, b) for a, b in itertools.pairwise(paths)] == [3, 1, 3]
