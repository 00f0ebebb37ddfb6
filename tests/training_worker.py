"""One process of a training: python training_worker.py I COUNT PORT DIR DTYPE STEPS."""

import sys
from pathlib import Path

import jax

rank, count, port, folder, dtype, steps = sys.argv[1:7]
jax.config.update("jax_enable_x64", dtype == "float64")
# Virtual devices share a few threads: with programs queued behind each other, some can
# wait for ever for others to meet them.
jax.config.update("jax_cpu_enable_async_dispatch", False)
if int(count) > 1:
    jax.distributed.initialize(
        f"127.0.0.1:{port}", num_processes=int(count), process_id=int(rank)
    )

import jax.numpy as jnp  # noqa: E402 (after the processes have met)
import numpy as np  # noqa: E402
import optax  # noqa: E402
from flax import nnx  # noqa: E402
from oracle import Cycle  # noqa: E402
from supernets import BY_NAME  # noqa: E402

from oneshot import (  # noqa: E402
    Identity,
    OneOf,
    Sandwich,
    StrictFair,
    Supernet,
    Teaching,
    Trainer,
    Uniform,
)
from oneshot.optimizer import adamw  # noqa: E402
from oneshot.sharding import FullySharded  # noqa: E402
from oneshot.strategies import Planned  # noqa: E402

STEPS, BATCH = int(steps), 16
ENDS = (lambda options: 0, lambda options: options - 1)


class Dense(nnx.Module):
    """Linear, BatchNorm over the whole batch, tanh; all numbers of one type."""

    def __init__(self, inputs, outputs, scale=1.0, *, rngs):
        types = {"rngs": rngs, "param_dtype": jnp.dtype(dtype)}
        self.linear = nnx.Linear(inputs, outputs, **types)
        self.norm = nnx.BatchNorm(outputs, **types)
        self.scale = scale

    def __call__(self, x):
        return jnp.tanh(self.scale * self.norm(self.linear(x)))


def dense(*args):
    return lambda rngs: Dense(*args, rngs=rngs)


def logits(inputs, outputs):
    types = {"param_dtype": jnp.dtype(dtype)}
    return lambda rngs: nnx.Linear(inputs, outputs, rngs=rngs, **types)


# The library's own losses are computed in float32.
def loss(outputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def distillation(outputs, labels, teacher):
    return optax.softmax_cross_entropy(outputs, jax.nn.softmax(teacher))


def sgd(lr):
    return optax.sgd(lr, momentum=0.9)


layer = {"skip": Identity, "a": dense(8, 8), "b": dense(8, 8, 2.0)}
net = Supernet(dense(6, 8), [OneOf(**layer) for _ in range(2)], logits(8, 4))
ends = (0, 0), (2, 2)
STRATEGIES = {
    "uniform": Uniform(net.space),
    "fair": StrictFair(net.space),
    "sandwich": Sandwich(net.space, *ends, reduce="mean"),
}
devices = jax.devices()
mesh = None
if len(devices) > 1:
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=auto)
rng = np.random.default_rng(0)
x = rng.normal(size=(10, BATCH, 6)).astype(dtype)
y = (x @ rng.normal(size=(6, 4))).argmax(-1).astype(np.int32)


def losses_of(trainer, seed):
    state, losses = trainer.init(seed, x[0]), []
    for step in range(STEPS):
        state, metrics = trainer.step(state, (x[step % 10], y[step % 10]))
        losses.append(metrics.host()["loss"])
    return losses


found = {}
for name, strategy in STRATEGIES.items():
    teaching = Teaching(distillation)
    trainer = Trainer(net, strategy, sgd, 0.05, loss=loss, mesh=mesh, teaching=teaching)
    found[name] = losses_of(trainer, 0)
    if dtype == "float32" and mesh is None:  # what another seed changes
        found[f"{name}_seeds"] = [losses_of(trainer, seed) for seed in (1, 2, 3)]
if dtype == "float32":  # a decoder whose weights are split over the devices
    reference = BY_NAME["decoder"]
    net, options = reference.make(), {}
    if len(devices) > 1:
        auto = (jax.sharding.AxisType.Auto,) * 2
        shape = (1, len(devices))
        mesh = jax.make_mesh(shape, ("data", "parameters"), axis_types=auto)
        options = {"mesh": mesh, "layout": FullySharded(smallest=16)}
    batches = [reference.batch(8, seed) for seed in range(10)]
    ends = [tuple(end(len(c.options)) for c in net.space.choices) for end in ENDS]
    plans = Cycle(tuple((Planned(arch),) for arch in ends))  # few programs
    trainer = Trainer(net, plans, adamw(), 0.01, clip_norm=1.0, **options)
    state, losses = trainer.init(0, batches[0][0]), []
    for batch in batches:
        state, metrics = trainer.step(state, batch)
        losses.append(metrics.host()["loss"])
    found["sharded"] = losses
    leaves = jax.tree.leaves(state.weights.params)
    parts = sum(leaf.addressable_shards[0].data.size for leaf in leaves)
    found["held"] = parts / sum(leaf.size for leaf in leaves)
np.savez(Path(folder) / f"losses{rank}.npz", devices=len(devices), **found)
if int(count) > 1:
    jax.distributed.shutdown()
