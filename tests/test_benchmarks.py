"""Benchmarks count the work they compare, and both sides of one compute the same."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from benchmarks import networks
from benchmarks.generation import SIZE, generation, random_codes
from benchmarks.work import Work
from oneshot.costs import Costs
from oneshot.data import Data
from oneshot.evaluate import Evaluator
from oneshot.losses import cross_entropy
from oneshot.spaces import nb_macro

SPEC = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def work() -> Work:
    return Work(nb_macro(), SPEC)


@pytest.mark.slow
def test_work_of_the_whole_space(work):
    space = work.supernet.space
    codes, distinct = (list(space.enumerate(over)) for over in ("archs", "canonical"))
    assert work.alone(codes).blocks == 41_553
    assert work.shared(codes).blocks == 6_813
    assert work.shared(distinct).blocks == 4_167
    assert round(work.ratio(codes), 2) == 3.73
    assert round(work.ratio(codes, distinct), 2) == 6.19


def test_work_agrees_with_costs(work):
    arch = (0, 1, 2, 0, 1, 2, 0, 1)
    assert work.macs(arch) == Costs(work.supernet, SPEC).macs(arch)
    assert work.shared([arch, arch]) == work.alone([arch])


def test_generation_holds_new_paths_only(work):
    space = work.supernet.space
    populations = []

    def loss(archs):
        populations.append(archs)
        return [-work.macs(a) for a in archs]

    children = generation(space, 0, loss)
    assert len({*children, *populations[0]}) == 2 * SIZE
    assert generation(space, 0, loss) == children
    assert 1.3 < work.ratio(random_codes(space, 0)) < work.ratio(children)


def _images(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 32, 32, 3)).astype(np.float32)
    return x, rng.integers(0, 10, n).astype(np.int32)


@pytest.mark.slow
def test_torch_convolutional_network_agrees():
    pytest.importorskip("torch")
    from benchmarks.torch_nb_macro import TorchSupernet
    from benchmarks.torch_spos import TorchScorer, TorchStepper, place

    sizes, arch = {"width": 0.25, "hidden": 32}, (0, 1, 2, 0, 2, 1, 0, 0)
    net, (x, y) = nb_macro(**sizes), _images(24)
    weights = net.init(jax.random.key(0), x)
    data = Data.from_arrays((x[:8], y[:8]), validate=(x[8:], y[8:]))
    scores = Evaluator(net, data)(weights, [arch])
    model = place(TorchSupernet(**sizes).load(weights))
    loss, accuracy = TorchScorer(model, data.calibrate.x, data.validate)(arch)
    np.testing.assert_allclose(scores.loss[0], loss, rtol=1e-4)
    assert scores.accuracy[0] == accuracy

    @jax.jit
    def training_loss(weights, x, y):
        logits, _ = net.apply(*weights, arch, x, train=True)
        return cross_entropy(logits, y).mean()

    theirs = TorchStepper(model, (x, y), 0.01)(arch)
    np.testing.assert_allclose(training_loss(weights, x, y), theirs, rtol=1e-4)


@pytest.mark.slow
def test_torch_decoder_agrees():
    pytest.importorskip("torch")
    from benchmarks.torch_decoder import TorchDecoder
    from benchmarks.torch_spos import TorchScorer, place

    network = networks.transformer(0, batch=2, num_random=1)
    x, y = network.batch
    weights = network.net.init(jax.random.key(0), x)
    arch = network.archs["random0"]
    data = Data.from_arrays((x, y), validate=(x, y))
    scores = Evaluator(network.net, data)(weights, [arch])
    scorer = TorchScorer(place(TorchDecoder().load(weights)), x, (x, y))
    loss, accuracy = scorer(arch)
    np.testing.assert_allclose(scores.loss[0], loss, rtol=1e-4)
    assert scores.accuracy[0] == accuracy
