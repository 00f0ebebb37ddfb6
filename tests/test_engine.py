"""The engine: no waiting inside a step, many devices, residuals, what is refused."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from oracle import LR, Cycle, close, leaves, same_bits, sgd, start
from supernets import BY_NAME

from oneshot.chain import Chain
from oneshot.distillation import SoftCrossEntropy
from oneshot.engine import Engine
from oneshot.evaluate import Evaluator
from oneshot.layers import Identity, OneOf
from oneshot.paths import num_nodes
from oneshot.randomness import DROPOUT, stream_key
from oneshot.residuals import ResidualPlan, backward, forward
from oneshot.resources import Resources
from oneshot.strategies import Planned, Uniform
from oneshot.supernet import Supernet
from oneshot.teaching import Teaching
from oneshot.train import Trainer


def make_trainer(net, **options):
    return Trainer(net, Uniform(net.space), sgd, LR, **options)


@pytest.fixture(scope="module")
def mixed():
    reference = BY_NAME["mixed"]
    net = reference.make()
    return reference, net, reference.weights(net)


@pytest.fixture(scope="module")
def mesh():
    assert jax.device_count() >= 4
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((4,), ("data",), axis_types=auto, devices=jax.devices()[:4])


def plans_of(reference, net):
    a, b = reference.archs(net, 2)
    return ((Planned(a),), (Planned(b),))


def losses_of(trainer, state, batch, steps):
    losses = []
    for _ in range(steps):
        state, metrics = trainer.step(state, batch)
        losses.append(metrics.logged[0]["loss"])
    return jax.device_get(state), jax.device_get(losses)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["blocks", "static", "switch"])
def test_a_step_transfers_nothing_that_was_not_put(mixed, execution):
    reference, net, weights = mixed
    trainer = make_trainer(net, execution=execution)
    trainer = trainer.with_strategy(Cycle(plans_of(reference, net)), LR)
    batch = jax.device_put(reference.batch())
    state = start(trainer, weights)
    for _ in range(2):  # compiling puts constants on the device
        state, _ = trainer.step(state, batch)
    with jax.transfer_guard("disallow"):
        for _ in range(4):
            state, metrics = trainer.step(state, batch)
    assert np.isfinite(metrics.host()["loss"])


def test_scoring_transfers_nothing_that_was_not_put(mixed):
    reference, net, weights = mixed
    resources = Resources(cache_bytes=0)
    evaluator = Evaluator(net, reference.data(), resources=resources)
    weights = jax.device_put(weights)
    archs = reference.archs(net, 2)
    evaluator(weights, archs)
    with jax.transfer_guard("disallow"):
        evaluator(weights, archs)


class Counting:
    """Counts the calls of a compiled program."""

    def __init__(self, compiled, calls):
        self.compiled, self.calls = compiled, calls

    def __call__(self, *args):
        self.calls.append(self.compiled)
        return self.compiled(*args)

    def __getattr__(self, name):
        return getattr(self.compiled, name)


@pytest.mark.parametrize("clip_norm, most", [(None, 2), (1.0, 3)])
def test_a_block_takes_two_calls_a_step_and_three_with_clipping(
    mixed, clip_norm, most, monkeypatch
):
    reference, net, weights = mixed
    calls, compile_program = [], Engine.compile

    def counted(self, *args, **options):
        return Counting(compile_program(self, *args, **options), calls)

    monkeypatch.setattr(Engine, "compile", counted)
    arch = reference.archs(net, 1)[0]
    trainer = make_trainer(net, clip_norm=clip_norm)
    trainer = trainer.with_strategy(Cycle(((Planned(arch),),)), LR)
    state = start(trainer, weights)
    trainer.step(state, reference.batch())
    # The last block's forward, loss and backward are one program.
    assert len(calls) == most * len(net.path(arch)) - 1


def test_paths_of_one_plan_run_what_they_share_once(mixed, monkeypatch):
    reference, net, weights = mixed
    archs = reference.archs(net, 4)
    plan = tuple(Planned(arch) for arch in [*archs, archs[0]])
    trainer = make_trainer(net).with_strategy(Cycle((plan,)), LR)
    ran, block = [], Chain.block

    def counted(self, step, carry_id):
        ran.append(step)
        return block(self, step, carry_id)

    monkeypatch.setattr(Chain, "block", counted)
    trainer.step(start(trainer, weights), reference.batch())
    paths = [net.path(arch) for arch in archs]
    heads = len({path for path in paths})
    assert len(ran) == num_nodes(paths) - heads


def test_students_follow_a_teacher_from_outside(mixed):
    reference, net, weights = mixed
    x, y = reference.batch()
    (arch,), logits = reference.archs(net, 1), np.eye(5, dtype=np.float32)[y] * 3
    teaching = Teaching(teacher=lambda x: logits)
    trainer = make_trainer(net, teaching=teaching)
    plan = (Planned(arch, "student"),)
    trainer = trainer.with_strategy(Cycle((plan,)), LR)
    _, metrics = trainer.step(start(trainer, weights), (x, y))
    key = jax.random.fold_in(stream_key(0, DROPOUT), 0)
    out = net.run(weights, net.path(arch), x, mode="train", key=key)[0]
    want = float(SoftCrossEntropy()(out, y, logits).mean())
    np.testing.assert_allclose(metrics.host()["distillation"], want, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["blocks", "static"])
def test_four_devices_give_the_losses_of_one(mixed, mesh, execution):
    reference, net, weights = mixed
    batch, found = reference.batch(n=16), []
    for options in ({}, {"mesh": mesh}):
        trainer = make_trainer(net, execution=execution, **options)
        trainer = trainer.with_strategy(Cycle(plans_of(reference, net)), LR)
        found.append(losses_of(trainer, start(trainer, weights), batch, 3))
    (one, losses), (four, spread) = found
    np.testing.assert_allclose(spread, losses, rtol=1e-5)
    close(four.weights, one.weights)  # BatchNorm's statistics are of the whole batch


@pytest.mark.slow
def test_four_devices_train_convolutions_as_one_does(mesh):
    reference = BY_NAME["tiny"]
    net = reference.make()
    weights, arch = reference.weights(net), (0,) * len(net.space.choices)
    found = []
    for options in ({}, {"mesh": mesh}):
        trainer = make_trainer(net, **options)
        trainer = trainer.with_strategy(Cycle(((Planned(arch),),)), LR)
        state, losses = losses_of(
            trainer, start(trainer, weights), reference.batch(), 2
        )
        found.append((state.weights, losses))
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-5)
    close(found[1][0], found[0][0])


@pytest.mark.slow
def test_layouts_are_fixed_weights_replicated_and_data_split(mixed, mesh):
    reference, net, weights = mixed
    trainer = make_trainer(net, mesh=mesh)
    trainer = trainer.with_strategy(Cycle(plans_of(reference, net)[:1]), LR)
    state, metrics = trainer.step(start(trainer, weights), reference.batch())
    for array in jax.tree.leaves((state.weights, state.optimizer, metrics.logged)):
        assert array.sharding.is_fully_replicated and len(array.devices()) == 4
    batch = trainer.engine.put(reference.batch(), "data")
    assert [a.sharding.shard_shape(a.shape)[0] for a in batch] == [2, 2]


@pytest.mark.slow
def test_weights_of_a_mesh_train_and_score_on_one_device(mixed, mesh):
    reference, net, weights = mixed
    spread = start(make_trainer(net, mesh=mesh), weights).weights
    trainer, batch = make_trainer(net), reference.batch()
    state = trainer.init(0, batch[0], weights=spread)
    given = trainer.init(0, batch[0], weights=weights)
    assert same_bits(state.weights, weights)
    first, second = (trainer.step(s, batch)[1].logged for s in (state, given))
    assert same_bits(first, second)
    archs, evaluate = reference.archs(net, 2), Evaluator(net, reference.data())
    found, wanted = (evaluate(w, archs).examples for w in (spread, weights))
    assert same_bits(found, wanted)


def test_what_is_put_by_default_goes_where_jax_is_told(mixed):
    _, net, _ = mixed
    other, host = jax.devices()[1], np.ones(3)
    engine = Engine(net)
    for array in (host, jax.device_put(host, other)):
        assert engine.put(array).devices() == {jax.devices()[0]}
    with jax.default_device(other):
        assert Engine(net).device == other
        for array in (host, jax.device_put(host, jax.devices()[0])):
            assert engine.put(array).devices() == {other}


@pytest.mark.slow
def test_four_devices_score_as_one_does(mixed, mesh):
    reference, net, weights = mixed
    archs, data = reference.archs(net, 2), reference.data()
    alone = Evaluator(net, data)(weights, archs)
    engine = Engine(net, mesh)
    spread = Evaluator(net, data, engine=engine)(engine.put(weights), archs)
    np.testing.assert_allclose(spread.examples["loss"], alone.examples["loss"], 1e-4)


def test_a_batch_that_does_not_divide_is_refused(mixed, mesh):
    reference, net, weights = mixed
    trainer = make_trainer(net, mesh=mesh)
    with pytest.raises(ValueError, match="batch of 6.*4 devices.*multiple of 4"):
        trainer.step(start(trainer, weights), reference.batch(n=6))


def test_a_mesh_without_a_data_axis_is_refused(mixed):
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("model",), axis_types=auto, devices=jax.devices()[:2])
    with pytest.raises(ValueError, match="axis called 'data'.*'model'"):
        make_trainer(mixed[1], mesh=mesh)


def test_another_word_for_execution_is_refused(mixed):
    with pytest.raises(ValueError, match="'blocks', 'static' or 'switch'.*'fast'"):
        make_trainer(mixed[1], execution="fast")


def test_residuals_are_no_copies_of_weights_input_or_output(mixed):
    reference, net, weights = mixed
    trainer = make_trainer(net)
    trainer = trainer.with_strategy(Cycle(plans_of(reference, net)), LR)
    x, labels = reference.batch()
    trainer.step(start(trainer, weights), (x, labels))
    blocks = trainer.executor._blocks
    assert blocks
    for (step, _), block in blocks.items():
        params, state = weights.params[step.module], weights.state[step.module]
        rng = None
        if net.modules[step.module].has_rng:
            rng = jax.random.key(0), np.int32(step.layer)
        carry = jax.tree.map(
            lambda a: np.random.default_rng(0).normal(size=a.shape).astype(a.dtype),
            trainer.engine.carry(block.carry_id),
        )
        out, _, saved = block.forward(params, state, carry, rng)
        arrays = {a.tobytes() for a in leaves((params, carry, out)) if a.size > 1}
        assert not arrays & {a.tobytes() for a in leaves(saved) if np.any(a)}
        kinds = {source.kind for source in block.plan.sources}
        assert "params" in kinds or "carry" in kinds


def test_forward_and_backward_are_those_of_vjp():
    def apply(params, state, carry, key):
        del key
        hidden = carry["x"] @ params["w"]
        out = {"x": hidden * hidden + params["b"], "i": carry["i"] + 1}
        return out, {"n": state["n"] + 1}

    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 3)), "b": rng.normal(size=(2, 3))}
    params = jax.tree.map(np.float32, params)
    carry = {"x": np.float32(rng.normal(size=(2, 3))), "i": np.arange(2)}
    plan = ResidualPlan()
    out, state, saved = jax.jit(forward(apply, plan, True))(
        params, {"n": 0}, carry, None
    )
    assert int(state["n"]) == 1 and out["i"].tolist() == [1, 2]
    assert len(saved) == 1  # the hidden numbers alone: w and x are passed again
    by_kind = {"carry": jax.tree.leaves(carry), "out": jax.tree.leaves(out)}
    given = ([by_kind[k][i] for i in plan.needs(k)] for k in ("carry", "out"))
    cotangent = [np.ones((2, 3), np.float32)]
    inputs, own = jax.jit(backward(plan, True))(params, *given, saved, cotangent)

    def total(params, x):
        return apply(params, {"n": 0}, {**carry, "x": x}, None)[0]["x"].sum()

    close((own, inputs[0]), jax.grad(total, (0, 1))(params, carry["x"]), 1e-5)


def test_the_input_of_the_network_gets_no_gradient(mixed):
    reference, net, weights = mixed
    trainer = make_trainer(net)
    trainer = trainer.with_strategy(Cycle(plans_of(reference, net)), LR)
    trainer.step(start(trainer, weights), reference.batch())
    blocks = trainer.executor._blocks
    assert {s.layer: b.input_gradient for (s, _), b in blocks.items()}[0] is False
    assert all(b.input_gradient for (s, _), b in blocks.items() if s.layer)


REFUSED = {
    "schedule": (
        lambda lr: optax.sgd(optax.cosine_decay_schedule(0.1, 10)),
        "holds a schedule.*learning_rate",
    ),
    "global clip": (
        lambda lr: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(lr)),
        "mixes the gradients.*clip_norm",
    ),
    "no function": (optax.sgd(0.1), "a function of the learning rate"),
    "no transformation": (lambda lr: None, "a function of the learning rate"),
    "a number": (0.1, "a function of the learning rate"),
}


def test_paths_with_and_without_a_stem_train_in_one_step():
    """A stem has no input to give a cotangent to; what follows a skipped one does."""
    line = lambda rngs: nnx.Linear(6, 6, rngs=rngs)  # noqa: E731
    head = lambda rngs: nnx.Linear(6, 3, rngs=rngs)  # noqa: E731
    net = Supernet(OneOf(skip=Identity, stem=line), [line], head)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    found = []
    for archs in ([(0,), (1,)], [(1,), (0,)]):
        plans = Cycle((tuple(Planned(arch) for arch in archs),))
        for execution in ("blocks", "static"):
            trainer = make_trainer(net, execution=execution).with_strategy(plans, LR)
            state, _ = trainer.step(trainer.init(0, x), (x, np.arange(8) % 3))
            found.append(state.weights.params)
    for other in found[1:]:
        jax.tree.map(close, other, found[0])


@pytest.mark.parametrize("optimizer, message", REFUSED.values(), ids=REFUSED)
def test_optimizers_that_cannot_go_by_module_are_refused(mixed, optimizer, message):
    net = mixed[1]
    with pytest.raises(ValueError, match=message):
        Trainer(net, Uniform(net.space), optimizer, 0.1)


@pytest.mark.parametrize("make", [optax.adam, optax.adamw, optax.lion, optax.sgd])
def test_usual_optimizers_are_accepted(mixed, make):
    net = mixed[1]
    Trainer(net, Uniform(net.space), make, 0.1)


def test_equal_layers_share_their_programs():
    reference = BY_NAME["transformer"]
    net = reference.make()
    trainer = make_trainer(net)
    jobs = list(trainer.executor.warm_up_jobs(*reference.batch()))
    assert len(jobs) == 1 + 4 + 1  # stem, one elastic block of four options, head


def test_a_program_that_failed_to_compile_is_tried_again(mixed):
    engine, tries = Engine(mixed[1]), []

    def build():
        tries.append(1)
        if len(tries) == 1:
            raise MemoryError("full")
        return "program"

    with pytest.raises(MemoryError):
        engine.once("key", build)
    assert engine.once("key", build) == engine.once("key", build) == "program"
    assert len(tries) == 2


def test_warm_up_counts_its_jobs_and_stops_at_the_limit(mixed):
    seen, ran = [], []
    jobs = [lambda i=i: ran.append(i) for i in range(5)]
    Engine(mixed[1]).warm_up(jobs, lambda *done: seen.append(done), limit=3)
    assert sorted(ran) == [0, 1, 2]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_state_given_to_a_step_of_another_seed_is_not_mixed_up(mixed):
    reference, net, weights = mixed
    trainer = make_trainer(net)
    arch = net.space.arch({"first.op": "dropped"})
    trainer = trainer.with_strategy(Cycle(((Planned(arch),),)), LR)
    runs = []
    for seed in (0, 1, 0):
        state, _ = trainer.step(start(trainer, weights, seed), reference.batch())
        runs.append(jax.device_get(state.weights))
    assert same_bits(runs[0], runs[2]) and not same_bits(runs[0], runs[1])
