"""Training as a function of the seed: the loop, the schedule, what stops it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracle import LR, Cycle, close, same_bits, sgd, start
from supernets import BY_NAME

from oneshot.data import Data
from oneshot.fitting import DivergedError, fit
from oneshot.losses import SmoothedCrossEntropy, accuracy, as_metrics, cross_entropy
from oneshot.strategies import Fixed, Planned, Uniform
from oneshot.train import Trainer


@pytest.fixture(scope="module")
def mixed():
    reference = BY_NAME["mixed"]
    net = reference.make()
    return reference, net, reference.weights(net)


@pytest.fixture(scope="module")
def trainer(mixed):
    net = mixed[1]
    return Trainer(net, Uniform(net.space), sgd, LR)


def shaken(key, x):
    return x + 0.1 * jax.random.normal(key, x.shape)


def run(trainer, state, data, steps, every=4):
    rows = []
    for found, new in fit(trainer, state, data, steps, batch_size=6, every=every):
        state = found
        rows += new
    return state, rows


def test_archs_are_a_function_of_seed_and_step(mixed):
    strategy = Uniform(mixed[1].space)
    plans = [strategy.plan((), 0, s) for s in range(20)]
    assert plans == [strategy.plan((), 0, s) for s in range(20)]
    assert plans != [strategy.plan((), 1, s) for s in range(20)]
    assert len({p[0].arch for p in plans}) > 5
    assert all(p == (Planned(p[0].arch, "labels", 1.0),) for p in plans)


def test_strategies_draw_over_archs_paths_or_distinct_networks(mixed):
    space = mixed[1].space
    for over in ("archs", "paths", "canonical"):
        arch = Uniform(space, over).plan((), 0, 3)[0].arch
        assert space.check(arch) == arch
    assert Fixed((1, 2)).plan(Fixed((1, 2)).init(), 5, 9) == (Planned((1, 2)),)


@pytest.mark.slow
def test_a_run_is_the_same_whether_interrupted_or_not(mixed, trainer):
    reference, _, weights = mixed
    data = reference.data(augment=shaken)
    whole, rows = run(trainer, start(trainer, weights), data, 10)
    half, first = run(trainer, start(trainer, weights), data, 5)
    assert half.step == 5 and len(first) == 5
    resumed, rest = run(trainer, half, data, 10, every=3)
    assert first + rest == rows and resumed.step == whole.step == 10
    assert same_bits((resumed.weights, resumed.optimizer), (whole[2], whole[3]))


def test_another_seed_is_another_run(mixed, trainer):
    reference, _, weights = mixed
    data = reference.data()
    a, b = (run(trainer, start(trainer, weights, s), data, 4)[1] for s in (0, 1))
    assert [r["arch"] for r in a] != [r["arch"] for r in b]
    assert [r["loss"] for r in a] != [r["loss"] for r in b]


def test_rows_say_what_each_step_did(mixed, trainer):
    reference, net, weights = mixed
    state, rows = run(trainer, start(trainer, weights), reference.data(), 5, every=2)
    assert [r["step"] for r in rows] == list(range(5))
    for row in rows:
        assert net.space.check(row["arch"]) and np.isfinite(row["loss"])
        assert row["learning_rate"] == pytest.approx(LR)
        assert 0 <= row["accuracy"] <= 1
    assert run(trainer, state, reference.data(), 5) == (state, [])


@pytest.mark.slow
def test_the_logged_norm_is_that_of_the_whole_gradient(mixed):
    reference, net, weights = mixed
    plain = Trainer(net, Uniform(net.space), optax.sgd, 1.0, clip_norm=1e-3)
    arch = reference.archs(net, 1)[0]
    plain = plain.with_strategy(Fixed(arch), 1.0)
    state, metrics = plain.step(start(plain, weights), reference.batch())
    assert metrics.host()["gradient_norm"] > 1e-3
    moved = jax.tree.map(
        lambda a, b: np.sum((a - b) ** 2), weights[0], state.weights[0]
    )
    length = np.sqrt(sum(map(float, jax.tree.leaves(moved))))
    assert length == pytest.approx(1e-3, rel=1e-3)  # clipped, at rate 1


def test_a_loss_that_is_not_finite_stops_training_in_words(mixed):
    reference, net, weights = mixed
    wild = Trainer(net, Uniform(net.space), sgd, 1e18)
    handed = []
    with pytest.raises(DivergedError, match=r"(?s)became.*arch \[.*rate 1e\+18.*Lower"):
        for state, _ in fit(
            wild, start(wild, weights), reference.data(), 40, batch_size=6, every=1
        ):
            handed.append(state.step)
    assert handed and handed == list(range(1, len(handed) + 1))


@pytest.mark.parametrize("label", [-1, 5])
def test_labels_out_of_range_are_refused_before_training(mixed, trainer, label):
    reference, _, weights = mixed
    x, y = reference.batch(12)
    y[3] = label
    data = Data.from_arrays((x, y), validate=reference.batch(4))
    with pytest.raises(ValueError, match="Labels go from.*returns 5 logits"):
        next(fit(trainer, start(trainer, weights), data, 2, batch_size=4))


def test_a_mean_over_examples_is_refused_before_training(mixed):
    reference, net, weights = mixed
    mean = lambda outputs, y: jnp.mean(cross_entropy(outputs, y))  # noqa: E731
    trainer = Trainer(net, Uniform(net.space), sgd, LR, loss=mean)
    with pytest.raises(ValueError, match=r"'loss' returns one number.*returned \[\]"):
        run(trainer, start(trainer, weights), reference.data(), 2)


def test_a_loss_may_need_the_targets_that_augmentation_makes(mixed):
    reference, net, weights = mixed
    soft = lambda outputs, y: optax.softmax_cross_entropy(outputs, y)  # noqa: E731
    trainer = Trainer(net, Uniform(net.space), sgd, LR, loss=soft)
    shares = lambda key, x, y: (x, jax.nn.one_hot(y, 5))  # noqa: E731
    data = dataclasses.replace(reference.data(), augment=shares)
    state, _ = run(trainer, start(trainer, weights), data, 1)
    assert state.step == 1


@pytest.mark.parametrize("option", ["accumulate", "every"])
def test_a_loop_of_nothing_is_refused(mixed, trainer, option):
    reference, _, weights = mixed
    state = start(trainer, weights)
    with pytest.raises(ValueError, match="both at least 1, but got"):
        next(fit(trainer, state, reference.data(), 2, batch_size=6, **{option: 0}))


@pytest.mark.slow
def test_a_schedule_counts_the_steps_of_the_run(mixed):
    reference, net, weights = mixed
    schedule = optax.cosine_decay_schedule(0.1, 6)
    arch = reference.archs(net, 1)[0]
    batch = reference.batch()
    trainer = Trainer(net, Uniform(net.space), lambda lr: optax.sgd(lr, 0.9), schedule)
    trainer = trainer.with_strategy(Fixed(arch), schedule)
    state, rates = start(trainer, weights), []
    for _ in range(5):
        state, metrics = trainer.step(state, batch)
        rates.append(metrics.host()["learning_rate"])
    np.testing.assert_allclose(rates, [schedule(i) for i in range(5)], rtol=1e-6)
    close(state.weights, plain_loop(net, arch, weights, batch, schedule), 3e-4)


def plain_loop(net, arch, weights, batch, schedule):
    """What anybody writes with optax, the schedule inside the optimizer."""
    path = net.path(arch)
    names = {step.module for step in path}
    params, state = ({m: part[m] for m in names} for part in weights)
    optimizer = optax.sgd(schedule, 0.9)

    @jax.jit
    def step(params, state, opt, x, y):
        def loss(params):
            out, new = net.apply(params, state, arch, x, train=True, key=None)
            return cross_entropy(out, y).mean(), new

        gradient, new = jax.grad(loss, has_aux=True)(params)
        updates, opt = optimizer.update(gradient, opt, params)
        return optax.apply_updates(params, updates), new, opt

    opt = optimizer.init(params)
    for _ in range(5):
        params, state, opt = step(params, state, opt, *batch)
    return type(weights)({**weights[0], **params}, {**weights[1], **state})


def test_weights_to_start_from_are_copied(mixed, trainer):
    reference, _, weights = mixed
    given = jax.tree.map(jnp.asarray, weights)
    batch = reference.batch()
    state = trainer.init(0, batch[0], given)
    for _ in range(2):
        state, _ = trainer.step(state, batch)
    assert same_bits(given, weights)  # not given up to the steps
    assert not same_bits(state.weights, weights)


@pytest.mark.slow
def test_a_new_run_begins_with_the_weights_of_its_seed():
    reference = BY_NAME["elastic_width"]
    net = reference.make()
    trainer = Trainer(net, Uniform(net.space), sgd, LR)
    a, again, b = (trainer.init(s, reference.batch()[0]) for s in (0, 0, 1))
    assert same_bits(a.weights, again.weights) and not same_bits(a.weights, b.weights)
    assert (a.step, a.seed, a.strategy) == (0, 0, None)
    shapes = trainer.abstract()
    want = jax.tree.map(lambda s: (s.shape, s.dtype), shapes)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), (a.weights, a.optimizer)) == want


def test_another_strategy_shares_the_programs(mixed, trainer):
    reference, net, weights = mixed
    arch = reference.archs(net, 1)[0]
    fixed = trainer.with_strategy(Cycle(((Planned(arch),),)), 0.1)
    fixed.step(start(fixed, weights), reference.batch())
    before = trainer.engine.num_programs
    again = trainer.with_strategy(Fixed(arch), optax.constant_schedule(0.3))
    _, metrics = again.step(start(again, weights), reference.batch())
    assert trainer.engine.num_programs == before
    assert metrics.host()["learning_rate"] == pytest.approx(0.3)


def test_losses_have_one_value_for_each_example():
    logits = jnp.array([[0.0, 0.0], [0.0, np.log(3.0)]])
    labels = jnp.array([0, 1])
    want = [np.log(2), np.log(4 / 3)]
    np.testing.assert_allclose(cross_entropy(logits, labels), want, rtol=1e-6)
    np.testing.assert_array_equal(accuracy(logits, labels), [1, 1])
    smooth = SmoothedCrossEntropy(0.2)(logits, labels)
    by_hand = [np.log(2), 0.9 * np.log(4 / 3) + 0.1 * np.log(4)]
    np.testing.assert_allclose(smooth, by_hand, rtol=1e-6)


def test_metrics_need_a_loss():
    assert set(as_metrics(cross_entropy)) == {"loss", "accuracy"}
    assert set(as_metrics(SmoothedCrossEntropy(0.1))) == {"loss"}
    with pytest.raises(ValueError, match="called 'loss'.*'accuracy'"):
        as_metrics({"accuracy": accuracy})


@pytest.mark.parametrize("bound", [0, -1.0, float("nan")])
def test_a_bound_that_would_turn_gradients_round_is_refused(mixed, bound):
    _, net, _ = mixed
    with pytest.raises(ValueError, match="`clip_norm` is above 0.*Leave it out"):
        Trainer(net, Uniform(net.space), sgd, LR, clip_norm=bound)
