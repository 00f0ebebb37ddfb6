"""Relaxed archs: mixtures, what is drawn, learning, resuming, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracle import close, same_bits, sgd
from scipy.stats import chisquare
from supernets import BY_NAME, linear

from oneshot import Data, Identity, OneOf, Supernet, checkpoint, fit
from oneshot.freezing import Freeze
from oneshot.losses import cross_entropy
from oneshot.momentum import Separated
from oneshot.rates import ComplexityAware
from oneshot.relaxation import Mixture, Relaxation, discretized, run_mixture
from oneshot.relaxed import RelaxedTrainer, halves
from oneshot.supernet import Weights

KEY = jax.random.key(3)


@pytest.fixture(scope="module", params=["mixed", "carried"])
def case(request):
    reference = BY_NAME[request.param]
    net = reference.make()
    return reference, net, reference.weights(net)


def one_hot(net, arch):
    pairs = zip(arch, net.space.choices, strict=True)
    return tuple(jax.nn.one_hot(o, len(c.options)) for o, c in pairs)


@pytest.mark.parametrize("drawn", [False, True])
def test_a_mixture_of_one_arch_is_that_arch(case, drawn):
    reference, net, weights = case
    x = reference.batch()[0]
    for arch in reference.archs(net, 3):
        places = tuple(jnp.int32(o) for o in arch) if drawn else None
        mixture = Mixture(one_hot(net, arch), places)
        got, state = run_mixture(net, weights, mixture, x, key=KEY)
        want, expected = net.apply(*weights, arch, x, train=True, key=KEY)
        close(got, want)
        if not drawn:  # every option ran, and moved its running averages
            continue
        on = {step.module for step in net.path(arch)}
        close({m: state[m] for m in on}, {m: expected[m] for m in on})


def test_a_darts_layer_is_the_weighted_sum_of_its_options():
    net = Supernet(linear(12, 8), [OneOf(skip=Identity, a=linear(8, 8))], linear())
    x = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
    weights = net.init(KEY, x)
    mixture = Relaxation().mixture([jnp.array([0.3, -0.4])], jnp.int32(0), KEY)
    got = run_mixture(net, weights, mixture, x)[0]
    stem, layer, head = (weights.params[m] for m in ("stem", "layer0.a", "head"))
    h, p = (
        x @ stem["kernel"] + stem["bias"][None],
        jax.nn.softmax(jnp.array([0.3, -0.4])),
    )
    h = p[0] * h + p[1] * (h @ layer["kernel"] + layer["bias"][None])
    np.testing.assert_allclose(got, h @ head["kernel"] + head["bias"][None], rtol=1e-4)


def test_gdas_draws_by_the_softmax_and_passes_its_gradient():
    logits = [jnp.array([0.5, -0.5, 0.0])]
    relaxation = Relaxation("gdas", 5.0, 5.0)
    keys = jax.random.split(KEY, 3000)
    draw = jax.vmap(lambda key: relaxation.mixture(logits, 0, key).drawn[0])
    counts = np.bincount(draw(keys), minlength=3)
    want = np.asarray(jax.nn.softmax(logits[0]), float)
    assert chisquare(counts, want / want.sum() * 3000).pvalue > 1e-3

    def weight(logits, i):
        return relaxation.mixture(logits, 0, KEY).weights[0][i]

    values = [float(weight(logits, i)) for i in range(3)]
    np.testing.assert_allclose(sorted(values), [0, 0, 1], atol=1e-6)
    slopes = [jax.grad(weight)(logits, i)[0] for i in range(3)]
    # Those of the softmax of the noisy logits at the temperature, 5.
    noise = jax.random.gumbel(jax.random.fold_in(KEY, 0), (3,))
    soft = np.asarray(jax.nn.softmax((jax.nn.log_softmax(logits[0]) + noise) / 5))
    want = (np.diag(soft) - np.outer(soft, soft)) / 5
    np.testing.assert_allclose(slopes, want, atol=1e-6)


def test_the_temperature_falls_in_equal_steps():
    relaxation = Relaxation("darts", 4.0, 1.0, steps=4)
    logits = [jnp.array([1.0, 0.0])]
    for step, temperature in ((0, 4), (1, 3), (2, 2), (3, 1), (9, 1)):
        got = relaxation.mixture(logits, jnp.int32(step), KEY).weights[0]
        np.testing.assert_allclose(got, jax.nn.softmax(logits[0] / temperature), 1e-5)


class Useless(nnx.Module):
    """Forgets its input."""

    def __init__(self, *, rngs):
        self.scale = nnx.Param(jnp.ones(8))

    def __call__(self, x):
        return jnp.zeros_like(x) * self.scale[None]


def useful(kind, steps=150):
    """Return (trainer, data) of a space in which one option of each layer is right."""
    layer = {"forget": Useless, "keep": Identity}
    net = Supernet(linear(6, 8), [OneOf(**layer), OneOf(**layer)], linear(8, 3))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 6)).astype(np.float32)
    data = Data.from_arrays(
        (x, (x @ rng.normal(size=(6, 3))).argmax(-1)), validate=0.25
    )
    relaxation = Relaxation(kind, 2.0, 1.0, steps)
    weights_data, arch_data = halves(data)
    rates = {"darts": 0.05, "gdas": 0.05}
    trainer = RelaxedTrainer(
        net,
        relaxation,
        sgd,
        0.1,
        search=arch_data,
        clip_norm=5.0,
        arch_optimizer=optax.adam(rates[kind], b1=0.5),
    )
    return trainer, weights_data


def test_a_darts_step_moves_the_arch_by_its_own_batch_and_then_the_weights():
    """First order: the arch by the old weights, then the weights by the new arch."""
    trainer, data = useful("darts")
    net, x = trainer.supernet, data.train.x[:32]
    start = jax.device_get(trainer.init(0, x))
    state, metrics = trainer.step(trainer.init(0, x), (x, data.train.y[:32]))
    searched = trainer.search.batches(0, 32, trainer.engine)(0)
    soft = trainer.relaxation

    def loss(params, logits, batch):
        mixture = soft.mixture(logits, jnp.int32(0), KEY)
        weights = Weights(params, start.weights.state)
        outputs = run_mixture(net, weights, mixture, batch[0], key=KEY)[0]
        return jnp.mean(cross_entropy(outputs, batch[1]))

    logits = [jnp.zeros(2), jnp.zeros(2)]
    slopes = jax.grad(loss, 1)(start.weights.params, logits, searched)
    adam = optax.adam(0.05, b1=0.5)
    moves, _ = adam.update(slopes, adam.init(logits), logits)
    logits = optax.apply_updates(logits, moves)
    close(trainer.logits(state), jax.device_get(logits), 1e-5)
    batch = x, data.train.y[:32]
    value, own = jax.value_and_grad(loss)(start.weights.params, logits, batch)
    assert metrics.host()["loss"] == pytest.approx(float(value), rel=1e-5)
    norm = optax.tree.norm(own)
    scale = min(1.0, 5.0 / float(norm))
    make = sgd(0.1)
    for module, params in start.weights.params.items():
        scaled = jax.tree.map(lambda g: g * scale, own[module])
        moves, _ = make.update(scaled, make.init(params), params)
        close(state.weights.params[module], optax.apply_updates(params, moves), 1e-4)


def test_labels_that_the_arch_learns_from_are_checked():
    trainer, data = useful("darts")
    train = trainer.search.train
    train.y[2] = 7
    state = trainer.init(0, data.train.x[:8])
    with pytest.raises(ValueError, match="Labels go from.*to 7.*returns 3 logits"):
        next(fit(trainer, state, data, 1, batch_size=8))


def test_what_would_be_ignored_is_refused():
    trainer, _ = useful("darts")
    net, rest = trainer.supernet, {"search": trainer.search}
    apart = Separated(sgd, net.space, net.space.choices[0].name)
    for optimizer, rate, words in (
        (apart, 0.1, "`Separated` would be ignored"),
        (Freeze(sgd, "stem/*"), 0.1, "`Freeze` would be ignored"),
        (sgd, ComplexityAware(0.1, 10, sum, 1, 2), "is no one network"),
    ):
        with pytest.raises(ValueError, match=words):
            RelaxedTrainer(net, Relaxation(), optimizer, rate, **rest)


@pytest.mark.parametrize("kind", ["darts", "gdas"])
def test_the_options_that_work_are_found(kind):
    trainer, data = useful(kind)
    state, losses = trainer.init(0, data.train.x[:32]), []
    for last, rows in fit(trainer, state, data, steps=150, batch_size=32):
        losses += [row["loss"] for row in rows]
        state = last
    assert trainer.arch(state) == (1, 1)
    assert np.mean(losses[-20:]) < np.mean(losses[:20])


@pytest.mark.parametrize("kind", ["darts", "gdas"])
def test_a_resumed_relaxed_run_equals_the_uninterrupted_one(kind, tmp_path):
    trainer, data = useful(kind)
    batches = data.batches(0, 32, trainer.engine)
    state = trainer.init(0, data.train.x[:32])
    for step in range(6):
        if step == 3:
            checkpoint.save(tmp_path, trainer.supernet, state)
        state, _ = trainer.step(state, batches(step))
    again = checkpoint.restore(tmp_path, useful(kind)[0])
    assert again.step == 3
    trainer = useful(kind)[0]
    for step in range(3, 6):
        again, _ = trainer.step(again, batches(step))
    assert same_bits(again.weights, state.weights)
    assert again.strategy == state.strategy


def test_halves_are_apart_and_whole():
    data = useful("darts")[1]
    first, second = halves(data)
    rows = {tuple(x) for x in first.train.x} | {tuple(x) for x in second.train.x}
    assert len(first.train.x) + len(second.train.x) == len(data.train.x) == len(rows)
    assert first.validate is data.validate


def test_the_likeliest_options_make_the_arch():
    space = BY_NAME["mixed"].make().space
    logits = [np.eye(len(c.options))[-1] for c in space.choices]
    assert discretized(space, logits) == tuple(
        len(c.options) - 1 for c in space.choices
    )


def test_options_of_unequal_shapes_are_refused():
    reference = BY_NAME["elastic_width"]
    net = reference.make()
    logits = [jnp.zeros(len(c.options)) for c in net.space.choices]
    mixture = Relaxation().mixture(logits, jnp.int32(0), KEY)
    with pytest.raises(ValueError, match="return different shapes"):
        run_mixture(net, reference.weights(net), mixture, reference.batch()[0], key=KEY)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"kind": "enas"}, "'enas'"),
        ({"hot": 0.0}, "hot=0.0"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_relaxations_that_make_no_sense_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(Relaxation(), **change)
