"""A training run written plainly: `jax.grad` of the straight line, SGD in numpy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from oneshot.losses import cross_entropy
from oneshot.randomness import DROPOUT, stream_key
from oneshot.strategies import Plan
from oneshot.supernet import Supernet, Weights
from oneshot.teaching import Teaching, order_of
from oneshot.train import Trainer, TrainState

LR, MOMENTUM, DECAY = 0.05, 0.9, 0.01


def sgd(lr: Any) -> optax.GradientTransformation:
    """The optimizer that `Oracle.run` does by hand."""
    return optax.chain(
        optax.add_decayed_weights(DECAY), optax.sgd(lr, momentum=MOMENTUM)
    )


@dataclasses.dataclass(frozen=True)
class Cycle:
    """A strategy that goes round a few plans."""

    plans: tuple[Plan, ...]

    def init(self):
        return ()

    def plan(self, state, seed, step):
        return self.plans[step % len(self.plans)]

    def observe(self, state, plan, metrics):
        return state


def start(trainer: Trainer, weights: Weights, seed: int = 0) -> TrainState:
    """Return a first state whose optimizer starts from zeros, without compiling."""
    optimizer = {
        name: jax.tree.map(
            lambda a: np.zeros(a.shape, a.dtype),
            jax.eval_shape(trainer.make_optimizer(0.1).init, params),
        )
        for name, params in weights.params.items()
    }
    placed = trainer.engine.put((Weights(*weights), optimizer))
    # A CPU device may look at numpy's own memory, which a donated step would reuse.
    weights, optimizer = jax.tree.map(lambda a: a.copy(), placed)
    return TrainState(0, seed, Weights(*weights), optimizer, trainer.strategy.init())


def train(
    trainer: Trainer, weights: Weights, plans: tuple[Plan, ...], batch, steps: int = 3
) -> tuple[TrainState, list[list[float]]]:
    """Return the host state after some steps of the engine, and the losses."""
    trainer = trainer.with_strategy(Cycle(plans), LR)
    state, losses = start(trainer, weights), []
    for _ in range(steps):
        state, metrics = trainer.step(state, batch)
        losses.append([float(one["loss"]) for one in metrics.logged])
    return jax.device_get(state), losses


class Oracle:
    """The same run for one supernet, without engine or optimizer library."""

    def __init__(self, net: Supernet, teaching: Teaching | None = None):
        self.net, self._compiled = net, {}
        self.teaching = teaching or Teaching()

    def gradient(self, weights: Weights, planned, batch, key, taught):
        """Return (loss, outputs, new state, gradient) of one path's own modules."""
        path, student = self.net.path(planned.arch), planned.role == "student"
        if (path, student) not in self._compiled:

            def total(params, state, x, y, taught, key):
                out, new = self.net.run(
                    Weights(params, state), path, x, mode="train", key=key
                )
                hard = jnp.mean(cross_entropy(out, y))
                soft = self.teaching.distillation(out, y, taught) if student else hard
                return jnp.mean(soft), (hard, out, new)

            self._compiled[path, student] = jax.jit(jax.grad(total, has_aux=True))
        names = {s.module for s in path}
        own = [{m: part[m] for m in names} for part in weights]
        found = self._compiled[path, student](*own, *batch, taught, key)
        gradient, (loss, outputs, state) = jax.device_get(found)
        return float(loss), outputs, state, gradient

    def plan(self, weights: Weights, plan, batch, step: int, part: int = 0):
        """Return the losses in the plan's order, the new state and the gradient."""
        key = jax.random.fold_in(stream_key(0, DROPOUT), step)
        key = jax.random.fold_in(key, part) if part else key
        paths = [self.net.path(p.arch) for p in plan]
        order, shared = order_of([p.role for p in plan], paths)
        state, losses, found = dict(weights.state), [0.0] * len(plan), {}
        taught = None
        for i, n in zip(order, shared, strict=True):
            now = Weights(weights.params, state)
            losses[i], out, new, found[i] = self.gradient(
                now, plan[i], batch, key, taught
            )
            taught = out if plan[i].role == "teacher" else taught
            seen = {s.module for s in paths[i][:n]}  # whose statistics moved already
            state |= {m: own for m, own in new.items() if m not in seen}
        factors = [p.weight for p in plan]
        for i, planned in enumerate(plan):
            if planned.role == "better":
                pair = jax.grad(self.teaching.rank, (0, 1))(losses[i], losses[i + 1])
                factors[i : i + 2] = [factors[i] + pair[0], factors[i + 1] + pair[1]]
        total: dict[str, Any] = {}
        for i, factor in enumerate(factors):
            for m, own in found[i].items():
                own = jax.tree.map(lambda g, w=float(factor): w * g, own)
                old = total.get(m)
                total[m] = own if old is None else jax.tree.map(np.add, old, own)
        return losses, state, total

    def run(self, weights: Weights, plans, batch, clip=None, steps=3):
        """Return weights, momentum and losses after some steps."""
        params, state = dict(weights.params), dict(weights.state)
        momentum = jax.tree.map(np.zeros_like, params)
        losses: list[list[float]] = []
        for step in range(steps):
            plan = plans[step % len(plans)]
            found, state, total = self.plan(Weights(params, state), plan, batch, step)
            losses.append(found)
            scale = 1.0
            if clip is not None:
                squares = (np.sum(g.astype(np.float64) ** 2) for g in leaves(total))
                scale = float(min(1.0, clip / np.sqrt(sum(squares))))
            for m, own in total.items():
                momentum[m] = jax.tree.map(
                    lambda v, g, p, s=scale: MOMENTUM * v + s * g + DECAY * p,
                    momentum[m],
                    own,
                    params[m],
                )
                params[m] = jax.tree.map(
                    lambda p, v: (p - LR * v).astype(p.dtype), params[m], momentum[m]
                )
        return Weights(params, state), momentum, losses


def leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(a) for a in jax.tree.leaves(tree)]


def close(got: Any, want: Any, tolerance: float = 1e-4) -> None:
    """Fail unless two trees are equal, relative to the largest number of each array."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(got), leaves(want), strict=True
    ):
        a = np.asarray(a)
        assert a.shape == b.shape and a.dtype == b.dtype, jax.tree_util.keystr(path)
        atol = tolerance * max(1e-2, float(np.abs(b).max(initial=0)))
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=name)


def same_bits(got: Any, want: Any) -> bool:
    """Return whether two trees are equal to the bit."""
    pairs = zip(leaves(got), leaves(want), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)
