"""Batches whose examples were drawn unevenly: losses reweighted, gradients measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from oneshot.losses import Metric

NORMS, PLACES = "gradient_norms", "places"  # logged for each example of such a batch


class Drawn(NamedTuple):
    """The targets of examples that were not drawn alike.

    Attributes:
      targets: As the loss takes them.
      weights: Factor of each example's loss, [n], such that the expected mean is that
        of examples drawn alike.
      places: Which examples of the training split they are, int32 [n].
    """

    targets: Any
    weights: Any
    places: Any


@dataclasses.dataclass(frozen=True)
class Reweighted:
    """A loss or metric of `(outputs, targets)` that weighs examples drawn unevenly.

    Attributes:
      metric: What is weighed. Its further arguments, such as the outputs of a teacher,
        are handed on; with targets that are not `Drawn` it is as it was.
    """

    metric: Callable

    def __call__(self, outputs: Any, targets: Any, *rest: Any) -> jax.Array:
        if not isinstance(targets, Drawn):
            return self.metric(outputs, targets, *rest)
        return targets.weights * self.metric(outputs, targets.targets, *rest)


@dataclasses.dataclass(frozen=True)
class GradientNorms:
    """The norm of each example's gradient with respect to the network's outputs.

    Times a factor that hardly depends on the example, it bounds the norm of the
    gradient of all weights, and it needs no backward pass (Katharopoulos & Fleuret
    2018, arXiv:1803.00942). The example's weight is no part of it.

    Attributes:
      loss: `(outputs, targets) -> [n]`.
    """

    loss: Metric
    each = True  # logged for each example instead of the mean

    def __call__(self, outputs: Any, targets: Any) -> jax.Array:
        plain = targets.targets if isinstance(targets, Drawn) else targets
        outputs = jax.lax.stop_gradient(outputs)  # not differentiated a second time
        gradients = jax.grad(lambda o: jnp.sum(self.loss(o, plain)))(outputs)
        squares = [
            jnp.sum(jnp.square(g.astype(jnp.float32)), axis=tuple(range(1, g.ndim)))
            for g in jax.tree.leaves(gradients)
        ]
        return jnp.sqrt(sum(squares, jnp.float32(0)))


@dataclasses.dataclass(frozen=True)
class Places:
    """Which training examples a batch holds; -1 where nobody said."""

    each = True

    def __call__(self, outputs: Any, targets: Any) -> jax.Array:
        if isinstance(targets, Drawn):
            return targets.places
        return jnp.full(jax.tree.leaves(targets)[0].shape[0], -1, jnp.int32)


def reweighted(metrics: dict[str, Metric]) -> dict[str, Metric]:
    """Return metrics for batches drawn unevenly, with what a sampler observes.

    Args:
      metrics: By name, among them "loss".

    Returns:
      Each of them reweighted, `gradient_norms` and `places`.
    """
    measured = {NORMS: GradientNorms(metrics["loss"]), PLACES: Places()}
    return {**{k: Reweighted(m) for k, m in metrics.items()}, **measured}


def check_drawn(batches: Sequence[tuple[Any, Any]]) -> None:
    """Raise unless a step was given one batch that says which examples it holds.

    Raises:
      ValueError: With what to do.
    """
    if len(batches) > 1:
        raise ValueError(
            "A strategy that draws examples observes one batch a step, but got "
            f"{len(batches)}. Leave `accumulate` at 1, or train larger batches."
        )
    if not isinstance(batches[0][1], Drawn):
        raise ValueError(
            "A strategy that draws examples was given a batch of which it does not "
            "know which examples it holds. Train with `fit`, or wrap the targets: "
            "oneshot.reweighting.Drawn(targets, weights, places)."
        )


def mean_of(metric: Metric, outputs: Any, targets: Any) -> jax.Array:
    """Return the mean of a metric over a batch, or its values where it says `each`."""
    values = metric(outputs, targets)
    return values if getattr(metric, "each", False) else jnp.mean(values)


def plain(metric: Metric) -> Metric:
    """Return the metric that a reweighted one weighs; others as they are."""
    return metric.metric if isinstance(metric, Reweighted) else metric
