"""Training weights and a relaxed arch in turns: DARTS of first order, and GDAS.

The trainer has `init`, `step` and `abstract` as `Trainer` does, so that `fit`,
checkpoints and scoring take it as it is; what it has learnt of the arch is the state's
`strategy`, a JSON value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from oneshot import programs
from oneshot.data import Data, Split
from oneshot.engine import Engine
from oneshot.freezing import Freeze
from oneshot.losses import Metric, Metrics, as_metrics, cross_entropy
from oneshot.momentum import Separated
from oneshot.optimizer import check_optimizer
from oneshot.randomness import ARCHS, DROPOUT, WEIGHTS, stream_key
from oneshot.rates import ComplexityAware
from oneshot.relaxation import Relaxation, discretized, run_mixture
from oneshot.settings import check_clip_norm
from oneshot.space import Arch
from oneshot.step_metrics import StepMetrics
from oneshot.strategies import Planned
from oneshot.supernet import Supernet, Tree, Weights
from oneshot.train import TrainState


class RelaxedTrainer:
    """Trains the weights on one batch and the relaxed arch on another, in turns.

    Args:
      supernet: What to train; the options of each layer return equal shapes.
      relaxation: DARTS or GDAS, and its temperature.
      optimizer: Of the weights, `learning_rate -> optax.GradientTransformation`.
      learning_rate: A number, or an optax schedule of the step.
      search: Data whose training split the arch is trained on: the other half of the
        training data, as in the papers (`halves`), never the validation split that the
        result is then scored on.
      loss: `(outputs, targets) -> [n]`, or several such metrics by name with "loss".
      clip_norm: Bound on the norm of the weights' gradient, or None.
      arch_optimizer: Of the logits; the papers' Adam by default.

    Raises:
      ValueError: If the optimizer is not leaf-wise, holds a schedule, freezes or keeps
        momentum apart, `clip_norm` is not above 0, or the rate depends on the cost of
        archs.

    Example:
      >>> weights_data, arch_data = halves(data)
      >>> trainer = RelaxedTrainer(net, Relaxation("gdas", 10.0, 0.1, 2000), sgd(),
      ...                          0.025, search=arch_data, clip_norm=5.0)
      >>> state = trainer.init(seed=0, x=data.train.x[:64])
      >>> for state, rows in fit(trainer, state, weights_data, steps=2000): ...
      >>> trainer.arch(state)
    """

    def __init__(
        self,
        supernet: Supernet,
        relaxation: Relaxation,
        optimizer: programs.MakeOptimizer,
        learning_rate: float | optax.Schedule,
        *,
        search: Data,
        loss: Metric | Metrics = cross_entropy,
        clip_norm: float | None = None,
        arch_optimizer: optax.GradientTransformation | None = None,
    ):
        check_clip_norm(clip_norm)
        check_optimizer(optimizer)
        if isinstance(optimizer, Freeze | Separated):
            raise ValueError(
                "A relaxed arch trains all weights, whatever their option, so "
                f"`{type(optimizer).__name__}` would be ignored. Pass the optimizer "
                "itself."
            )
        if isinstance(learning_rate, ComplexityAware):
            raise ValueError(
                "A relaxed arch is no one network, so a rate that depends on the cost "
                "of one would be that of the dearest. Pass an optax schedule."
            )
        self.supernet, self.relaxation, self.search = supernet, relaxation, search
        self.make_optimizer, self.learning_rate = optimizer, learning_rate
        self.metrics, self.engine = as_metrics(loss), Engine(supernet)
        self.clip_norm = clip_norm
        self.arch_optimizer = arch_optimizer or optax.chain(
            optax.add_decayed_weights(1e-3), optax.adam(3e-4, b1=0.5, b2=0.999)
        )
        self._init_optimizer = jax.jit(optimizer(0.1).init)
        self._train = jax.jit(self._train_weights, donate_argnums=(0, 1))
        self._tune = jax.jit(self._train_arch)
        self._batches: dict[Any, Callable] = {}

    def abstract(self) -> tuple[Weights, dict[str, Tree]]:
        """Return the shapes and dtypes of weights and optimizer states."""
        weights = self.supernet.abstract()
        optimizer = {
            name: jax.eval_shape(self._init_optimizer, params)
            for name, params in weights.params.items()
        }
        return weights, optimizer

    def init(self, seed: int, x: Tree, weights: Weights | None = None) -> TrainState:
        """Return the state before the first step; arguments as of `Trainer.init`."""
        if weights is None:
            weights = self.supernet.init(stream_key(seed, WEIGHTS), x)
        params, state = jax.tree.map(jnp.copy, tuple(weights))
        optimizer = {name: self._init_optimizer(own) for name, own in params.items()}
        logits = [jnp.zeros(len(c.options)) for c in self.supernet.space.choices]
        own = self.arch_optimizer.init(logits)
        learnt = _to_json((logits, own))
        return TrainState(0, seed, Weights(params, state), optimizer, learnt)

    def arch(self, state: TrainState) -> Arch:
        """Return the likeliest arch so far."""
        return discretized(self.supernet.space, self.logits(state))

    def logits(self, state: TrainState) -> list[np.ndarray]:
        """Return the logits of each choice, [options] each."""
        return [np.asarray(own) for own in self._learnt(state)[0]]

    def _learnt(self, state: TrainState) -> Any:
        logits = [np.zeros(len(c.options)) for c in self.supernet.space.choices]
        like = jax.eval_shape(lambda: (logits, self.arch_optimizer.init(logits)))
        return _from_json(state.strategy, like)

    def step(
        self, state: TrainState, batch: tuple[Tree, Tree]
    ) -> tuple[TrainState, StepMetrics]:
        """Train the arch on a batch of its own data, then the weights on `batch`.

        The arrays of `state` are given up to the new one. Logits go to the host, so
        each step waits for the device.

        Raises:
          ValueError: If several batches are given.
        """
        if isinstance(batch, list):
            raise ValueError(
                "A relaxed step takes one batch (x, y), but got a list of "
                f"{len(batch)}. Leave out `accumulate`."
            )
        logits, own = self._learnt(state)
        when = np.int32(state.step)
        keys = [stream_key(state.seed, stream) for stream in (ARCHS, DROPOUT)]
        size = jax.tree.leaves(batch[0])[0].shape[0]
        searched = self._search_batch(state.seed, size)(state.step)
        logits, own = self._tune(logits, own, state.weights, searched, when, keys)
        params, optimizer, new, logged, norm, rate = self._train(
            state.weights.params,
            state.optimizer,
            (state.weights.state, logits),
            batch,
            when,
            keys,
        )
        logits, own = jax.device_get((logits, own))
        arch = discretized(self.supernet.space, logits)
        metrics = StepMetrics(state.step, (Planned(arch),), [logged], rate, norm)
        learnt, weights = _to_json((logits, own)), Weights(params, new)
        return TrainState(state.step + 1, state.seed, weights, optimizer, learnt), (
            metrics
        )

    def _search_batch(self, seed: int, size: int) -> Callable:
        key = seed, size
        if key not in self._batches:
            self._batches[key] = self.search.batches(seed, size, self.engine)
        return self._batches[key]

    def _loss(self, weights: Weights, logits, batch, when, keys, turn: int):
        arch_key, key = (
            jax.random.fold_in(jax.random.fold_in(k, when), turn) for k in keys
        )
        mixture = self.relaxation.mixture(logits, when, arch_key)
        outputs, state = run_mixture(self.supernet, weights, mixture, batch[0], key=key)
        means = {k: jnp.mean(m(outputs, batch[1])) for k, m in self.metrics.items()}
        return means["loss"], (means, state)

    def _train_arch(self, logits, own, weights, batch, when, keys):
        def loss(logits):
            return self._loss(weights, logits, batch, when, keys, 0)[0]

        gradients = jax.grad(loss)(logits)
        updates, own = self.arch_optimizer.update(gradients, own, logits)
        return optax.apply_updates(logits, updates), own

    def _train_weights(self, params, optimizer, rest, batch, when, keys):
        state, logits = rest

        def loss(params):
            return self._loss(Weights(params, state), logits, batch, when, keys, 1)

        gradients, (logged, new) = jax.grad(loss, has_aux=True)(params)
        rate = self.learning_rate
        rate = jnp.float32(rate(when) if callable(rate) else rate)
        norm, scale = programs.squared_norm(gradients), None
        if self.clip_norm is not None:
            scale = programs.clip_scale(norm, self.clip_norm)
        updated = {
            m: programs.apply_update(
                self.make_optimizer, params[m], optimizer[m], own, rate, scale
            )
            for m, own in gradients.items()
        }
        params = {m: own for m, (own, _) in updated.items()}
        optimizer = {m: own for m, (_, own) in updated.items()}
        return params, optimizer, new, logged, norm, rate


def halves(data: Data, seed: int = 0) -> tuple[Data, Data]:
    """Return data for the weights and data for the arch: halves of the training split.

    Args:
      data: Any; other splits are kept.
      seed: Decides which examples go where.

    Example:
      >>> weights_data, arch_data = halves(data)
    """
    order = np.random.default_rng(seed).permutation(len(data.train.x))
    middle = len(order) // 2
    return _part(data, order[:middle]), _part(data, order[middle:])


def _part(data: Data, places: np.ndarray) -> Data:
    x, y = data.train
    train = Split(x[np.sort(places)], y[np.sort(places)])
    return dataclasses.replace(data, train=train, _on_device={})


def _to_json(tree: Any) -> list[Any]:
    leaves = jax.device_get(jax.tree.leaves(tree))
    return [np.asarray(leaf).tolist() for leaf in leaves]


def _from_json(values: list[Any], like: Any) -> Any:
    leaves, treedef = jax.tree.flatten(like)
    return treedef.unflatten(
        [np.asarray(v, a.dtype) for v, a in zip(values, leaves, strict=True)]
    )
