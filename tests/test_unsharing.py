"""Supernets that share less: the same archs, more weights, nothing else changed."""

import itertools

import jax
import numpy as np
import pytest
from oracle import close
from supernets import BY_NAME

from oneshot import (
    Evaluator,
    Sandwich,
    Trainer,
    Uniform,
    extract,
    in_precision,
    rematerialized,
    restore,
    save,
    unshare,
)
from oneshot.optimizer import sgd
from oneshot.unsharing import layer_names, unshared_state, unshared_weights

REFERENCE = BY_NAME["mixed"]


@pytest.fixture(scope="module")
def nets():
    net = REFERENCE.make()
    return net, unshare(net, APART)


def operations(net):
    """(layer, choice) of each layer that chooses between modules."""
    return [
        (slot.name, net.space.choices[slot.choice].name)
        for slot in net.slots
        if slot.choice is not None
    ]


OPERATIONS = operations(REFERENCE.make())
FIRST, SECOND = OPERATIONS[0], OPERATIONS[1]
APART = {SECOND[0]: [FIRST[1]], "head": [SECOND[1]]}


def trainer_of(net, execution="blocks"):
    return Trainer(net, Uniform(net.space), sgd(), 0.05, execution=execution)


def test_a_layer_has_modules_for_each_option_and_the_archs_are_the_same(nets):
    net, apart = nets
    assert apart.space.choices == net.space.choices
    options = len(net.space.choices[net.space.index(FIRST[1])].options)
    for slot in net.slots:
        own = [m for m, _ in slot.modules(net.space.choices)]
        copies = [m for m in apart.modules if m.split("@")[0] in own]
        factor = {SECOND[0]: options, "head": 2}.get(slot.name, 1)
        assert len(copies) == factor * len(own)


PAIRS = [
    (layer, choice.name)
    for layer in layer_names(REFERENCE.make())
    for choice in REFERENCE.make().space.choices
]


@pytest.mark.parametrize("layer, choice", PAIRS)
def test_paths_and_networks_are_those_of_the_space(layer, choice, nets):
    net, _ = nets
    slot = net.slots[layer_names(net).index(layer)]
    if choice == "stage.depth" or net.space.index(choice) in slot.choices:
        return  # refused, see below
    apart = unshare(net, {layer: [choice]})
    assert apart.space is net.space
    sizes = [range(len(c.options)) for c in apart.space.choices]
    paths = {}
    for arch in itertools.product(*sizes):
        paths.setdefault(apart.path(arch), set()).add(apart.space.path_key(arch))
    assert all(len(keys) == 1 for keys in paths.values())
    assert len(paths) == apart.space.num_paths
    assert {s.module for path in paths for s in path} <= set(apart.modules)


def test_every_arch_computes_what_it_did(nets):
    net, apart = nets
    weights = REFERENCE.weights(net)
    copied = unshared_weights(weights, apart)
    x, _ = REFERENCE.batch()
    archs = REFERENCE.archs(net, 6)
    for arch in archs:
        want, _ = net.apply(*weights, arch, x)
        got, _ = apart.apply(*copied, arch, x)
        np.testing.assert_array_equal(got, want)
        model = extract(apart, copied, arch, x, recalibrate=False)
        close(model(x), want)
    data = REFERENCE.data()
    scores = [
        Evaluator(n, data)(w, archs) for n, w in ((net, weights), (apart, copied))
    ]
    np.testing.assert_array_equal(scores[0].loss, scores[1].loss)


@pytest.mark.parametrize("execution", ["blocks", "static", "switch"])
def test_a_step_trains_the_copies_of_its_options_only(nets, execution):
    net, apart = nets
    x, y = REFERENCE.batch()
    whole, trainer = trainer_of(net), trainer_of(apart, execution)
    state, _ = whole.step(whole.init(0, x), (x, y))
    start = unshared_state(state, apart)
    before = jax.device_get(start)
    after, metrics = trainer.step(start, (x, y))
    arch = metrics.plan[0].arch
    run = {step.module for step in apart.path(arch)}
    for name, own in after.weights.params.items():
        changed = [
            not np.array_equal(a, b)
            for a, b in zip(
                jax.tree.leaves(own),
                jax.tree.leaves(before.weights.params[name]),
                strict=True,
            )
        ]
        assert any(changed) == (name in run and bool(changed)), name
    # The momentum goes on as that of the supernet that shares all.
    want, _ = whole.step(state, (x, y))
    for name in run:
        base = name.split("@")[0]
        close(after.weights.params[name], jax.device_get(want.weights.params[base]))


def test_views_of_a_supernet_stay(nets):
    net, _ = nets
    for view in (in_precision(net), rematerialized(net)):
        apart = unshare(view, APART)
        for name, module in apart.modules.items():
            old = view.modules[name.split("@")[0]]
            assert (module.dtypes, module.recomputed) == (old.dtypes, old.recomputed)


def test_several_paths_train_the_copies(nets):
    net, apart = nets
    x, y = REFERENCE.batch()
    archs = REFERENCE.archs(apart, 3, seed=3)
    states = []
    for execution in ("blocks", "static"):
        strategy = Sandwich(apart.space, archs[0], archs[1], random=1)
        trainer = Trainer(
            apart, strategy, sgd(), 0.05, clip_norm=0.5, execution=execution
        )
        start = trainer.init(0, x, unshared_weights(REFERENCE.weights(net), apart))
        states.append(jax.device_get(trainer.step(start, (x, y))[0].weights))
    jax.tree.map(close, *states)


def test_a_run_that_shares_less_is_saved_and_goes_on(nets, tmp_path):
    net, apart = nets
    x, y = REFERENCE.batch()
    trainer = trainer_of(apart)
    state = unshared_state(trainer_of(net).init(0, x), apart)
    state, _ = trainer.step(state, (x, y))
    save(tmp_path, apart, state)
    kept = jax.device_get(state.weights)
    found = restore(tmp_path, trainer)
    jax.tree.map(np.testing.assert_array_equal, found.weights, kept)


def test_sharing_less_again_starts_from_the_copies(nets):
    _, apart = nets
    again = unshare(apart, {"head": [FIRST[1]], "stage.0": [SECOND[1]]})
    weights = unshared_weights(REFERENCE.weights(REFERENCE.make()), apart)
    more = unshared_weights(weights, again)
    x, _ = REFERENCE.batch()
    arch = REFERENCE.archs(again, 1)[0]
    np.testing.assert_array_equal(
        again.apply(*more, arch, x)[0], apart.apply(*weights, arch, x)[0]
    )


def test_what_cannot_be_unshared_is_refused(nets):
    net, _ = nets
    with pytest.raises(ValueError, match=f"no layer called 'x'.*{layer_names(net)[1]}"):
        unshare(net, {"x": [FIRST[1]]})
    with pytest.raises(ValueError, match="No choice is called 'y'; there are"):
        unshare(net, {"head": ["y"]})
    with pytest.raises(ValueError, match="depends on the choice"):
        unshare(net, {FIRST[0]: [FIRST[1]]})
    with pytest.raises(ValueError, match="'stage.depth' is the depth of a stage"):
        unshare(net, {"head": ["stage.depth"]})
    weights = REFERENCE.weights(net)
    with pytest.raises(ValueError, match="no weights for the module"):
        unshared_weights(weights, BY_NAME["carried"].make())
    first = unshare(net, {"head": [FIRST[1]]})
    other = unshare(net, {"head": [SECOND[1]]})
    with pytest.raises(ValueError, match=f"module 'head@{SECOND[1]}=0'"):
        unshared_weights(unshared_weights(weights, first), other)
