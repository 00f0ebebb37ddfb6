"""Checkpoints and saved models: a resumed run is the uninterrupted one, to the bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import oneshot
from oneshot import Elastic, Identity, OneOf, Supernet
from oneshot.checkpoint import latest_step, restore, save
from oneshot.factories import Factory
from oneshot.models import Origin


class Block(nnx.Module):
    def __init__(self, features, *, rngs):
        self.weight = nnx.Param(rngs.normal((features, 2 * features)))
        self.back = nnx.Param(rngs.normal((2 * features, features)) * 0.1)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x, *, hidden):
        y = jax.nn.tanh(x @ self.weight[:, :hidden]) @ self.back[:hidden]
        return x + self.dropout(self.norm(y))


def dense(features=8, widest=16):
    """A supernet with statistics, dropout, slices and skips, quick to compile."""
    return Supernet(
        stem=lambda rngs: nnx.Linear(5, features, rngs=rngs),
        layers=[
            Elastic(lambda rngs: Block(features, rngs=rngs), hidden=(4, widest)),
            OneOf(
                skip=Identity, fc=lambda rngs: nnx.Linear(features, features, rngs=rngs)
            ),
        ],
        head=lambda rngs: nnx.Linear(features, 3, rngs=rngs),
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5)).astype(np.float32)
    noisy = lambda key, x: x + 0.1 * jax.random.normal(key, x.shape)  # noqa: E731
    return oneshot.Data.from_arrays((x, (x[:, 0] > 0).astype(int)), augment=noisy)


def make_trainer(net, optimizer=lambda lr: optax.sgd(lr, momentum=0.9)):
    rate = optax.cosine_decay_schedule(0.1, 30)
    return oneshot.Trainer(net, oneshot.Uniform(net.space), optimizer, rate)


def train(trainer, state, data, steps):
    rest = oneshot.fit(trainer, state, data, steps, batch_size=16, every=5)
    return list(rest)[-1][0]


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b))


def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(tmp_path, data):
    net = dense()
    whole = make_trainer(net)
    state = train(whole, whole.init(3, data.train.x[:16]), data, 12)
    save(tmp_path / "run", net, state)
    end = train(whole, state, data, 25)
    again = make_trainer(dense())
    found = restore(tmp_path / "run", again)
    assert (found.step, found.seed, found.strategy) == (12, 3, None)
    resumed = train(again, found, data, 25)
    assert same((end.weights, end.optimizer), (resumed.weights, resumed.optimizer))


@pytest.mark.slow
def test_a_state_behind_the_latest_checkpoint_is_not_dropped_in_silence(tmp_path, data):
    net = dense()
    trainer = make_trainer(net)
    first = train(trainer, trainer.init(0, data.train.x[:16]), data, 2)
    save(tmp_path / "run", net, first)
    save(tmp_path / "run", net, first)  # the same step again takes its place
    later = train(trainer, first, data, 4)
    save(tmp_path / "run", net, later)
    with pytest.raises(ValueError, match="step 4, later than this state's step 3"):
        save(tmp_path / "run", net, later._replace(step=3))
    assert latest_step(tmp_path / "run") == 4


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path):
    net = dense()
    arch = np.zeros(2, np.int32)
    trainer = oneshot.Trainer(net, oneshot.Fixed(tuple(arch)), optax.sgd, 0.1)
    state = trainer.init(np.int64(3), np.zeros((4, 5), np.float32))
    state = state._replace(strategy=[*arch, np.float32(0.5), {"mean": np.float32(2)}])
    save(tmp_path / "run", net, state)
    found = restore(tmp_path / "run", trainer)
    assert (found.seed, found.strategy) == (3, [0, 0, 0.5, {"mean": 2.0}])
    assert oneshot.Fixed(tuple(arch)).init() == [0, 0]


def test_only_the_latest_checkpoints_are_kept(tmp_path, data):
    net = dense()
    trainer = make_trainer(net)
    state = trainer.init(0, data.train.x[:16])
    assert latest_step(tmp_path / "run") is None
    for step in (1, 2, 3):
        state = train(trainer, state, data, step)
        save(tmp_path / "run", net, state, keep=2)
    assert latest_step(tmp_path / "run") == 3
    assert restore(tmp_path / "run", trainer, step=2).step == 2
    with pytest.raises(FileNotFoundError, match="steps \\[2, 3\\], not of 1"):
        restore(tmp_path / "run", trainer, step=1)


def test_a_checkpoint_of_something_else_is_refused(tmp_path, data):
    net = dense()
    trainer = make_trainer(net)
    save(tmp_path / "run", net, trainer.init(0, data.train.x[:16]))
    with pytest.raises(ValueError, match="another space.*layer0.hidden"):
        restore(tmp_path / "run", make_trainer(dense(widest=8)))
    with pytest.raises(
        ValueError, match=r"array optimizer/head.*\[8, 3\] there.*\[6, 3\] here"
    ):
        restore(tmp_path / "run", make_trainer(dense(features=6)))
    with pytest.raises(ValueError, match="array optimizer/"):
        restore(tmp_path / "run", make_trainer(net, lambda lr: optax.adam(lr)))
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        restore(tmp_path / "nothing", trainer)
    fixed = oneshot.Trainer(net, oneshot.Fixed((0, 0)), trainer.make_optimizer, 0.1)
    with pytest.raises(ValueError, match="its state is empty, that of Fixed a list"):
        restore(tmp_path / "run", fixed)


class Learning:
    """A strategy that starts with little and keeps more as it goes."""

    def __init__(self, start):
        self.start = start

    def init(self):
        return self.start

    plan, observe = oneshot.Fixed.plan, oneshot.Fixed.observe


@pytest.mark.parametrize(
    "start, later",
    [
        (None, {"a": 1}),
        ({}, {"a": 1}),
        ((), [1]),
        (0, 0.5),
        ({"a": 0}, {"a": 1, "b": 2}),
    ],
)
def test_a_strategy_may_learn_what_to_keep(tmp_path, start, later):
    net = dense()
    trainer = make_trainer(net).with_strategy(Learning(start), 0.1)
    state = trainer.init(0, np.zeros((4, 5), np.float32))
    save(tmp_path / "run", net, state._replace(strategy=later))
    assert restore(tmp_path / "run", trainer).strategy == later


@pytest.mark.slow
def test_a_checkpoint_loads_onto_a_mesh(tmp_path, data):
    net = dense()
    trainer = make_trainer(net)
    state = train(trainer, trainer.init(0, data.train.x[:16]), data, 3)
    save(tmp_path / "run", net, state)
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((4,), ("data",), axis_types=auto)
    rate = optax.cosine_decay_schedule(0.1, 30)
    spread = oneshot.Trainer(
        net, oneshot.Uniform(net.space), lambda lr: optax.sgd(lr, momentum=0.9), rate,
        mesh=mesh,
    )  # fmt: skip
    found = restore(tmp_path / "run", spread)
    assert same(found.weights, state.weights)
    one = train(trainer, restore(tmp_path / "run", trainer), data, 5)
    four = train(spread, found, data, 5)
    for a, b in zip(
        jax.tree.leaves(one.weights), jax.tree.leaves(four.weights), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_saved_model_opens_again_with_its_own_weights_only(tmp_path, data):
    factory = Factory("test_checkpoint:dense", {"widest": 12})
    net = factory.build()
    weights = net.init(jax.random.key(0), data.train.x[:2])
    arch = net.space.arch({"layer0.hidden": 4, "layer1.op": "skip"})
    model = oneshot.extract(net, weights, arch, data.calibrate.x)
    origin = Origin(factory, arch, (5,))
    oneshot.save_model(tmp_path / "best", model, origin, accuracy=np.float32(0.5))
    unlike = net.init(jax.random.key(1), data.train.x[:2])
    other = oneshot.extract(net, unlike, arch, data.calibrate.x)
    with pytest.raises(TypeError, match="cannot be kept as a note"):
        oneshot.save_model(tmp_path / "best", other, origin, note={1, 2})
    opened = oneshot.load(tmp_path / "best")
    np.testing.assert_array_equal(model(data.validate.x), opened(data.validate.x))
    stored = sum(a.size for a in jax.tree.leaves(nnx.state(opened, nnx.Param)))
    assert stored == oneshot.Costs(net, data.train.x).params(arch)
    assert json.loads((tmp_path / "best" / "model.json").read_text())["notes"] == {
        "accuracy": 0.5
    }
    with pytest.raises(FileNotFoundError, match="no model.json"):
        oneshot.load(tmp_path)


KILLED = """
import sys, oneshot.checkpoint as c
from oneshot.cli import main
real = c.save
def save(directory, supernet, state):
    real(directory, supernet, state)
    if state.step:  # the first one is of the start
        print("saved", flush=True)
        sys.stdin.read()  # waits here to be killed
import oneshot.run_training
c.save = save
oneshot.run_training.CHECKPOINT_EVERY = 20
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_result(tmp_path):
    arguments = '{"widths": [4, 6], "depth": 1, "expand": [1, 2], "kernel": [3]}'
    shared = ["--arguments", arguments, "--steps", "60", "--batch-size", "16"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-c", KILLED, "train", "--out", str(killed), *shared]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"saved\n"
        os.kill(process.pid, signal.SIGKILL)
    assert latest_step(killed / "checkpoints") == 20
    for path in (killed, whole):
        command = [sys.executable, "-m", "oneshot.cli", "train", "--out", str(path)]
        subprocess.run([*command, *shared], check=True)
    rows = [(p / "metrics.jsonl").read_text() for p in (killed, whole)]
    assert rows[0] == rows[1] and rows[0].count("\n") == 60
    assert _arrays(killed) == _arrays(whole)


def _arrays(run: Path) -> str:
    from rich.console import Console

    from oneshot.digest import digest
    from oneshot.progress import Bars
    from oneshot.run import Run

    return digest(Run(run, None, Bars(Console())).state[2:4])
