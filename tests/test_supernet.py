"""`Supernet.apply`, the reference semantics: static and traced archs, modes, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracle import close, same_bits
from supernets import (
    BY_NAME,
    REFERENCES,
    SPACES,
    Dense,
    dense_layer,
    elastic_mlp,
    linear,
)

from oneshot.engine import Engine
from oneshot.layers import Elastic, Identity, OneOf, Stage
from oneshot.losses import cross_entropy
from oneshot.supernet import Supernet


@pytest.fixture(scope="module")
def mixed():
    reference = BY_NAME["mixed"]
    net = reference.make()
    return net, reference.weights(net), jnp.asarray(reference.batch()[0])


def archs_of(net, n, seed=0):
    return net.space.sample(np.random.default_rng(seed), n)


LARGE = ("nb_macro", "tiny", *SPACES)  # to compile; the laws hold them to it
TRACEABLE = [r for r in REFERENCES if r.traceable and r.name not in LARGE]


@pytest.mark.slow
@pytest.mark.parametrize("reference", TRACEABLE, ids=lambda r: r.name)
def test_a_traced_arch_gives_what_a_static_one_gives(reference):
    net = reference.make()
    weights, x = reference.weights(net), reference.batch()[0]
    traced = jax.jit(net.apply)
    for arch in archs_of(net, 2):
        want = jax.jit(lambda w, x, arch=arch: net.apply(*w, arch, x))(weights, x)
        close(traced(*weights, jnp.array(arch), x), want, 1e-5)


@pytest.mark.slow
def test_traced_training_updates_state_and_draws_dropout_alike(mixed):
    net, weights, x = mixed
    traced = jax.jit(functools.partial(net.apply, train=True))
    for i, arch in enumerate(archs_of(net, 3)):
        key = jax.random.key(i)
        static = jax.jit(
            lambda w, x, key, a=arch: net.apply(*w, a, x, train=True, key=key)
        )
        got = traced(*weights, jnp.array(arch), x, key=key)
        close(got, static(weights, x, key), 1e-5)


@pytest.mark.slow
def test_it_works_inside_jit_grad_and_vmap_of_the_user(mixed):
    net, weights, x = mixed
    labels = jnp.zeros(len(x), jnp.int32)

    def loss(params, arch):
        logits, _ = net.apply(params, weights.state, arch, x)
        return cross_entropy(logits, labels).mean()

    arch = net.space.arch({"first.op": "mlp", "stage.depth": 2})
    gradient = jax.jit(jax.grad(loss), static_argnums=1)(weights.params, arch)
    on = {step.module for step in net.path(arch)}
    for name, own in gradient.items():
        zero = all(not np.any(g) for g in jax.tree.leaves(own))
        assert zero == (name not in on)
    both = jnp.array(archs_of(net, 2))
    values = jax.jit(jax.vmap(loss, (None, 0)))(weights.params, both)
    one = jax.jit(loss)
    for value, a in zip(values, both, strict=True):
        np.testing.assert_allclose(value, one(weights.params, a), rtol=1e-5)


def test_state_off_the_path_is_returned_as_it_was(mixed):
    net, weights, x = mixed
    for arch in archs_of(net, 2, seed=1):
        key = jax.random.key(0)
        _, state = jax.jit(lambda w, k, a=arch: net.apply(*w, a, x, train=True, key=k))(
            weights, key
        )
        on = {step.module for step in net.path(arch)}
        for name in net.modules:
            changed = not same_bits(state[name], weights.state[name])
            has_statistics = bool(jax.tree.leaves(weights.state[name]))
            assert changed == (name in on and has_statistics)


def test_evaluation_changes_no_state_and_training_moves_the_averages(mixed):
    net, weights, x = mixed
    arch = (0,) * len(net.space.choices)
    _, state = net.apply(*weights, arch, x)
    assert same_bits(state, weights.state)
    _, state = net.apply(*weights, arch, x, train=True)
    stem = x @ weights.params["stem"]["linear"]["kernel"]
    stem += weights.params["stem"]["linear"]["bias"][None]
    old = weights.state["stem"]["norm"]["mean"]
    want = 0.99 * old + 0.01 * stem.mean(0)  # flax's own momentum
    np.testing.assert_allclose(state["stem"]["norm"]["mean"], want, rtol=1e-5)


def test_calibration_leaves_exactly_the_statistics_of_the_batch(mixed):
    net, weights, x = mixed
    path = net.path((0,) * len(net.space.choices))
    _, state = net.run(weights, path, x, mode="calibrate")
    stem = x @ weights.params["stem"]["linear"]["kernel"]
    stem += weights.params["stem"]["linear"]["bias"][None]
    got = state["stem"]["norm"]
    np.testing.assert_allclose(got["mean"], stem.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["var"], stem.var(0), rtol=1e-4, atol=1e-6)


def test_dropout_follows_the_key(mixed):
    net, weights, x = mixed
    arch = net.space.arch({"first.op": "dropped"})
    apply = jax.jit(lambda key: net.apply(*weights, arch, x, train=True, key=key)[0])
    a, again, b = (apply(jax.random.key(s)) for s in (0, 0, 1))
    assert same_bits(a, again) and not np.allclose(a, b)
    with pytest.raises(ValueError, match="'first.dropped' draws random.*key="):
        net.apply(*weights, arch, x, train=True)


def test_layers_of_equal_modules_draw_different_dropout():
    layers = [lambda rngs: nnx.Dropout(0.5, rngs=rngs)] * 2
    net = Supernet(linear(8, 8), layers, linear())
    weights = net.init(jax.random.key(0), jnp.ones((1, 8)))
    ones, key = jnp.ones((1, 64)), jax.random.key(3)
    masks = [
        net.run(weights, (step,), ones, mode="train", key=key)[0]
        for step in net.path(())[1:-1]
    ]
    assert not np.array_equal(*masks)


def test_init_draws_each_module_from_its_own_key():
    net = Supernet(dense_layer(8), [dense_layer(), dense_layer()], linear())
    x = jnp.ones((2, 8))
    a, again, b = (net.init(jax.random.key(s), x) for s in (0, 0, 1))
    assert same_bits(a, again) and not same_bits(a, b)
    kernels = [a.params[f"layer{i}"]["linear"]["kernel"] for i in range(2)]
    assert not np.allclose(*kernels)
    assert jax.tree.structure(a) == jax.tree.structure(net.abstract())
    shapes = jax.tree.map(lambda p: (p.shape, p.dtype), a)
    assert shapes == jax.tree.map(lambda p: (p.shape, p.dtype), net.abstract())


def test_equal_layers_share_a_structure_and_unequal_ones_do_not():
    row = [dense_layer(), dense_layer(), dense_layer(8, 8, 0.5), linear(8, 8)]
    net = Supernet(dense_layer(12, 8), row, linear())
    engine = Engine(net)
    numbers = [engine.structure(m) for m in net.modules]
    stem, a, b, dropped, plain, head = numbers
    assert a == b and len({stem, a, dropped, plain, head}) == 5


def test_an_arch_that_is_not_of_the_space_is_refused(mixed):
    net, weights, x = mixed
    with pytest.raises(ValueError, match="option indices, one per choice, but got 1"):
        net.apply(*weights, (0,), x)
    wrong = (9,) + (0,) * (len(net.space.choices) - 1)
    with pytest.raises(ValueError, match="'first.op'.*its index is 0 to 2, but got 9"):
        net.path(wrong)


def narrowing():
    options = {"same": dense_layer(), "narrow": dense_layer(8, 4)}
    layers = {"change": OneOf(**options), "next": dense_layer()}
    return Supernet(dense_layer(12, 8), layers, linear())


def test_an_option_that_changes_the_shape_is_refused_with_layer_and_shapes():
    message = (
        r"Module 'next' of layer 'next' does not accept its input float32\[2, 4\]"
        r".*which some arch brings.*tie the two by passing one Choice"
    )
    with pytest.raises(ValueError, match=f"(?s){message}"):
        narrowing().init(jax.random.key(0), jnp.ones((2, 12)))


@pytest.mark.slow
def test_a_traced_arch_cannot_select_between_shapes():
    options = {"same": dense_layer(), "narrow": dense_layer(8, 4)}
    net = Supernet(dense_layer(12, 8), {"change": OneOf(**options)}, Mean)
    x = jnp.ones((2, 12))
    weights = net.init(jax.random.key(0), x)
    for arch in ((0,), (1,)):
        assert net.apply(*weights, arch, x)[0].shape == (2,)
    with pytest.raises(
        ValueError, match=r"'change'.*\[2, 8\].*\[2, 4\].*tuple of ints"
    ):
        net.apply(*weights, jnp.array([0]), x)


class Mean(nnx.Module):
    def __init__(self, *, rngs):
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return x.mean(-1) * self.scale[...]


def test_reachable_yields_each_block_and_shape_once():
    reference = BY_NAME["elastic_width"]
    net = reference.make()
    found = list(net.reachable(reference.batch()[0]))
    keys = [(b.step, b.carry.shape) for b in found]
    assert len(keys) == len(set(keys)) == 4 * 3  # a tied width is never mixed
    for block in found[3:]:
        assert block.carry.shape[-1] == dict(block.step.options)["width"]


def test_a_supernet_keeps_no_arch(mixed):
    net, weights, x = mixed
    before = {k: id(v) for k, v in vars(net).items()}
    for arch in archs_of(net, 2):
        net.apply(*weights, arch, x)
    assert {k: id(v) for k, v in vars(net).items()} == before


def test_twenty_lines_of_plain_nnx_make_a_supernet():
    def mlp(rngs):
        return Dense(8, 8, rngs=rngs)

    net = Supernet(
        stem=lambda rngs: nnx.Linear(4, 8, rngs=rngs),
        layers=[
            OneOf(skip=Identity, mlp=mlp),
            Stage([Elastic(elastic_mlp(8), hidden=(4, 8))], depth=(0, 1)),
        ],
        head=lambda rngs: nnx.Linear(8, 2, rngs=rngs),
    )
    weights = net.init(jax.random.key(0), jnp.ones((3, 4)))
    for arch in net.space.paths():
        assert net.apply(*weights, arch, jnp.ones((3, 4)))[0].shape == (3, 2)


class Gate(nnx.Module):
    def __init__(self, value, *, rngs):
        del rngs  # nothing random
        self.gate = nnx.Param(jnp.full((4,), value))

    def __call__(self, x):
        return x * self.gate[None]


def test_modules_of_equal_structure_keep_their_own_initial_values():
    layer = OneOf(
        one=lambda rngs: Gate(1.0, rngs=rngs), zero=lambda rngs: Gate(0.0, rngs=rngs)
    )
    net = Supernet(
        lambda rngs: Gate(2.0, rngs=rngs), [layer], lambda rngs: Gate(3.0, rngs=rngs)
    )
    params, _ = net.init(jax.random.key(0), jnp.ones((1, 4)))
    found = {name: float(own["gate"][0]) for name, own in params.items()}
    assert found == {"stem": 2.0, "layer0.one": 1.0, "layer0.zero": 0.0, "head": 3.0}


def test_a_head_that_may_be_skipped_is_refused():
    gate = lambda rngs: Gate(1.0, rngs=rngs)  # noqa: E731
    for head in (OneOf(skip=Identity, gate=gate), Stage([gate, gate], depth=(1, 2))):
        with pytest.raises(ValueError, match="head.*could be skipped"):
            Supernet(gate, [gate], head)


def test_layers_of_one_name_are_refused():
    gate = lambda rngs: Gate(1.0, rngs=rngs)  # noqa: E731
    with pytest.raises(ValueError, match="called 'stem'"):
        Supernet(gate, {"stem": gate}, gate)


def test_a_traced_arch_is_clamped_choice_by_choice_and_needs_its_length():
    layer = OneOf(
        one=lambda rngs: Gate(1.0, rngs=rngs), two=lambda rngs: Gate(2.0, rngs=rngs)
    )
    gate = lambda rngs: Gate(1.0, rngs=rngs)  # noqa: E731
    net = Supernet(gate, [layer, layer], gate)
    weights = net.init(jax.random.key(0), x := jnp.ones((1, 4)))
    out, _ = net.apply(*weights, jnp.array([9, -1]), x)
    assert float(out[0, 0]) == 2.0
    with pytest.raises(ValueError, match=r"shape \[2\].*got \[1\]"):
        net.apply(*weights, jnp.array([1]), x)
