"""Weights split over a mesh train, score and reload as those of one device do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec
from oracle import close
from supernets import BY_NAME

from oneshot import Evaluator, Fixed, Supernet, Trainer, Uniform
from oneshot.checkpoint import restore, save
from oneshot.optimizer import adamw, sgd
from oneshot.sharding import ByPath, FullySharded

AUTO = jax.sharding.AxisType.Auto
WHOLE = FullySharded(smallest=16)
MEGATRON = ByPath(
    [
        ("(gate|up)_proj/kernel", PartitionSpec(None, "parameters")),
        ("down_proj/kernel", PartitionSpec("parameters")),
        ("[qkv]_proj/kernel", PartitionSpec(None, "parameters")),
    ]
)


def mesh_of(data: int, parameters: int):
    return jax.make_mesh(
        (data, parameters), ("data", "parameters"), axis_types=(AUTO, AUTO)
    )


@pytest.fixture(scope="module")
def decoder():
    reference = BY_NAME["decoder"]
    net = reference.make()
    batches = [reference.batch(8, seed) for seed in range(6)]
    return net, batches, reference


def trainer_of(net, mesh=None, **options):
    return Trainer(
        net, Uniform(net.space), adamw(), 0.01, mesh=mesh, clip_norm=1.0, **options
    )


def train(trainer, state, batches):
    losses = []
    for batch in batches:
        state, metrics = trainer.step(state, batch)
        losses.append(metrics.host()["loss"])
    return state, losses


@pytest.fixture(scope="module")
def alone(decoder):
    net, batches, _ = decoder
    trainer = trainer_of(net)
    return train(trainer, trainer.init(0, batches[0][0]), batches)


def held(tree) -> float:
    """The share of the numbers of a tree that its first device holds."""
    leaves = jax.tree.leaves(tree)
    parts = sum(leaf.addressable_shards[0].data.size for leaf in leaves)
    return parts / sum(leaf.size for leaf in leaves)


CASES = {
    "four parts": (mesh_of(1, 4), WHOLE, 0.45),
    "two by two": (mesh_of(2, 2), WHOLE, 0.6),
    "by path": (mesh_of(2, 2), MEGATRON, 0.8),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_split_weights_train_as_whole_ones_do(case, decoder, alone):
    mesh, layout, share = CASES[case]
    net, batches, _ = decoder
    trainer = trainer_of(net, mesh, layout=layout)
    state = trainer.init(0, batches[0][0])
    assert held(state.weights.params) < share  # also when nothing is trained yet
    state, losses = train(trainer, state, batches)
    np.testing.assert_allclose(losses, alone[1], rtol=1e-4)
    assert held((state.weights.params, state.optimizer)) < share
    for got, want in zip(
        jax.tree.leaves(state.weights), jax.tree.leaves(alone[0].weights), strict=True
    ):  # Adam divides small gradients by their size
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=2e-4)


@pytest.mark.slow
def test_split_weights_are_scored_as_whole_ones_are(decoder, alone):
    net, batches, reference = decoder
    data, archs = reference.data(), reference.archs(net, 6)
    want = Evaluator(net, data)(alone[0].weights, archs)
    trainer = trainer_of(net, mesh_of(2, 2), layout=WHOLE)
    weights = trainer.engine.put_weights(jax.device_get(alone[0].weights))
    assert held(weights.params) < 0.6
    got = Evaluator(net, data, engine=trainer.engine)(weights, archs)
    np.testing.assert_allclose(got.loss, want.loss, rtol=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_other_parts(decoder, alone, tmp_path):
    net, batches, _ = decoder
    trainer = trainer_of(net, mesh_of(1, 4), layout=WHOLE)
    state, _ = train(trainer, trainer.init(0, batches[0][0]), batches[:3])
    kept = jax.device_get(state.weights)
    save(tmp_path, net, state)
    for other in (trainer_of(net, mesh_of(2, 2), layout=WHOLE), trainer_of(net)):
        found = restore(tmp_path, other)
        jax.tree.map(np.testing.assert_array_equal, found.weights, kept)
        assert (held(found.optimizer) < 0.6) == (other.engine.mesh is not None)
        _, losses = train(other, found, batches[3:])
        np.testing.assert_allclose(losses, alone[1][3:], rtol=1e-4)


def test_each_axis_is_split_where_the_devices_divide_it():
    mesh = mesh_of(1, 4)
    assert WHOLE("a/kernel", (6, 8), mesh) == PartitionSpec(None, "parameters")
    assert WHOLE("a/kernel", (16, 8), mesh) == PartitionSpec("parameters")
    assert WHOLE("a/kernel", (6, 10), mesh) == PartitionSpec()
    assert WHOLE("a/bias", (8,), mesh) == PartitionSpec()  # small


def test_the_first_rule_counts_and_matches_whole_names():
    first, second = PartitionSpec("parameters"), PartitionSpec(None, "parameters")
    rules = ByPath([("up_proj/kernel", first), ("kernel", second)], WHOLE)
    mesh = mesh_of(1, 4)
    assert rules("mlp/up_proj/kernel", (4, 4), mesh) == first
    assert rules("0/mu/mlp/up_proj/kernel", (4, 4), mesh) == first
    assert rules("mlp/cup_proj/kernel", (4, 4), mesh) == second
    assert rules("up_proj/bias", (16,), mesh) == PartitionSpec("parameters")


@pytest.mark.parametrize("start", [".+/kernel", "down_proj/kernel", "mlp/.*"])
def test_an_array_is_laid_out_alike_wherever_it_comes_from(start, decoder, tmp_path):
    """Fresh, given, reloaded: no step says that its inputs lie elsewhere."""
    net, batches, _ = decoder
    layout = ByPath([(start, PartitionSpec("parameters"))])
    trainer = trainer_of(net, mesh_of(2, 2), layout=layout)
    fresh = trainer.init(0, batches[0][0])
    given = trainer.init(0, batches[0][0], fresh.weights)
    save(tmp_path, net, given)
    for state in (given, restore(tmp_path, trainer)):
        for name in ("weights", "optimizer"):
            jax.tree.map(
                lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim) or 1 / 0,
                getattr(state, name),
                getattr(fresh, name),
            )
    arch = tuple(len(c.options) - 1 for c in net.space.choices)
    strategy = Fixed(arch)
    held = trainer.with_strategy(strategy, 0.01)
    held.step(given._replace(strategy=strategy.init()), batches[0])


class Listed(nnx.Module):
    """Layers in a list, whose arrays have names alike, and a number."""

    def __init__(self, *, rngs):
        shapes = ((8, 16), (16, 8))
        self.layers = nnx.List([nnx.Linear(*s, rngs=rngs) for s in shapes])
        self.kernel = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return self.layers[1](self.layers[0](x)) * self.kernel


@pytest.mark.parametrize(
    "layout", [WHOLE, ByPath([("kernel", PartitionSpec("parameters"))])]
)
def test_momentum_lies_where_its_weight_does(layout):
    make = lambda rngs: Listed(rngs=rngs)  # noqa: E731
    net = Supernet(make, [], lambda rngs: nnx.Linear(8, 4, rngs=rngs))
    trainer = trainer_of(net, mesh_of(1, 4), layout=layout)
    x = np.ones((4, 8), np.float32)
    state = trainer.init(0, x)
    own = jax.tree.leaves(state.weights.params["stem"])
    of = {a.shape: a.sharding for a in own}
    assert len(of) == len(own)  # a shape tells which array it is of
    moments = [a for a in jax.tree.leaves(state.optimizer["stem"]) if a.shape in of]
    assert len(moments) >= 2 * len(own)
    for moment in moments:
        assert moment.sharding.is_equivalent_to(of[moment.shape], moment.ndim)
    trainer.step(state, (x, np.zeros(4, np.int32)))


def test_what_an_optimizer_keeps_in_another_shape_is_copied(decoder):
    net, batches, _ = decoder

    def factored(lr):
        return optax.adafactor(lr, min_dim_size_to_factor=2)

    layout = ByPath([("down_proj/kernel", PartitionSpec("parameters"))])
    trainer = Trainer(
        net, Uniform(net.space), factored, 0.01, mesh=mesh_of(2, 2), layout=layout
    )
    state = trainer.init(0, batches[0][0])
    split = [
        a.shape
        for a in jax.tree.leaves(state.optimizer)
        if not a.sharding.is_fully_replicated
    ]
    assert all(len(shape) == 2 for shape in split)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["static", "switch"])
def test_one_program_trains_split_weights(execution):
    reference = BY_NAME["mixed"]
    net, batch = reference.make(), reference.batch(8)
    weights = []
    for mesh in (None, mesh_of(2, 2)):
        options = {} if mesh is None else {"layout": WHOLE}
        # Not Adam: gradients before a BatchNorm are rounding, which it would enlarge.
        trainer = Trainer(
            net,
            Uniform(net.space),
            sgd(),
            0.05,
            mesh=mesh,
            execution=execution,
            **options,
        )
        state = trainer.init(0, batch[0], reference.weights(net))
        weights.append(trainer.step(state, batch)[0].weights)
    assert held(weights[1].params) < 0.7
    jax.tree.map(close, jax.device_get(weights[1]), jax.device_get(weights[0]))


@pytest.mark.parametrize(
    "mesh, layout, message",
    [
        (None, WHOLE, "devices of a mesh, but none was given"),
        (
            jax.make_mesh((4,), ("data",), axis_types=(AUTO,)),
            WHOLE,
            "axis 'parameters'",
        ),
        (mesh_of(1, 4), ByPath([("nothing", PartitionSpec())]), "'nothing'.*no array"),
        (
            mesh_of(1, 4),
            ByPath([("up_proj/kernel", PartitionSpec(None, "parameters"))]),
            r"up_proj/kernel, of shape \[8, 10\], into 4 parts",
        ),
        (
            mesh_of(1, 4),
            ByPath([("up_proj/kernel", PartitionSpec("model"))]),
            "over the axis 'model', but the mesh has",
        ),
        (
            mesh_of(1, 4),
            ByPath([("norm/scale", PartitionSpec(None, "parameters"))]),
            "more axes than its shape",
        ),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(mesh, layout, message, decoder):
    with pytest.raises(ValueError, match=message):
        trainer_of(decoder[0], mesh, layout=layout)
