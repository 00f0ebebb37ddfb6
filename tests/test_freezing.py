"""Weights frozen by path: exactly unchanged, and no optimizer state."""

import jax
import numpy as np
import optax
import pytest
from oracle import DECAY, LR, Cycle, close, same_bits, sgd
from supernets import Reference, elastic_mlp, linear, numbers

from oneshot import Choice, Elastic, Freeze, Supernet, Trainer, Uniform, checkpoint
from oneshot.strategies import Planned
from oneshot.supernet import Weights

PATTERNS = ("stem/*", "*/up", "*/norm/scale")
HIDDEN = Choice("hidden", (6, 9))


@pytest.fixture(scope="module")
def frozen_net():
    tied = Elastic(elastic_mlp(9), hidden=HIDDEN)
    net = Supernet(linear(12, 8), {"first": tied, "last": tied}, linear())
    reference = Reference("frozen", lambda: net, numbers(12))
    return reference, net, [(0,), (1,)]


def weights_of(frozen_net):
    weights = frozen_net[0].weights(frozen_net[1])
    # A negative zero would become a positive one by adding zero.
    weights.params["stem"]["kernel"][0, 0] = -0.0
    return weights


def trained(frozen_net, optimizer, steps=3, together=False, **options):
    reference, net, archs = frozen_net
    trainer = Trainer(net, Uniform(net.space), optimizer, LR, **options)
    plans = tuple((Planned(a),) for a in archs)
    plans = (tuple(p for (p,) in plans),) if together else plans
    trainer = trainer.with_strategy(Cycle(plans), LR)
    state = trainer.init(0, reference.batch()[0], weights_of(frozen_net))
    for _ in range(steps):
        state, metrics = trainer.step(state, reference.batch())
    return trainer, jax.device_get(state), metrics


def by_path(tree):
    return {
        "/".join(str(k.key) for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def is_frozen(path):
    return path.startswith("stem/") or path.endswith(("/up", "/norm/scale"))


RUNS = {
    "blocks": {},
    "several": {"together": True},
    "clipped": {"clip_norm": 0.1},
    "static": {"execution": "static"},
}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(o, id=n, marks=[pytest.mark.slow] if n == "static" else [])
        for n, o in RUNS.items()
    ],
)
def test_frozen_weights_keep_every_bit_and_the_rest_trains(frozen_net, options):
    net, before = frozen_net[1], by_path(weights_of(frozen_net).params)
    _, state, _ = trained(frozen_net, Freeze(sgd, *PATTERNS), **options)
    after = by_path(state.weights.params)
    on = {s.module for a in frozen_net[2] for s in net.path(a)}
    on = [path for path in before if path.partition("/")[0] in on]
    assert {path for path in on if not same_bits(after[path], before[path])} == {
        path for path in on if not is_frozen(path)
    }
    assert any(map(is_frozen, on))


@pytest.mark.slow
def test_what_is_not_frozen_trains_as_ever(frozen_net):
    # Frozen by hand: zero gradients' momentum and decay taken back after each step.
    def masked(lr):
        def labels(params):
            return jax.tree_util.tree_map_with_path(
                lambda path, _: "no" if path[-1].key == "up" else "yes", params
            )

        return optax.multi_transform(
            {"no": optax.set_to_zero(), "yes": sgd(lr)}, labels
        )

    _, got, _ = trained(frozen_net, Freeze(sgd, "*/up"))
    _, want, _ = trained(frozen_net, masked)
    close(got.weights, want.weights, 1e-6)


def test_frozen_weights_have_no_momentum_and_no_part_in_the_norm(frozen_net):
    trainer, state, metrics = trained(frozen_net, Freeze(sgd, "*"), clip_norm=1.0)
    assert not jax.tree.leaves(state.optimizer)
    assert metrics.host()["gradient_norm"] == 0
    _, state, _ = trained(frozen_net, Freeze(sgd, *PATTERNS))
    own = state.optimizer["last"][1][0].trace
    assert "up" not in own and {"down", "norm"} == {*own}
    assert {*own["norm"]} == {"bias"}
    assert DECAY > 0  # which would have moved them


@pytest.mark.slow
def test_equal_modules_frozen_unequally_do_not_share_a_program(frozen_net):
    reference, net, archs = frozen_net
    _, state, _ = trained(frozen_net, Freeze(sgd, "first/up"))
    start = reference.weights(net).params
    moved = {
        m: not same_bits(state.weights.params[m]["up"], start[m]["up"])
        for m in ("first", "last")
    }
    assert moved == {"first": False, "last": True}


@pytest.mark.slow
def test_a_run_with_frozen_weights_goes_on_from_its_checkpoint(frozen_net, tmp_path):
    trainer, state, _ = trained(frozen_net, Freeze(sgd, *PATTERNS), steps=2)
    checkpoint.save(tmp_path, frozen_net[1], state)
    again = checkpoint.restore(tmp_path, trainer)
    assert isinstance(again.weights, Weights)
    assert same_bits(again.optimizer, state.optimizer)


def test_patterns_that_match_nothing_are_refused(frozen_net):
    _, net, _ = frozen_net
    with pytest.raises(ValueError, match="stem/kernel"):
        Trainer(net, Uniform(net.space), Freeze(sgd, "stem/kernal"), LR)
    with pytest.raises(ValueError, match="no patterns"):
        Freeze(sgd)


def test_an_optimizer_of_a_freeze_is_checked_like_any_other(frozen_net):
    _, net, _ = frozen_net
    clipped = Freeze(lambda lr: optax.chain(optax.clip_by_global_norm(1.0)), "stem/*")
    with pytest.raises(ValueError, match="clip_norm"):
        Trainer(net, Uniform(net.space), clipped, LR)
    assert np.isfinite(LR)
