"""Averages of shared weights over training, kept where the optimizer keeps its own.

A module's average moves when the module is trained, not at every step of the run: it
covers as many of its own updates, however rarely paths visit it. As part of the
optimizer's state it is saved, sharded and resumed with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from oneshot.freezing import Freeze
from oneshot.momentum import Separated
from oneshot.nested import overlaid
from oneshot.programs import MakeOptimizer
from oneshot.supernet import Tree, Weights


class AverageState(NamedTuple):
    """The average of a module's trained arrays, and how often it was updated."""

    average: Tree
    updates: jax.Array


@dataclasses.dataclass(frozen=True)
class Averaged:
    """An optimizer that also keeps exponential moving averages of the weights.

    With fewer than about 1 / (1 - decay) updates behind it the average is the plain
    mean of all of them (Polyak and Juditsky 1992), so it has no memory of the start.

    Args:
      optimizer: `learning_rate -> optax.GradientTransformation`.
      decay: Between 0 and 1: an average reaches back about 1 / (1 - decay) updates of
        its module.

    Raises:
      ValueError: If `decay` is not between 0 and 1, or the optimizer is a `Freeze` or
        a `Separated`, which have to stand outside.

    Example:
      >>> trainer = Trainer(net, strategy, Averaged(sgd(), 0.999), 0.1)
      >>> scores = evaluator(averages(state), archs)  # after training
    """

    optimizer: MakeOptimizer
    decay: float = 0.999

    def __post_init__(self):
        if not 0 < self.decay < 1:
            raise ValueError(
                "The decay of an average is between 0 and 1, such as 0.999, but got "
                f"{self.decay}."
            )
        if isinstance(self.optimizer, Freeze | Separated):
            kind = type(self.optimizer).__name__
            raise ValueError(
                f"{kind} has to stand outside, or the trainer does not see it: write "
                f"{kind}(Averaged(optimizer), ...)."
            )

    def __call__(self, learning_rate: Any) -> optax.GradientTransformation:
        """Return the transformation, whose state ends with the average."""
        inner = self.optimizer(learning_rate)

        def init(params):
            copied = jax.tree.map(jnp.copy, params)  # steps reuse the weights' memory
            return inner.init(params), AverageState(copied, jnp.int32(0))

        def update(updates, state, params=None):
            own, (average, n) = state
            updates, own = inner.update(updates, own, params)
            share = 1 - jnp.minimum(self.decay, n / (1 + n))

            def move(old, param, change):
                new = param + change.astype(param.dtype)
                return old + share.astype(old.dtype) * (new - old)

            average = jax.tree.map(move, average, params, updates)
            return updates, (own, AverageState(average, n + 1))

        return optax.GradientTransformation(init, update)


def averages(state: Any) -> Weights:
    """Return the averaged weights of a training state, for scoring or extraction.

    Statistics of BatchNorm are those of training: recalibrate them, as scoring does.

    Args:
      state: A `TrainState` of a trainer whose optimizer is `Averaged`.

    Returns:
      Weights, whose arrays are the state's own: the next step gives them up, so copy
      what shall be kept.

    Raises:
      ValueError: If the optimizer keeps no averages.

    Example:
      >>> weights = averages(state)
    """
    params = {
        module: overlaid(own, _average(state.optimizer, module))
        for module, own in state.weights.params.items()
    }
    return Weights(params, state.weights.state)


def _average(optimizer: Mapping[str, Any], module: str) -> Tree:
    """Return the average of a module; of groups (`Separated`) the mean of theirs, by
    how often each was updated."""
    found = [s for s in _parts(optimizer[module]) if isinstance(s, AverageState)]
    if not found:
        raise ValueError(
            f"The optimizer state of {module!r} holds no average. Wrap the trainer's "
            "optimizer in `Averaged` before training."
        )
    if len(found) == 1:
        return found[0].average
    weights = jnp.stack([state.updates for state in found]).astype(jnp.float32)
    weights = jnp.where(weights.sum() > 0, weights, 1.0)
    shares = weights / weights.sum()

    def mean(*arrays):
        return sum(a * s.astype(a.dtype) for a, s in zip(arrays, shares, strict=True))

    return jax.tree.map(mean, *[state.average for state in found])


def _parts(state: Any) -> list[Any]:
    """Return the last parts of an optimizer state, or of the states of groups."""
    if not isinstance(state, tuple) or not state:
        return []
    if isinstance(state[-1], AverageState):
        return [state[-1]]
    return [part for group in state for part in _parts(group)]
