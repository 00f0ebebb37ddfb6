"""Momentum kept apart for groups of archs: values, resuming, what is refused."""

import itertools

import jax
import numpy as np
import pytest
from oracle import LR, Cycle, close, same_bits, sgd
from supernets import BY_NAME

from oneshot import Trainer, Uniform, checkpoint
from oneshot.averaging import Averaged, averages
from oneshot.freezing import Freeze
from oneshot.momentum import Separated
from oneshot.strategies import Planned, Sandwich

STEPS = 8


@pytest.fixture(scope="module")
def mixed():
    reference = BY_NAME["mixed"]
    return reference, reference.make()


def kept_apart(net, optimizer=sgd):
    return Separated(optimizer, net.space, net.space.choices[0].name)


def alternating(net):
    """Return archs that differ in the first choice only."""
    first = (0,) * len(net.space.choices)
    return [(option, *first[1:]) for option in (0, 1, 0, 0, 1)]


def trained(mixed, optimizer, archs, steps=STEPS, execution="blocks"):
    reference, net = mixed
    plans = Cycle(tuple((Planned(arch),) for arch in archs))
    trainer = Trainer(net, Uniform(net.space), optimizer, LR, execution=execution)
    trainer = trainer.with_strategy(plans, LR)
    x, _ = batch = reference.batch()
    state = trainer.init(0, x, reference.weights(net))
    for _ in range(steps):
        state, _ = trainer.step(state, batch)
    return trainer, state


@pytest.mark.parametrize("execution", ["blocks", "switch"])
def test_a_step_moves_by_the_momentum_of_its_own_group(mixed, execution):
    """As if each group had a trainer of its own, and the weights went from one to the
    other."""
    reference, net = mixed
    archs = alternating(net)
    _, found = trained(mixed, kept_apart(net), archs, execution=execution)
    x, _ = batch = reference.batch()
    trainer = Trainer(net, Uniform(net.space), sgd, LR, execution=execution)
    state = trainer.init(0, x, reference.weights(net))
    own = {group: jax.device_get(state.optimizer) for group in (0, 1)}
    for step in range(STEPS):
        arch = archs[step % len(archs)]
        one = trainer.with_strategy(Cycle(((Planned(arch),),)), LR)
        state = state._replace(optimizer=own[arch[0]])
        state, _ = one.step(state, batch)
        own[arch[0]] = jax.device_get(state.optimizer)
    close(found.weights.params, state.weights.params, 1e-6)
    for group in (0, 1):
        mine = {name: states[group] for name, states in found.optimizer.items()}
        close(mine, own[group], 1e-6)
    together = trained(mixed, sgd, archs, execution=execution)[1]
    stem = together.weights.params["stem"], found.weights.params["stem"]
    assert not same_bits(*stem)  # in what is shared lies the difference


def test_one_group_alone_trains_as_without(mixed):
    archs = alternating(mixed[1])[:1]
    apart = trained(mixed, kept_apart(mixed[1]), archs)[1]
    assert same_bits(apart.weights, trained(mixed, sgd, archs)[1].weights)


def test_a_resumed_run_keeps_all_momenta(mixed, tmp_path):
    reference, net = mixed
    optimizer = kept_apart(net)
    trainer, state = trained(mixed, optimizer, alternating(net), steps=3)
    checkpoint.save(tmp_path, net, state)
    again = checkpoint.restore(tmp_path, trainer)
    for _ in range(3):
        state, _ = trainer.step(state, reference.batch())
        again, _ = trainer.step(again, reference.batch())
    assert same_bits(again.weights, state.weights)
    assert same_bits(again.optimizer, state.optimizer)


def test_frozen_and_averaged_weights_may_be_inside(mixed):
    reference, net = mixed
    inside = Freeze(Averaged(sgd, 0.6), "stem/*")
    archs = alternating(net)
    _, state = trained(mixed, kept_apart(net, inside), archs)
    start = reference.weights(net)
    assert same_bits(state.weights.params["stem"], start.params["stem"])
    got = averages(state)
    assert same_bits(got.params["stem"], start.params["stem"])
    head = [states[-1] for states in state.optimizer["head"]]
    shares = np.array([float(s.updates) for s in head])
    assert shares.tolist() == [5.0, 3.0, *[0.0] * (len(shares) - 2)]
    want = jax.tree.map(
        lambda *a: np.average(a, axis=0, weights=shares).astype(np.float32),
        *[s.average for s in head],
    )
    close(got.params["head"], want, 1e-5)


def test_what_cannot_be_kept_apart_is_refused(mixed):
    reference, net = mixed
    with pytest.raises(ValueError, match="none is called 'kernel'"):
        Separated(sgd, net.space, "kernel")
    with pytest.raises(ValueError, match=r"Separated\(Averaged"):
        Averaged(kept_apart(net))
    archs = alternating(net)
    ends = Sandwich(net.space, archs[0], archs[1])
    trainer = Trainer(net, ends, kept_apart(net), LR)
    state = trainer.init(0, reference.batch()[0])
    with pytest.raises(ValueError, match="this step's have the options"):
        trainer.step(state, reference.batch())
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state.weights))


def test_archs_of_one_path_have_one_momentum():
    reference = BY_NAME["mixed"]
    net = reference.make()
    space = net.space
    archs = list(itertools.islice(space.enumerate("archs"), 200))
    for choice in space.choices:
        apart = Separated(sgd, space, choice.name)
        groups = [apart.group(arch) for arch in archs]
        assert groups == [apart.group(space.path_key(arch)) for arch in archs]


def test_what_a_trainer_would_not_see_is_refused(mixed):
    _, net = mixed
    apart = kept_apart(net)
    with pytest.raises(ValueError, match="Separated has to stand outside"):
        Freeze(apart, "stem/*")
    with pytest.raises(ValueError, match=r"Freeze\(optimizer, 'head/\*', 'stem/\*'\)"):
        Freeze(Freeze(sgd, "head/*"), "stem/*")
    with pytest.raises(ValueError, match="Name one choice"):
        kept_apart(net, apart)
