"""How scoring goes about it changes no score: groups, chunks, caches, siblings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracle import same_bits
from supernets import BY_NAME, REFERENCES, SPACES

from oneshot import evaluation_blocks
from oneshot.bound import bind
from oneshot.bounded_cache import BoundedCache, nbytes
from oneshot.data import Data
from oneshot.engine import Engine
from oneshot.evaluate import Evaluator
from oneshot.grouping import batched_leaves, group_size
from oneshot.layers import Identity, OneOf
from oneshot.losses import accuracy, cross_entropy
from oneshot.paths import num_nodes
from oneshot.resources import Resources, default_memory_limit, host_memory, plan_chunk
from oneshot.space import Commuting
from oneshot.supernet import Supernet, Weights

UNCACHED = Resources(cache_bytes=0)


class Case:
    def __init__(self, reference):
        self.reference, self.net = reference, reference.make()
        self.weights = reference.weights(self.net)
        self.data = reference.data(n=30)
        self.archs = reference.archs(self.net, 6)
        self.engine = Engine(self.net)

    def evaluator(self, resources=UNCACHED, **options):
        options = {"engine": self.engine, **options}
        return Evaluator(self.net, self.data, resources=resources, **options)


SLOW = ("nb_macro", "tiny", "transformer", *SPACES)  # to compile
CASES = [
    pytest.param(r.name, marks=[pytest.mark.slow] if r.name in SLOW else [])
    for r in REFERENCES
]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(BY_NAME[request.param])


@pytest.fixture(scope="module", params=[c for c in CASES if c.values[0] not in SPACES])
def layers(request):
    """One case for each kind of layer; ready spaces are made of the same."""
    return Case(BY_NAME[request.param])


@pytest.fixture(scope="module")
def mixed():
    return Case(BY_NAME["mixed"])


def close_scores(got, want):
    for name, values in want.examples.items():
        np.testing.assert_allclose(got.examples[name], values, 1e-5, 1e-6)


def test_shared_prefixes_give_the_scores_of_one_at_a_time(case):
    evaluator = case.evaluator()
    together = evaluator(case.weights, case.archs)
    shared = evaluator.counts["evaluate"]
    for i, arch in enumerate(case.archs):
        alone = evaluator(case.weights, [arch])
        for name, values in alone.examples.items():
            np.testing.assert_array_equal(together.examples[name][i], values[0])
    paths = [case.net.path(arch) for arch in case.archs]
    assert shared == num_nodes(path[:-1] for path in paths)
    each = sum(len(path) - 1 for path in paths)
    assert evaluator.counts["evaluate"] == shared + each


@pytest.mark.slow
def test_groups_of_examples_give_the_scores_of_the_whole(layers, monkeypatch):
    want = layers.evaluator()(layers.weights, layers.archs)
    monkeypatch.setattr(evaluation_blocks, "group_bytes", lambda: 64)
    grouped = layers.evaluator(engine=Engine(layers.net))
    text = grouped._population.scorers[0].blocks
    got = grouped(layers.weights, layers.archs)
    close_scores(got, want)
    assert any(call.as_text().count("while") for call in text._calls.values())


def test_siblings_in_one_program_give_the_scores_of_each_alone(layers):
    want = layers.evaluator()(layers.weights, layers.archs)
    together = layers.evaluator(Resources(cache_bytes=0, siblings=2))
    together.warm_up()
    compiled = together.num_programs
    got = together(layers.weights, layers.archs)
    close_scores(got, want)
    assert together.num_programs == compiled
    assert together.counts["score"] == len(layers.archs)


def test_a_walk_in_chunks_gives_the_scores_of_the_whole(layers):
    want = layers.evaluator()(layers.weights, layers.archs)
    got = layers.evaluator(Resources(cache_bytes=0, chunk=4))(
        layers.weights, layers.archs
    )
    close_scores(got, want)


# --- groups -------------------------------------------------------------------------


class Table(nnx.Module):
    """Adds a table that travels along, and is as long as the batch."""

    def __init__(self, *, rngs):
        self.linear = nnx.Linear(12, 12, rngs=rngs)

    def __call__(self, carry):
        x, table = carry
        return self.linear(x) + table.sum(0, keepdims=True), table


class WithTable(nnx.Module):
    def __init__(self, *, rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (10, 12)))

    def __call__(self, x):
        return x, self.table[...]


class Last(nnx.Module):
    def __init__(self, *, rngs):
        self.linear = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, carry):
        return self.linear(carry[0])


def test_a_table_as_long_as_the_batch_is_not_cut(monkeypatch):
    layers = [OneOf(table=Table, other=Table)] * 2
    net = Supernet(WithTable, layers, Last)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 12)).astype(np.float32)
    y = rng.integers(0, 5, 40)
    data = Data.from_arrays((x, y), validate=(x[:10], y[:10]), calibrate=10)
    weights = net.init(jax.random.key(0), x)
    engine = Engine(net)
    flags = batched_leaves(
        net, jax.ShapeDtypeStruct((10, 12), "float32"), engine.carry_id
    )
    carry = net.reachable(jax.ShapeDtypeStruct((10, 12), "float32"))[1].carry
    assert flags[engine.carry_id(carry)] == (True, False)
    archs = list(net.space.enumerate())
    want = Evaluator(net, data, engine=engine)(weights, archs).loss
    monkeypatch.setattr(evaluation_blocks, "group_bytes", lambda: 200)
    got = Evaluator(net, data)(weights, archs).loss
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_group_sizes_divide_and_fit():
    assert group_size(512, 393_216, 3 << 20) == 8
    assert group_size(512, 10**9, 3 << 20) == 1
    assert group_size(30, 100, 700) == 6
    assert group_size(30, 100, None) == group_size(30, 100, 3000) == 30


# --- memory -------------------------------------------------------------------------


def test_little_memory_means_smaller_chunks(mixed):
    x = jax.ShapeDtypeStruct((512, 12), np.float32)
    sizes = [
        plan_chunk(mixed.net, x, None, Resources(memory_limit=limit).filled(a_cpu()))
        for limit in (1 << 30, (12 << 20) + 60_000, (12 << 20) + 6_000)
    ]
    assert sizes[0] == 512 > sizes[1] > sizes[2] >= 1
    rows = {r.step.layer: nbytes(r.out) // 512 for r in mixed.net.reachable(x)}
    assert sizes[1] * sum(rows.values()) <= 2 * 60_000


def a_cpu():
    return jax.devices("cpu")[0]


def test_the_default_limit_is_a_share_of_the_host(mixed):
    limit = default_memory_limit(jax.local_devices()[0])
    assert limit == host_memory() // 4 // len(jax.local_devices())
    assert Resources().filled(a_cpu()).cache_bytes == limit // 4
    for wrong in (
        {"chunk": 0},
        {"memory_limit": 0},
        {"siblings": 0},
        {"cache_bytes": -1},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is at least"):
            Resources(**wrong)
    with pytest.raises(ValueError, match="`devices` is empty"):
        Resources(devices=[])


# --- between calls ------------------------------------------------------------------


def on_device(weights):
    return jax.tree.map(jnp.asarray, weights)


def test_nothing_is_computed_twice_while_the_weights_are_the_same(mixed):
    weights, evaluator = on_device(mixed.weights), mixed.evaluator(Resources())
    first = evaluator(weights, mixed.archs)
    before = evaluator.counts
    again = evaluator(weights, mixed.archs[::-1])
    assert evaluator.counts == before and not again.seconds.any()
    np.testing.assert_array_equal(again.loss, first.loss[::-1])


def test_a_new_arch_starts_from_the_prefixes_of_the_last_call(mixed):
    weights, evaluator = on_device(mixed.weights), mixed.evaluator(Resources())
    evaluator(weights, mixed.archs[:3])
    before = evaluator.counts["evaluate"]
    got = evaluator(weights, mixed.archs)
    paths = [mixed.net.path(arch)[:-1] for arch in mixed.archs]
    assert evaluator.counts["evaluate"] - before == num_nodes(paths) - num_nodes(
        paths[:3]
    )
    close_scores(got, mixed.evaluator()(weights, mixed.archs))


def test_other_weights_never_get_the_scores_of_these(mixed):
    weights, evaluator = on_device(mixed.weights), mixed.evaluator(Resources())
    evaluator(weights, mixed.archs)
    params = {**weights.params}
    name = mixed.net.path(mixed.archs[0])[1].module
    params[name] = jax.tree.map(lambda a: a * 1.5, params[name])
    changed = Weights(params, weights.state)
    got = evaluator(changed, mixed.archs)
    assert same_bits(got.examples, mixed.evaluator()(changed, mixed.archs).examples)


def test_arrays_that_can_change_in_place_are_not_trusted(mixed):
    weights = jax.tree.map(np.array, mixed.weights)
    evaluator = mixed.evaluator(Resources())
    before = evaluator(weights, mixed.archs).loss
    for leaf in jax.tree.leaves(weights.params):
        leaf *= 1.5
    assert not np.allclose(evaluator(weights, mixed.archs).loss, before, 1e-3)


def test_a_cache_is_bounded_and_drops_what_was_used_least():
    cache, weights = BoundedCache(100), [jnp.ones(2)]
    cache.put("early", 1, 10)
    assert cache.get("early") is None  # nobody said whose it is
    cache.bind(weights)
    for name in "abc":
        cache.put(name, name, 40)
    assert cache.get("a") is None and cache.get("b") == "b" and cache.size == 80
    cache.put("d", "d", 40)  # b was used after c
    assert cache.get("c") is None and cache.get("b") == "b"
    cache.put("large", 0, 101)
    assert cache.get("large") is None and cache.size == 80
    cache.bind(weights)
    assert cache.get("b") == "b"
    cache.bind([jnp.ones(2)])
    assert cache.get("b") is None and cache.size == 0


def test_the_cache_of_an_evaluator_keeps_to_its_limit(mixed):
    weights = on_device(mixed.weights)
    limit = 4000
    evaluator = mixed.evaluator(Resources(cache_bytes=limit))
    want = mixed.evaluator()(weights, mixed.archs)
    for _ in range(3):
        close_scores(evaluator(weights, mixed.archs), want)
    cache = evaluator._population.scorers[0].cache
    assert 0 < cache.size <= limit and evaluator._kept.size <= limit


# --- what is asked for --------------------------------------------------------------


def test_equal_networks_are_scored_once_where_asked():
    def linear(rngs):
        return nnx.Linear(6, 6, rngs=rngs)

    layers = {f"l{i}": OneOf(id=Identity, a=linear) for i in range(3)}
    symmetry = Commuting((("l0.op", "l1.op", "l2.op"),))
    net = Supernet(linear, layers, linear, symmetry=symmetry)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 6, 40)
    data = Data.from_arrays((x, y))
    weights = net.init(jax.random.key(0), x)
    evaluator = Evaluator(net, data, resources=UNCACHED)
    archs = list(net.space.enumerate())
    apart = evaluator(weights, archs).loss
    assert evaluator.counts["score"] == 8
    merged = evaluator(weights, archs, equal_networks_once=True).loss
    assert evaluator.counts["score"] == 8 + 4  # 0 to 3 layers
    for arch, loss in zip(archs, merged, strict=True):
        assert loss == apart[archs.index(net.space.canonical(arch))]
    plain, once = (
        bind(evaluator, weights, equal_networks_once=m) for m in (False, True)
    )
    assert plain.settings_digest != once.settings_digest
    assert [row["loss"] for row in once(archs)] == merged.tolist()


def test_metrics_by_group_are_those_by_hand(mixed):
    evaluator = mixed.evaluator()
    groups = ["even" if i % 2 == 0 else "odd" for i in range(evaluator.n)]
    scores = evaluator(mixed.weights, mixed.archs)
    found = scores.by_group("accuracy", groups)
    even, odd = (scores.examples["accuracy"][:, i::2].mean(1) for i in (0, 1))
    np.testing.assert_allclose(found["even"], even, rtol=1e-6)
    np.testing.assert_allclose(found["odd"], odd, rtol=1e-6)
    bound = bind(evaluator, mixed.weights, groups=groups)
    row = bound(mixed.archs)[0]
    assert row["accuracy[even]"] == pytest.approx(even[0])
    assert row["accuracy_lowest"] == pytest.approx(min(even[0], odd[0]))
    assert row["accuracy_highest"] == pytest.approx(max(even[0], odd[0]))
    assert bound.settings_digest != bind(evaluator, mixed.weights).settings_digest
    with pytest.raises(ValueError, match=r"each of the 10 scored examples.*\[3\]"):
        bind(evaluator, mixed.weights, groups=groups[:3])


def margin(logits, labels):
    """Logit of the label less the largest other one."""
    own = jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]
    others = jnp.where(jax.nn.one_hot(labels, logits.shape[1]) > 0, -jnp.inf, logits)
    return own - others.max(1)


def test_a_users_own_metric_is_scored_like_the_others(mixed):
    metrics = {"loss": cross_entropy, "accuracy": accuracy, "margin": margin}
    scores = mixed.evaluator(loss=metrics)(mixed.weights, mixed.archs)
    right = scores.examples["margin"] > 0
    np.testing.assert_array_equal(right, scores.examples["accuracy"] > 0)
