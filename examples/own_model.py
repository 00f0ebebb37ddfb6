"""A supernet from a user's own Flax NNX blocks, searched, extracted and used.

Run it with `python examples/own_model.py` (about a minute on two CPU cores).
"""

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import oneshot
from oneshot import Elastic, Identity, OneOf, Supernet


class Dense(nnx.Module):
    """One block of the user's: any NNX module will do."""

    def __init__(self, features, activation, *, rngs):
        self.linear = nnx.Linear(features, features, rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.activation = activation

    def __call__(self, x):
        return self.activation(self.norm(self.linear(x)))


class Bottleneck(nnx.Module):
    """A block of elastic width: it slices its own weights by a plain int."""

    def __init__(self, features, widest, *, rngs):
        self.down = nnx.Param(nnx.initializers.he_normal()(rngs(), (features, widest)))
        self.up = nnx.Param(nnx.initializers.zeros(rngs(), (widest, features)))

    def __call__(self, x, *, hidden):
        return x + jax.nn.relu(x @ self.down[:, :hidden]) @ self.up[:hidden]


def supernet():
    """Return the supernet: what is chosen is said where it is built."""
    layers = []
    for _ in range(4):
        layers += [
            OneOf(
                skip=Identity,
                relu=lambda rngs: Dense(64, nnx.relu, rngs=rngs),
                gelu=lambda rngs: Dense(64, nnx.gelu, rngs=rngs),
            ),
            Elastic(lambda rngs: Bottleneck(64, 128, rngs=rngs), hidden=(16, 64, 128)),
        ]
    return Supernet(
        stem=lambda rngs: nnx.Linear(64, 64, rngs=rngs),
        layers=layers,
        head=lambda rngs: nnx.Linear(64, 10, rngs=rngs),
    )


def main():
    """Train, search, extract, fine-tune with a plain loop."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    data = oneshot.Data.from_arrays((x[:1400], y[:1400]), test=(x[1400:], y[1400:]))
    net = supernet()

    trainer = oneshot.Trainer(
        net,
        oneshot.Uniform(net.space),
        optimizer=lambda lr: optax.sgd(lr, momentum=0.9),
        learning_rate=optax.cosine_decay_schedule(0.05, 600),
        clip_norm=1.0,
    )
    state = trainer.init(seed=0, x=x[:64])
    for state, rows in oneshot.fit(trainer, state, data, steps=600, every=200):
        print(f"step {state.step}: loss {rows[-1]['loss']:.3f}")

    costs = oneshot.Costs(net, x)
    found = oneshot.search(
        oneshot.NSGA2(net.space, seed=0),
        oneshot.bind(oneshot.Evaluator(net, data), state.weights),
        [oneshot.Objective("loss"), oneshot.Objective("macs")],
        costs={"macs": costs.macs},
        budget=150,
    )
    best = found.best("loss", macs=40_000)
    print("best within 40,000 multiply-adds:", net.space.describe(best.arch))

    model = oneshot.extract(net, state.weights, best.arch, data.calibrate.x)
    model.train()
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss(model):
            return oneshot.cross_entropy(model(x), y).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    order = np.random.default_rng(0)
    for _ in range(100):
        batch = order.integers(0, len(data.train.x), 64)
        step(model, optimizer, data.train.x[batch], data.train.y[batch])
    model.eval()
    test = data.open_test("final accuracy")
    accuracy = jnp.mean(model(jnp.asarray(test.x)).argmax(-1) == test.y)
    print(f"{costs.params(best.arch):,} parameters, test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
