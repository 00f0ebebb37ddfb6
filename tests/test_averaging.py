"""Averages of weights, and rates by complexity: values, saving, what is refused."""

import jax
import numpy as np
import pytest
from oracle import LR, Cycle, close, same_bits, sgd
from supernets import BY_NAME

from oneshot import Trainer, Uniform, checkpoint
from oneshot.averaging import Averaged, averages
from oneshot.freezing import Freeze
from oneshot.rates import ComplexityAware
from oneshot.strategies import Planned, PriorPairs

DECAY = 0.6


@pytest.fixture(scope="module")
def elastic():
    reference = BY_NAME["elastic_width"]
    return reference, reference.make()


def run(elastic, optimizer, rate=LR, steps=12):
    reference, net = elastic
    plans = tuple((Planned(arch),) for arch in reference.archs(net, 3))
    trainer = Trainer(net, Uniform(net.space), optimizer, rate)
    trainer = trainer.with_strategy(Cycle(plans), rate)
    x, _ = batch = reference.batch()
    state, states, rates = trainer.init(0, x, reference.weights(net)), [], []
    for _ in range(steps):
        states.append(jax.device_get(state))
        state, metrics = trainer.step(state, batch)
        rates.append(metrics.host()["learning_rate"])
    return trainer, [*states, jax.device_get(state)], rates, plans


def test_a_module_is_averaged_over_its_own_updates(elastic):
    trainer, states, _, plans = run(elastic, Averaged(sgd, DECAY))
    plain = run(elastic, sgd)[1]
    close(states[-1].weights, plain[-1].weights, 1e-6)  # training is as without
    average, visits = dict(states[0].weights.params), {}
    for i, (before, after) in enumerate(zip(states, states[1:], strict=False)):
        del before
        on = {s.module for s in elastic[1].path(plans[i % len(plans)][0].arch)}
        for m in on:
            n = visits.get(m, 0)
            share, visits[m] = 1 - min(DECAY, n / (1 + n)), n + 1
            average[m] = jax.tree.map(
                lambda old, new, s=share: old + s * (new - old),
                average[m],
                after.weights.params[m],
            )
    close(averages(states[-1]).params, average, 1e-5)
    assert same_bits(averages(states[-1]).state, states[-1].weights.state)
    assert not same_bits(averages(states[-1]).params, states[-1].weights.params)


def test_averages_are_saved_with_the_run(elastic, tmp_path):
    reference, net = elastic
    trainer = Trainer(net, Uniform(net.space), Averaged(sgd, DECAY), LR)
    state = trainer.init(0, reference.batch()[0])
    for _ in range(3):
        state, _ = trainer.step(state, reference.batch())
    checkpoint.save(tmp_path, net, state)
    restored = checkpoint.restore(tmp_path, trainer)
    assert same_bits(averages(restored), averages(state))


def test_frozen_weights_are_their_own_average(elastic):
    reference, net = elastic
    optimizer = Freeze(Averaged(sgd, DECAY), "stem/*")
    trainer = Trainer(net, Uniform(net.space), optimizer, LR)
    state = trainer.init(0, reference.batch()[0])
    state, _ = trainer.step(state, reference.batch())
    got = averages(state)
    assert same_bits(got.params["stem"], state.weights.params["stem"])
    assert jax.tree.structure(got.params) == jax.tree.structure(state.weights.params)


def cost(arch):
    return 10.0 ** (1 + sum(arch))


def test_smaller_networks_have_rates_that_fall_sooner(elastic):
    reference, net = elastic
    archs = reference.archs(net, 3)
    low, high = (f(map(cost, archs)) for f in (min, max))
    rate = ComplexityAware(0.1, 12, cost, low, high, steepest=3.0)
    assert rate.exponent(min(archs, key=cost)) == 3
    assert rate.exponent(max(archs, key=cost)) == 1
    _, _, rates, plans = run(elastic, sgd, rate)
    gammas = [rate.exponent(plans[i % 3][0].arch) for i in range(12)]
    want = [0.1 * (1 - i / 12) ** g for i, g in enumerate(gammas)]
    np.testing.assert_allclose(rates, want, rtol=1e-5)


def test_a_trainer_says_what_it_was_told_of_costs(elastic):
    net = elastic[1]
    rate = ComplexityAware(0.1, 12, cost, 1, 1e6)
    trainer = Trainer(net, Uniform(net.space), sgd, LR)
    assert trainer.guided is None
    assert trainer.with_strategy(Uniform(net.space), rate).guided == "a rate by cost"
    both = trainer.with_strategy(PriorPairs(net.space, cost), rate).guided
    assert both == "pairs of paths in the order of a prior and a rate by cost"


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Averaged(sgd, 1.0), "got 1.0"),
        (lambda: ComplexityAware(0.1, 0, cost, 1, 2), "steps=0"),
        (lambda: ComplexityAware(0.1, 9, cost, 2, 2), "smallest=2"),
    ],
)
def test_settings_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_frozen_weights_inside_an_average_are_refused():
    with pytest.raises(ValueError, match="Freeze\\(Averaged"):
        Averaged(Freeze(sgd, "stem/*"))


def test_averages_of_a_plain_optimizer_are_refused(elastic):
    reference, net = elastic
    trainer = Trainer(net, Uniform(net.space), sgd, LR)
    with pytest.raises(ValueError, match="Wrap the trainer's optimizer in `Averaged`"):
        averages(trainer.init(0, reference.batch()[0]))
