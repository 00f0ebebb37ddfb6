"""Costs of whole spaces, refusals before anything trains, and the profile."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import optax
import pytest
from supernets import BY_NAME

import oneshot
from oneshot.cli import main
from oneshot.constraints import Constraints, InfeasibleError
from oneshot.cost_tables import COSTS, CostTables
from oneshot.costs import Costs
from oneshot.elimination import Table, least, values_of
from oneshot.latency import latency
from oneshot.profiles import check_limits
from oneshot.spaces import tiny

DIGIT = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
SMALL = ("mixed", "carried", "elastic_width", "transformer")


@pytest.fixture(scope="module")
def tables():
    return CostTables(tiny(), DIGIT)


def case(name):
    reference = BY_NAME[name]
    net = reference.make()
    return net, reference.batch(2)[0]


def test_the_least_sum_is_that_of_every_assignment():
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes = rng.integers(1, 4, 5)
        scopes = [sorted(rng.choice(5, rng.integers(0, 4), False)) for _ in range(6)]
        terms = [
            Table(tuple(map(int, s)), rng.integers(-9, 9, [sizes[c] for c in s]))
            for s in scopes
        ]
        archs = np.array(list(itertools.product(*map(range, sizes))))
        value, found = least(terms, sizes)
        sums = values_of(terms, archs)
        assert value == sums.min()
        arch = np.array([[found.get(c, 0) for c in range(5)]])
        assert values_of(terms, arch)[0] == value


def test_too_many_linked_choices_are_left_to_others(monkeypatch):
    monkeypatch.setattr("oneshot.elimination.ENTRIES", 8)
    table = Table((0, 1, 2, 3), np.zeros((3, 3, 3, 3), int))
    assert least([table], [3] * 4) is None


@pytest.mark.parametrize("name", SMALL)
def test_ends_and_values_are_those_of_all_paths(name):
    net, x = case(name)
    tables, costs = CostTables(net, x), Costs(net, x)
    paths = list(net.space.enumerate())
    assert list(tables.values("macs", paths)) == [costs.macs(a) for a in paths]
    assert list(tables.values("params", paths)) == [costs.params(a) for a in paths]
    for cost in COSTS:
        values, ends = tables.values(cost, paths), tables.ends(cost)
        assert (ends.least, ends.greatest) == (values.min(), values.max())
        assert ends.exact and tables.value(cost, ends.smallest) == ends.least


def test_where_tables_would_be_too_large_blocks_are_added(monkeypatch):
    net, x = case("mixed")
    paths = net.space.sample(np.random.default_rng(0), 20)
    want = {cost: CostTables(net, x).values(cost, paths) for cost in COSTS}
    monkeypatch.setattr("oneshot.cost_tables._ENTRIES", 1)
    tables = CostTables(net, x)
    for cost in COSTS:
        assert tables.tables(cost) is None
        np.testing.assert_array_equal(tables.values(cost, paths), want[cost])
        assert tables.ends(cost).exact  # the space is small enough to list
    monkeypatch.setattr("oneshot.cost_tables.ENUMERABLE", 1)
    assert not CostTables(net, x).ends("macs").exact


@pytest.mark.slow
def test_activation_memory_is_what_the_blocks_of_training_keep():
    net, x = case("elastic_width")
    tables = CostTables(net, x)
    trainer = oneshot.Trainer(net, oneshot.Uniform(net.space), optax.sgd, 0.1)
    engine, one = trainer.engine, np.zeros((1, *x.shape[1:]), x.dtype)
    for arch in net.space.sample(np.random.default_rng(0), 3):
        total, carry = one.nbytes, tables.costs.x
        for step in net.path(arch):
            block = trainer.executor.block(step, engine.carry_id(carry))
            carry = engine.carry(block.out_id)
            leaves = jax.tree.leaves((carry, block.saved))
            total += sum(a.size * a.dtype.itemsize for a in leaves)
        assert tables.value("activation_bytes", arch) == total


@pytest.mark.parametrize("name", ["mixed", "carried", "elastic_width"])
def test_programs_are_those_that_a_trainer_compiles(name):
    net, x = case(name)
    found = oneshot.profile(net, x, samples=10, latency=False)
    trainer = oneshot.Trainer(net, oneshot.Uniform(net.space), optax.sgd, 0.1)
    counted = []
    trainer.engine.compile = lambda key, *a, **k: counted.append(key)
    jobs = list(trainer.executor.warm_up_jobs(x, np.zeros(len(x), np.int32)))
    assert found.blocks == len(jobs)
    heads = sum(step.layer == len(net.slots) - 1 for step, *_ in _reachable(net, x))
    assert found.training_programs == 2 * found.blocks - heads


def _reachable(net, x):
    rows = {}
    for row in net.reachable(x):
        shapes = tuple((a.shape, a.dtype) for a in jax.tree.leaves(row.carry))
        rows[row.step, shapes] = row
    return list(rows.values())


@pytest.mark.slow
def test_a_profile_of_a_space_and_its_json():
    net = tiny(widths=(4, 6), depth=2, kernel=(3,))
    found = oneshot.profile(net, DIGIT, constraints={"macs": 9_000}, samples=50)
    assert found.archs == net.space.size and found.paths == net.space.num_paths
    assert found.networks == found.paths
    for spread in found.costs.values():
        assert spread.smallest <= spread.median <= spread.largest and spread.exact
    assert 0 < found.feasible < 1 and found.limits == {"macs": 9_000}
    assert found.latency.batch == 1 and found.latency.smallest > 0
    again = oneshot.profile(net, DIGIT, samples=50, latency=False)
    assert again.costs == found.costs and again.latency is None
    data = json.loads(json.dumps(found.to_json()))
    assert data["costs"]["macs"]["smallest"] == found.costs["macs"].smallest


@pytest.mark.slow
def test_symmetric_spaces_count_their_networks():
    net = BY_NAME["nb_macro"].make()
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    found = oneshot.profile(net, image, samples=5, latency=False)
    assert (found.archs, found.paths, found.networks) == (6561, 6561, 3969)


def test_latency_is_measured_without_weights():
    net, x = case("elastic_width")
    assert 0 < latency(net, net.space.arch({}), x, runs=2) < 1


@pytest.mark.slow
def test_what_no_arch_keeps_is_refused_with_the_nearest_value(tables):
    net = tables.supernet
    least_macs = tables.ends("macs").least
    assert least_macs == min(tables.values("macs", net.space.sample(_rng(), 3000)))
    with pytest.raises(InfeasibleError, match=f"{least_macs:,} or more; that is the"):
        oneshot.profile(net, DIGIT, constraints={"macs": least_macs - 1})
    bounds = Constraints(net.space, [tables.constraint("macs", least_macs - 1)])
    with pytest.raises(InfeasibleError, match="exactly, from the costs of each layer"):
        oneshot.NSGA2(net.space, seed=0, constraints=bounds)  # before anything is asked
    kept = Constraints(net.space, [tables.constraint("macs", least_macs)])
    kept.refuse()
    assert kept.feasible(tables.ends("macs").smallest)


def test_a_limit_that_no_arch_keeps_is_refused_without_exact_ends():
    class Unsure(CostTables):
        def constraint(self, cost, maximum):
            known = super().constraint(cost, maximum)
            return dataclasses.replace(known, known_range=None)

    unsure = Unsure(*case("mixed"))
    least_macs = unsure.ends("macs").least
    with pytest.raises(InfeasibleError):
        check_limits(unsure, {"macs": least_macs - 1}, 0)
    check_limits(unsure, {"macs": least_macs}, 0)


def test_limits_that_exclude_each_other_are_refused(tables):
    net = oneshot.Supernet(*_trade_off())
    one = jax.ShapeDtypeStruct((1, 6, 4), np.float32)
    ends = {cost: CostTables(net, one).ends(cost).least for cost in ("params", "macs")}
    with pytest.raises(InfeasibleError, match="together they exclude every arch"):
        oneshot.profile(net, one, constraints=ends, latency=False)


def _trade_off():
    """One option has fewer parameters, the other fewer multiply-adds."""
    from flax import nnx

    class Pooled(nnx.Module):
        def __init__(self, *, rngs):
            self.first = nnx.Linear(4, 4, rngs=rngs)
            self.second = nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            pooled = self.second(self.first(x.mean(1, keepdims=True)))
            return pooled + 0 * x

    def linear(rngs):
        return nnx.Linear(4, 4, rngs=rngs)

    return linear, [oneshot.OneOf(each=linear, pooled=Pooled)], linear


def _rng():
    return np.random.default_rng(0)


def test_a_profile_refuses_other_costs_and_no_samples():
    for options in ({"samples": 0}, {"constraints": {"joules": 1}}):
        with pytest.raises(ValueError, match="takes 1 sample or more"):
            oneshot.profile(tiny(), DIGIT, **options)


def test_the_command_prints_a_table_json_or_the_nearest_value(capsys):
    small = json.dumps({"widths": [4, 6], "depth": 1, "kernel": [3]})
    command = ["profile", "--input-shape", "8", "8", "1", "--no-latency"]
    command += ["--arguments", small]
    assert main([*command, "--max-macs", "100000"]) == 0
    shown = capsys.readouterr().out
    assert "keep the limits" in shown and "exactly" in shown
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["paths"] == 3
    assert main([*command, "--max-macs", "1000"]) == 2
    message = capsys.readouterr().err
    assert "that is the nearest feasible value" in message
    assert len(message.strip().splitlines()) == 1
    assert main(["profile", "--supernet", "decoder"]) == 2
    assert "to be that of the data 'digits'; --input" in capsys.readouterr().err
    assert main(["profile", "--input-shape", "8", "0", "1"]) == 2
    assert "--input-shape" in capsys.readouterr().err
    assert main([*command, "--input-dtype", "float33"]) == 2
    assert "float33" in capsys.readouterr().err
