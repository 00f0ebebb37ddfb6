"""Views of a supernet: bfloat16 near float32, recomputed blocks equal, less is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import LR, Cycle, close, leaves, sgd, start
from supernets import BY_NAME

from oneshot import Evaluator, Trainer, Uniform
from oneshot.precision import in_precision, rematerialized
from oneshot.strategies import Planned


def trained(reference, net, steps=3, **options):
    archs = reference.archs(net, 2)
    trainer = Trainer(net, Uniform(net.space), sgd, LR, **options)
    trainer = trainer.with_strategy(Cycle(tuple((Planned(a),) for a in archs)), LR)
    weights, losses = reference.weights(net), []
    state = start(trainer, weights)
    for _ in range(steps):
        state, metrics = trainer.step(state, reference.batch())
        losses.append(metrics.host()["loss"])
    return trainer, jax.device_get(state), losses


CASES = [
    "mixed",
    "elastic_width",
    pytest.param("tiny", marks=pytest.mark.slow),
    pytest.param("transformer", marks=pytest.mark.slow),
    pytest.param("conformer", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_trains_float32_weights_nearly_alike(name):
    reference = BY_NAME[name]
    net = reference.make()
    _, want, losses = trained(reference, net)
    trainer, got, near = trained(reference, in_precision(net))
    assert {a.dtype for a in leaves(got)} == {a.dtype for a in leaves(want)}
    np.testing.assert_allclose(near, losses, rtol=0.1)
    before = leaves(reference.weights(net).params)
    moves = [
        np.concatenate(
            [(a - b).ravel() for a, b in zip(leaves(s), before, strict=True)]
        )
        for s in (got.weights.params, want.weights.params)
    ]
    # Directions agree to what eight bits of a gradient leave.
    cosine = moves[0] @ moves[1] / np.prod([np.linalg.norm(m) for m in moves])
    assert cosine > 0.9
    block = trainer.executor.block(net.path(reference.archs(net, 1)[0])[0], 0)
    out = trainer.engine.carry(block.out_id)
    floats = [a for a in jax.tree.leaves(out) if jnp.issubdtype(a.dtype, jnp.floating)]
    assert {a.dtype for a in floats} == {jnp.dtype(jnp.bfloat16)}


def test_scores_in_bfloat16_are_near_those_in_float32():
    reference = BY_NAME["mixed"]
    net = reference.make()
    weights, archs = reference.weights(net), reference.archs(net, 4)
    want, got = (
        Evaluator(n, reference.data())(weights, archs).loss
        for n in (net, in_precision(net))
    )
    np.testing.assert_allclose(got, want, rtol=0.05)
    assert not np.array_equal(got, want)


@pytest.mark.parametrize(
    "name, execution",
    [("elastic_width", "static"), ("mixed", "blocks"), ("elastic_width", "blocks")]
    + [pytest.param("conformer", "blocks", marks=pytest.mark.slow)],
)
def test_recomputed_blocks_train_as_those_that_keep(name, execution):
    reference = BY_NAME[name]
    net = reference.make()
    _, want, losses = trained(reference, net)
    _, got, same = trained(reference, rematerialized(net), execution=execution)
    np.testing.assert_allclose(same, losses, rtol=1e-5)
    close(got, want)


def test_recomputed_blocks_save_nothing_but_what_they_were_given():
    reference = BY_NAME["elastic_width"]
    net = reference.make()
    step = net.path(reference.archs(net, 1)[0])[1]
    kept = {}
    for name, view in (("plain", net), ("less", rematerialized(net, step.module))):
        trainer = Trainer(view, Uniform(net.space), sgd, LR)
        arch = reference.archs(net, 1)[0]
        trainer = trainer.with_strategy(Cycle(((Planned(arch),),)), LR)
        trainer.step(start(trainer, reference.weights(net)), reference.batch())
        blocks = trainer.executor._blocks.items()
        (block,) = [b for (s, _), b in blocks if s.module == step.module][:1]
        kept[name] = sum(a.size for a in jax.tree.leaves(block.saved))
    assert kept["less"] < kept["plain"] / 2


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda net: in_precision(net, jnp.int8), "floating-point type, but got"),
        (lambda net: rematerialized(net, "nowhere*"), "No module has a name like"),
    ],
)
def test_what_cannot_be_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        change(BY_NAME["elastic_width"].make())
