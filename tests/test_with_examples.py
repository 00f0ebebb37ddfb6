"""Examples drawn by the norms of their gradients, inside training."""

import jax
import numpy as np
import pytest
from oracle import close
from supernets import BY_NAME

from oneshot import (
    Data,
    DataImportance,
    PathImportance,
    Restricted,
    Sandwich,
    Trainer,
    Uniform,
    WithExamples,
    fit,
)
from oneshot.checkpoint import restore, save
from oneshot.optimizer import sgd
from oneshot.randomness import DROPOUT, stream_key
from oneshot.reweighting import Drawn
from oneshot.strategies import last_layer_norms

REFERENCE = BY_NAME["mixed"]


@pytest.fixture(scope="module")
def net():
    return REFERENCE.make()


def trainer_of(net, examples=16, steps=4, execution="blocks"):
    importance = DataImportance(examples, steps=steps)
    strategy = WithExamples(PathImportance(net.space, steps=steps), importance)
    return Trainer(net, strategy, sgd(), 0.05, clip_norm=1e9, execution=execution)


def batch_of(n=8):
    x, y = REFERENCE.batch(n)
    weights = np.linspace(0.5, 1.5, n).astype(np.float32)
    return x, y, Drawn(y, weights, np.arange(n, dtype=np.int32))


@pytest.mark.parametrize("execution", ["blocks", "static", "switch"])
def test_the_loss_is_weighed_and_the_norms_are_of_its_gradients(net, execution):
    trainer = trainer_of(net, execution=execution)
    x, y, drawn = batch_of()
    state = trainer.init(0, x)
    arch = trainer.strategy.plan(state.strategy, 0, 0)[0].arch
    weights = jax.device_get(state.weights)
    key = jax.random.fold_in(stream_key(0, DROPOUT), 0)  # the first step's
    logits, _ = net.apply(*weights, arch, x, train=True, key=key)
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    losses = -np.log(powers / powers.sum(-1, keepdims=True))[np.arange(8), y]
    state, metrics = trainer.step(state, (x, drawn))
    row = metrics.host()
    assert row["loss"] == pytest.approx((drawn.weights * losses).mean(), rel=1e-5)
    assert set(row) >= {"loss", "accuracy"} and "places" not in row
    for norms in (metrics.logged[0]["gradient_norms"], state.strategy["examples"][:8]):
        np.testing.assert_allclose(norms, last_layer_norms(logits, y), rtol=1e-4)
    assert (state.strategy["examples"][8:] == -1).all()


def test_weights_of_one_change_nothing(net):
    x, y, drawn = batch_of()
    drawn = drawn._replace(weights=np.ones(8, np.float32))
    one = trainer_of(net)
    strategy = PathImportance(net.space, steps=4)
    other = Trainer(net, strategy, sgd(), 0.05, clip_norm=1e9)
    got, _ = one.step(one.init(0, x), (x, drawn))
    want, _ = other.step(other.init(0, x), (x, y))
    jax.tree.map(close, got.weights, want.weights)


def test_hard_examples_come_more_often(net):
    x, y = REFERENCE.batch(48)
    data = Data.from_arrays((x, y), calibrate=8, validate=1 / 3)
    trainer = trainer_of(net, examples=32, steps=5)
    trainer.warm_up((x[:8], y[:8]))
    programs, seen = trainer.engine.num_programs, np.zeros(32)
    state = trainer.init(0, x[:8])
    for last, rows in fit(trainer, state, data, 12, batch_size=8):
        state = last
        assert all(np.isfinite(row["loss"]) for row in rows)
    assert trainer.engine.num_programs == programs
    for step in range(12, 212):
        seen[trainer.strategy.draw(state.strategy, 0, step, 8)[0]] += 1
    norms = state.strategy["examples"]
    known = norms >= 0
    assert np.corrcoef(seen[known], norms[known])[0, 1] > 0.8


def test_a_run_that_was_saved_goes_on_as_one_that_was_not(net, tmp_path):
    data = Data.from_arrays(REFERENCE.batch(48), calibrate=8, validate=1 / 3)
    trainer = trainer_of(net, examples=32, steps=8)
    for state, _ in fit(trainer, start(trainer), data, 10, batch_size=8, every=5):
        if state.step == 5:  # tau still rises
            save(tmp_path, net, state)
    found = restore(tmp_path, trainer_of(net, examples=32, steps=8))
    other = trainer_of(net, examples=32, steps=8)
    for last, _ in fit(other, found, data, 10, batch_size=8):
        found = last
    for got, want in ((found.weights, state.weights), (found.strategy, state.strategy)):
        jax.tree.map(np.testing.assert_array_equal, got, want)


def start(trainer):
    return trainer.init(0, REFERENCE.batch(8)[0])


def test_students_are_weighed_and_norms_averaged_as_the_plan_says(net):
    x, _, drawn = batch_of()
    small, large = REFERENCE.archs(net, 2)
    paths = Sandwich(net.space, small, large, random=1)
    strategy = WithExamples(paths, DataImportance(16, steps=4))
    states = []
    for execution in ("blocks", "static"):
        trainer = Trainer(net, strategy, sgd(), 0.05, execution=execution)
        state, metrics = trainer.step(start(trainer), (x, drawn))
        states.append(jax.device_get(state.weights))
        norms = [np.asarray(one["gradient_norms"]) for one in metrics.logged]
        weights = [one.weight for one in metrics.plan]
        np.testing.assert_allclose(
            state.strategy["examples"][:8], np.average(norms, 0, weights), rtol=1e-5
        )
    jax.tree.map(close, *states)
    # Half of each weight halves every gradient, the students' too.
    half = Trainer(net, strategy, sgd(momentum=0.0), 0.1)
    whole = Trainer(net, strategy, sgd(momentum=0.0), 0.05)
    light = drawn._replace(weights=drawn.weights / 2)
    got, _ = half.step(start(half), (x, light))
    want, _ = whole.step(start(whole), (x, drawn))
    jax.tree.map(close, jax.device_get(got.weights), jax.device_get(want.weights))


def test_devices_observe_what_one_does(net):
    x, _, drawn = batch_of()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    strategy = WithExamples(Uniform(net.space), DataImportance(16, steps=4))
    states = []
    for devices in (None, mesh):
        trainer = Trainer(net, strategy, sgd(), 0.05, mesh=devices)
        states.append(trainer.step(start(trainer), (x, drawn))[0])
    np.testing.assert_allclose(*(s.strategy["examples"] for s in states), rtol=1e-4)


def test_what_does_not_fit_is_refused(net):
    x, y, drawn = batch_of()
    data = Data.from_arrays(REFERENCE.batch(48), calibrate=8, validate=1 / 3)
    trainer = trainer_of(net, examples=31)
    with pytest.raises(ValueError, match="31 examples, but the training split has 32"):
        next(fit(trainer, trainer.init(0, x), data, 2, batch_size=8))
    trainer = trainer_of(net, examples=32)
    with pytest.raises(ValueError, match="`accumulate` asks for 2"):
        next(fit(trainer, trainer.init(0, x), data, 2, batch_size=8, accumulate=2))
    state = trainer.init(0, x)
    with pytest.raises(ValueError, match="does not know which examples"):
        trainer.step(state, (x, y))
    with pytest.raises(ValueError, match="one batch a step, but got 2"):
        trainer.step(state, [(x, drawn), (x, drawn)])
    trainer.step(state, (x, drawn))  # the refused steps gave nothing up
    with pytest.raises(ValueError, match="is the outer one"):
        Restricted(net.space, {"hidden": 3}, trainer.strategy)
    plain = Trainer(net, Uniform(net.space), sgd(), 0.05)
    with pytest.raises(ValueError, match="a trainer whose losses weigh them"):
        plain.with_strategy(trainer.strategy, 0.1)
