"""The laws of the engine, for every reference supernet and random archs."""

import functools
import gc

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from oracle import DECAY, LR, Cycle, Oracle, close, leaves, same_bits, sgd, start, train
from supernets import BY_NAME, REFERENCES, SPACES

from oneshot.compilations import CompilationCounter
from oneshot.distillation import AdaptiveAlphaDivergence
from oneshot.evaluate import Evaluator
from oneshot.extraction import extract
from oneshot.losses import cross_entropy
from oneshot.strategies import Planned, Uniform
from oneshot.supernet import Weights
from oneshot.teaching import PairwiseRank, Teaching
from oneshot.train import Trainer

CLIP = 0.5


class Case:
    """One reference supernet, what was compiled for it, and two archs."""

    def __init__(self, reference):
        self.reference, self.net = reference, reference.make()
        self.weights = reference.weights(self.net)
        self.batch, self.data = reference.batch(), reference.data()
        self.archs = reference.archs(self.net, 2)
        self.teaching = Teaching(AdaptiveAlphaDivergence(), rank=PairwiseRank(0.7, 0.5))
        self.oracle = Oracle(self.net, self.teaching)

        self._trainers = {}

    def trainer(self, execution="blocks", clip=None):
        if (execution, clip) not in self._trainers:
            options = {"clip_norm": clip, "execution": execution}
            options |= {"teaching": self.teaching}
            made = Trainer(self.net, Uniform(self.net.space), sgd, LR, **options)
            self._trainers[execution, clip] = made
        return self._trainers[execution, clip]

    @functools.cached_property
    def evaluator(self):
        return Evaluator(self.net, self.data, engine=self.trainer().engine)


@functools.lru_cache(maxsize=2)
def case_of(name):
    gc.collect()  # what an earlier case compiled
    return Case(BY_NAME[name])


@pytest.fixture
def case(request):
    return case_of(request.param)


@pytest.fixture
def mixed():
    return case_of("mixed")


@pytest.fixture(scope="module", autouse=True)
def forget():
    yield
    case_of.cache_clear()


def one_by_one(a, b):
    return ((Planned(a),), (Planned(b),))


def both_at_once(a, b):
    return ((Planned(a, weight=0.7), Planned(b, weight=0.6)),)


def every_role(a, b):
    taught = Planned(b, "student", 0.3), Planned(a, "teacher"), Planned(b)
    return ((*taught, Planned(a, "better"), Planned(b, "worse", 0.8)),)


EXECUTIONS = ("blocks", "static", "switch")
# What each supernet compiles in a few seconds; the rest are slow tests.
QUICK = {
    "nb_macro": (),
    "tiny": (),
    "mixed": ("blocks",),
    "carried": ("blocks",),
    "transformer": (),
    "elastic_width": ("blocks",),
} | dict.fromkeys(SPACES, ())
SLOW = ("nb_macro", "tiny", "transformer", *SPACES)  # in every law


def row(name, *values, quick=True):
    return pytest.param(name, *values, marks=() if quick else pytest.mark.slow)


PAIRS = [
    row(r.name, execution, quick=execution in QUICK[r.name])
    for r in REFERENCES
    for execution in EXECUTIONS
    # The other executions take a minute to compile what `tiny` has too.
    if execution == "blocks"
    or (r.name not in ("nb_macro", *SPACES) and (execution != "switch" or r.traceable))
]
RUNS = [
    pytest.param(*pair.values, one_by_one, None, marks=pair.marks) for pair in PAIRS
]
RUNS += [
    row(r.name, "blocks", both_at_once, CLIP, quick=r.name == "elastic_width")
    for r in REFERENCES
    if r.name not in ("mixed", *SPACES)
]
RUNS += [
    row("mixed", execution, both_at_once, CLIP, quick=execution != "switch")
    for execution in EXECUTIONS
]
RUNS += [("mixed", "blocks", one_by_one, CLIP), ("mixed", "blocks", both_at_once, None)]
RUNS += [
    row("mixed", execution, every_role, None, quick=execution == "blocks")
    for execution in EXECUTIONS
]
RUNS += [
    ("elastic_width", "blocks", every_role, CLIP),
    row("tiny", "blocks", every_role, CLIP, quick=False),
]
every_space = pytest.mark.parametrize(
    "case",
    [row(name, quick=name not in SLOW) for name in BY_NAME],
    indirect=True,
)


@every_space
def test_extracted_network_reference_and_evaluator_agree(case):
    scored = case.data.validate
    for arch in case.archs:
        weights = case.evaluator.recalibrated(case.weights, arch)
        apply = jax.jit(lambda w, x, arch=arch: case.net.apply(*w, arch, x)[0])
        logits = apply(weights, scored.x)
        model = extract(case.net, case.weights, arch, case.data.calibrate.x)
        close(nnx.jit(lambda m, x: m(x))(model, scored.x), logits)
        scores = case.evaluator(case.weights, [arch])
        want = cross_entropy(logits, scored.y)
        np.testing.assert_allclose(scores.examples["loss"][0], want, 1e-5, 1e-6)


@pytest.mark.parametrize("case, execution, plans, clip", RUNS, indirect=["case"])
def test_each_execution_trains_as_the_straight_line(case, execution, plans, clip):
    check_run(case, execution, plans, clip)


def check_run(case, execution, plans, clip):
    plans = plans(*case.archs)
    trainer = case.trainer(execution, clip)
    state, losses = train(trainer, case.weights, plans, case.batch)
    want, momentum, expected = case.oracle.run(case.weights, plans, case.batch, clip)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    close(state.weights, want)
    held = {m: opt[1][0].trace for m, opt in state.optimizer.items()}
    close(held, momentum, 3e-4)


@pytest.mark.parametrize("execution", ["blocks", "static"])  # a switch is a Single, too
def test_several_batches_train_by_the_mean_of_their_gradients(mixed, execution):
    plan = every_role(*mixed.archs)[0]
    batches = [mixed.reference.batch(seed=seed) for seed in (0, 1)]
    trainer = mixed.trainer(execution, CLIP).with_strategy(Cycle((plan,)), LR)
    state, metrics = trainer.step(start(trainer, mixed.weights), list(batches))
    first = mixed.oracle.plan(mixed.weights, plan, batches[0], 0)
    second = mixed.oracle.plan(
        Weights(mixed.weights.params, first[1]), plan, batches[1], 0, part=1
    )
    losses = np.mean([first[0], second[0]], axis=0)
    np.testing.assert_allclose([m["loss"] for m in metrics.logged], losses, rtol=1e-4)
    close(jax.device_get(state).weights.state, second[1])
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first[2], second[2])
    norm = np.sqrt(sum(np.sum(np.square(g, dtype=float)) for g in leaves(mean)))
    np.testing.assert_allclose(np.sqrt(metrics.squared_norm), norm, rtol=1e-3)
    scale = float(min(1.0, CLIP / norm))
    before, after = mixed.weights.params, jax.device_get(state).weights.params
    want = {
        m: jax.tree.map(lambda p, g: p - LR * (scale * g + DECAY * p), before[m], own)
        for m, own in mean.items()
    }
    close({m: after[m] for m in want}, want)


@pytest.mark.parametrize("case, execution", PAIRS, indirect=["case"])
def test_modules_off_the_path_keep_every_bit(case, execution):
    plans = one_by_one(*case.archs)
    trainer = case.trainer(execution).with_strategy(Cycle(plans), LR)
    state = start(trainer, case.weights)
    for arch in case.archs:  # the second step starts from momentum that is not zero
        before = jax.device_get(state)
        state, _ = trainer.step(state, case.batch)
        after = jax.device_get(state)
        on = {step.module for step in case.net.path(arch)}
        off = set(case.net.modules) - on
        assert off or case.reference.name != "mixed"
        pairs = zip(
            (*before.weights, before.optimizer),
            (*after.weights, after.optimizer),
            strict=True,
        )
        for old, new in pairs:
            assert all(same_bits(new[m], old[m]) for m in off)
        trained = {m for m in on if leaves(before.weights.params[m])}
        moved = {
            m
            for m in trained
            if not same_bits(after.weights.params[m], before.weights.params[m])
        }
        assert moved == trained


def test_gradient_of_an_unused_slice_is_zero_and_only_decay_moves_it():
    case = Case(BY_NAME["elastic_width"])
    arch = case.net.space.arch({"width": 4, "layer0.op": "wide"})
    state, _ = train(
        case.trainer(), case.weights, ((Planned(arch),),), case.batch, steps=1
    )
    old = case.weights.params["layer0.wide"]["kernel"]
    new = state.weights.params["layer0.wide"]["kernel"]
    close(new[4:], (1 - LR * 0.01) * old[4:], 1e-6)
    close(new[:4, 4:], (1 - LR * 0.01) * old[:4, 4:], 1e-6)
    assert not np.allclose(new[:4, :4], (1 - LR * 0.01) * old[:4, :4], rtol=1e-4)


@every_space
def test_same_seed_gives_the_same_bits(case):
    plans = one_by_one(*case.archs)
    a, b = (train(case.trainer(), case.weights, plans, case.batch) for _ in range(2))
    assert same_bits(a, b)
    scores = [case.evaluator(case.weights, case.archs).examples for _ in range(2)]
    assert same_bits(*scores)


def test_same_seed_gives_the_same_bits_in_another_trainer(mixed):
    plans = both_at_once(*mixed.archs)
    a, b = (
        train(c.trainer(), mixed.weights, plans, mixed.batch)
        for c in (mixed, Case(mixed.reference))
    )
    assert same_bits(a, b)


SUBNETS = [row("nb_macro", 1000, quick=False)]
SUBNETS += [
    row(name, 30, quick=name not in SLOW) for name in BY_NAME if name != "nb_macro"
]


@pytest.mark.parametrize("case, subnets", SUBNETS, indirect=["case"])
def test_random_subnets_compile_nothing_after_warm_up(case, subnets):
    trainer, evaluator = case.trainer(), case.evaluator
    trainer.warm_up(case.batch)
    evaluator.warm_up()
    programs, state = trainer.engine.num_programs, start(trainer, case.weights)
    batches = [case.reference.batch(seed=s) for s in range(2)]
    archs = case.net.space.sample(np.random.default_rng(5), subnets)
    with CompilationCounter() as compiled:
        for step in range(subnets):
            state, _ = trainer.step(state, batches[step % 2])
        scores = evaluator(state.weights, archs)
    assert np.isfinite(scores.loss).all() and len(scores.loss) == subnets
    assert compiled.count == 0 and trainer.engine.num_programs == programs


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["blocks", "static"])
def test_adam_counts_the_visits_of_each_module(mixed, execution):
    # Where the gradient is 0 but for rounding, a small epsilon would make steps of it.
    trainer = Trainer(
        mixed.net, Uniform(mixed.net.space), adam, LR, execution=execution
    )
    first = mixed.net.space.arch({})
    archs = first, mixed.net.space.neighbours(first)[0]
    plans = one_by_one(*archs)
    state, _ = train(trainer, mixed.weights, plans, mixed.batch)
    paths = [{s.module for s in mixed.net.path(a)} for a in archs]
    visits = {
        m: sum(m in paths[step % 2] for step in range(3)) for m in state.optimizer
    }
    assert {m: int(opt[0].count) for m, opt in state.optimizer.items()} == visits
    assert set(visits.values()) >= {0, 3}
    want = adam_by_hand(mixed, plans)
    close(state.weights.params, want, 1e-3)


def adam(lr):
    return optax.adam(lr, eps=1e-3)


def adam_by_hand(case, plans):
    params, state = map(dict, case.weights)
    opt = {m: adam(LR).init(own) for m, own in params.items()}
    for step in range(3):
        (planned,) = plans[step % 2]
        weights = type(case.weights)(params, state)
        _, new, gradient = case.oracle.plan(weights, (planned,), case.batch, step)
        state = {**state, **new}
        for m, own in gradient.items():
            updates, opt[m] = adam(LR).update(own, opt[m], params[m])
            params[m] = optax.apply_updates(params[m], updates)
    return params
