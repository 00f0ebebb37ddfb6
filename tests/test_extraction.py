"""Extracted models: really cut, ordinary to train, free of the supernet."""

import gc
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracle import close, same_bits
from supernets import BY_NAME

from oneshot.engine import Engine
from oneshot.extraction import extract
from oneshot.functional import Functional
from oneshot.losses import cross_entropy
from oneshot.supernet import Supernet


@pytest.fixture(scope="module")
def wide():
    reference = BY_NAME["elastic_width"]
    net = reference.make()
    return reference, net, reference.weights(net)


@pytest.fixture(scope="module")
def mixed():
    reference = BY_NAME["mixed"]
    net = reference.make()
    return reference, net, reference.weights(net)


call = nnx.jit(lambda model, x: model(x))


def parts(model):
    return [part.module for part in model.parts]


def test_elastic_slices_are_really_cut(wide):
    reference, net, weights = wide
    arch = net.space.arch({"width": 4, "layer0.op": "wide", "layer1.op": "skip"})
    stem, layer, head = parts(extract(net, weights, arch, reference.batch()[0]))
    assert stem.kernel.shape == (12, 4) and layer.kernel.shape == (4, 4)
    assert head.kernel.shape == (4, 5) and head.bias.shape == (1, 5)
    for norm in (stem.norm, layer.norm):
        arrays = (norm.scale, norm.bias, norm.mean, norm.var)
        assert [a.shape for a in arrays] == [(4,)] * 4
    kernel = weights.params["layer0.wide"]["kernel"]
    np.testing.assert_array_equal(layer.kernel[...], kernel[:4, :4])


def test_a_centred_slice_is_cut_from_the_middle():
    reference = BY_NAME["tiny"]
    net = reference.make()
    weights = reference.weights(net)
    arch = net.space.arch({"stage1.depth": 1})  # expand 1, kernel 3
    model = extract(net, weights, arch, reference.batch()[0], recalibrate=False)
    block = parts(model)[1]
    whole = weights.params["stage1.0"]["depthwise_kernel"]
    assert whole.shape == (5, 5, 8) and block.depthwise_kernel.shape == (3, 3, 4)
    np.testing.assert_array_equal(block.depthwise_kernel[...], whole[1:4, 1:4, :4])
    assert block.expand_norm.mean.shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elastic_width", "carried", "transformer"])
def test_a_model_trains_in_a_plain_loop_and_stays_cut(name):
    reference = BY_NAME[name]
    net = reference.make()
    arch = reference.archs(net, 1, seed=2)[0]
    x, y = reference.batch(16)
    model = extract(net, reference.weights(net), arch, x)
    shapes = jax.tree.map(jnp.shape, nnx.state(model))
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss(model):
            return cross_entropy(model(x), y).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    model.train()
    losses = [float(step(model, optimizer, x, y)) for _ in range(25)]
    assert losses[-1] < 0.6 * losses[0]
    assert jax.tree.map(jnp.shape, nnx.state(model)) == shapes
    after = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    moved = jax.tree.map(lambda a, b: (a != b).any(), before, after)
    assert all(jax.tree.leaves(moved))


def test_training_moves_the_averages_and_evaluation_uses_them(mixed):
    reference, net, weights = mixed
    arch = net.space.arch({"first.op": "mlp", "first.mlp.hidden": 4})
    x = reference.batch()[0]
    model = extract(net, weights, arch, x)
    frozen = call(model, x)
    assert same_bits(call(model, x), frozen)  # eval mode from the start
    before = np.asarray(parts(model)[1].norm.mean[...])
    model.train()
    call(model, x**3)
    after = np.asarray(parts(model)[1].norm.mean[...])
    assert before.shape == after.shape == (4,) and not np.allclose(before, after)
    model.eval()
    assert not np.allclose(call(model, x), frozen)


def test_dropout_draws_anew_at_each_call_of_training(mixed):
    reference, net, weights = mixed
    arch, x = net.space.arch({"first.op": "dropped"}), reference.batch()[0]
    models = [extract(net, weights, arch, x, seed=s) for s in (0, 0, 1)]
    for model in models:
        model.train()
    first, again, other = (call(model, x) for model in models)
    assert same_bits(first, again) and not np.allclose(first, other)
    assert not np.allclose(call(models[0], x), first)
    models[0].eval()
    models[1].eval()
    assert same_bits(call(models[0], x), call(models[0], x))


def test_the_batch_size_may_change(mixed):
    reference, net, weights = mixed
    arch = reference.archs(net, 1)[0]
    x = reference.batch(9)[0]
    model = extract(net, weights, arch, x)
    whole = call(model, x)
    close(call(model, x[:1]), np.asarray(whole)[:1], 1e-5)
    close(call(model, np.concatenate([x, x]))[9:], whole, 1e-5)


def test_a_model_knows_nothing_of_the_supernet(wide):
    reference, net, weights = wide
    arch = net.space.arch({"width": 4})
    model = extract(net, weights, arch, reference.batch()[0])
    found = reachable_from(model)
    assert not [o for o in found if isinstance(o, Supernet | Functional | Engine)]
    largest = max(o.size for o in found if isinstance(o, jax.Array | np.ndarray))
    assert largest <= 12 * 4  # nor any of its full-size weights


def reachable_from(root):
    """Everything that an object holds, but for code, types and modules."""
    seen, todo = {}, [root]
    while todo:
        one = todo.pop()
        code = isinstance(one, type | type(gc)) or hasattr(one, "__globals__")
        if id(one) in seen or code:
            continue
        seen[id(one)] = one
        if not isinstance(one, jax.Array | np.ndarray):
            todo += gc.get_referents(one)
    return list(seen.values())


def test_its_arrays_are_its_own(wide):
    reference, net, weights = wide
    weights = jax.tree.map(jnp.asarray, weights)
    arch = net.space.arch({"width": 9})
    model = extract(net, weights, arch, reference.batch()[0])
    held = {id(leaf) for leaf in jax.tree.leaves(weights)}
    mine = jax.tree.leaves(nnx.state(model))
    assert not held & {id(leaf) for leaf in mine}
    pointers = {a.unsafe_buffer_pointer() for a in jax.tree.leaves(weights)}
    assert not pointers & {a.unsafe_buffer_pointer() for a in mine}


def test_its_state_can_be_saved_and_put_back(wide):
    reference, net, weights = wide
    arch, x = net.space.arch({"width": 6}), reference.batch()[0]
    model = extract(net, weights, arch, x)
    saved = pickle.dumps(jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model))))
    blank = jax.tree.map(lambda a: 0 * a, weights)
    other = extract(net, blank, arch, x, recalibrate=False)
    assert not same_bits(call(other, x), call(model, x))
    state = nnx.state(other)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, pickle.loads(saved)))
    nnx.update(other, state)
    close(call(other, x), call(model, x), 1e-6)


def test_gradients_are_those_of_the_supernet(mixed):
    reference, net, weights = mixed
    arch = net.space.arch({"first.op": "mlp", "first.mlp.hidden": 4, "stage.depth": 2})
    x, y = reference.batch()
    model = extract(net, weights, arch, x, recalibrate=False)

    def loss(model):
        return cross_entropy(model(x), y).mean()

    got = nnx.jit(nnx.grad(loss))(model)

    def plain(params):
        out = net.apply(params, weights.state, arch, x)[0]
        return cross_entropy(out, y).mean()

    want = jax.jit(jax.grad(plain))(weights.params)["first.mlp"]
    mine = nnx.to_pure_dict(got)["parts"][1]["module"]
    close(mine["up"], want["up"][:, :4], 1e-4)
    close(mine["down"], want["down"][:4], 1e-4)
    assert not np.any(want["up"][:, 4:])


def test_a_model_may_be_closed_over_in_evaluation(wide):
    reference, net, weights = wide
    x = reference.batch()[0]
    model = extract(net, weights, net.space.arch({"width": 4}), x)
    close(jax.jit(lambda x: model(x))(x), call(model, x), 1e-6)


def test_a_wrong_arch_is_refused(wide):
    reference, net, weights = wide
    with pytest.raises(ValueError, match="one per choice, but got 1"):
        extract(net, weights, (0,), reference.batch()[0])
