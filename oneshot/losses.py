"""Losses and metrics: functions of (outputs, targets), one value for each example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from oneshot.ctc import CTC as CTC
from oneshot.ctc import check_sequences
from oneshot.ctc import ctc as ctc
from oneshot.ctc import token_error_rate as token_error_rate
from oneshot.token_losses import SmoothedNextToken as SmoothedNextToken
from oneshot.token_losses import bits as bits
from oneshot.token_losses import check_tokens
from oneshot.token_losses import next_token as next_token
from oneshot.token_losses import token_accuracy as token_accuracy

Metric = Callable[[Any, Any], jax.Array]
Metrics = Mapping[str, Metric]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the cross entropy of each example, in nats.

    Args:
      logits: [n, classes], unnormalised.
      labels: [n], integers in 0 to classes - 1; or [n, classes], the classes' shares,
        as mixing examples gives them (`oneshot.mixing`).

    Returns:
      [n], float32.

    Example:
      >>> cross_entropy(jnp.zeros((1, 4)), jnp.zeros(1, int))
      Array([1.3862944], dtype=float32)
    """
    logits = logits.astype(jnp.float32)
    if _shares(logits, labels):
        return optax.softmax_cross_entropy(logits, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _shares(logits: jax.Array, labels: jax.Array) -> bool:
    """Whether labels are shares of the classes instead of their numbers."""
    return labels.shape == logits.shape and jnp.issubdtype(labels.dtype, jnp.floating)


@dataclasses.dataclass(frozen=True)
class SmoothedCrossEntropy:
    """Cross entropy against labels mixed with `amount` of the uniform ones.

    Args:
      amount: In 0 to 1; 0.1 is usual (Szegedy et al. 2016, arXiv:1512.00567).

    Example:
      >>> Trainer(net, strategy, optimizer, 0.1, loss=SmoothedCrossEntropy(0.1))
    """

    amount: float

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Return the loss of each example, [n]; labels as in `cross_entropy`."""
        targets = labels
        if not _shares(logits, labels):
            targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
        targets = optax.smooth_labels(targets, self.amount)
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return 1 where the largest logit is the label's, else 0, as float32 [n].

    Of labels that are shares of the classes, the largest counts.
    """
    if _shares(logits, labels):
        labels = jnp.argmax(labels, axis=-1)
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


CLASSIFICATION: Metrics = {"loss": cross_entropy, "accuracy": accuracy}


def as_metrics(loss: Metric | Metrics) -> dict[str, Metric]:
    """Return metrics by name, among them "loss", from a loss or from metrics.

    Raises:
      ValueError: If a mapping has no "loss".
    """
    if not isinstance(loss, Mapping):
        return (
            {"loss": loss, "accuracy": accuracy}
            if loss is cross_entropy
            else {"loss": loss}
        )
    if "loss" not in loss:
        raise ValueError(
            "The metrics need one called 'loss', which is trained on and ranked by; "
            f"got {sorted(loss)}."
        )
    return dict(loss)


def compares_examples(metric: Metric) -> bool:
    """Return whether a metric's value of an example depends on the others of its batch.

    Such a metric has an attribute `together` that is true.
    """
    return bool(getattr(metric, "together", False))


def check_labels(outputs: Any, targets: Any, loss: Metric) -> None:
    """Raise if integer labels fall outside the classes that a network tells apart.

    XLA clamps an index out of range without a word, so a wrong label would train.

    Args:
      outputs: Abstract output of the head.
      targets: Host or device labels.
      loss: Cross entropy and CTC define what labels mean; others are not checked.

    Raises:
      ValueError: If labels are not one integer an example, nor shares of the classes,
        or one is negative or not below the number of classes; for CTC see
        `oneshot.ctc.check_sequences`.
    """
    if loss is ctc and hasattr(outputs, "shape") and len(targets):
        return check_sequences(outputs, targets)
    if loss is next_token or isinstance(loss, SmoothedNextToken):
        return check_tokens(outputs, targets)
    known = loss is cross_entropy or isinstance(loss, SmoothedCrossEntropy)
    if not known or not hasattr(outputs, "shape") or not len(targets):
        return
    targets = np.asarray(targets)
    if targets.dtype.kind == "f" and targets.shape[1:] == outputs.shape[1:]:
        return _check_shares(targets)
    if targets.ndim != len(outputs.shape) - 1 or targets.dtype.kind not in "iu":
        raise ValueError(
            f"Cross entropy needs integer labels of shape {list(outputs.shape[:-1])}, "
            f"but got {targets.dtype}{list(targets.shape)}. Convert them: "
            "y.astype(int) for numbers, y.argmax(-1) for one-hot rows, y.ravel() for a "
            "column."
        )
    low, high = int(np.min(targets)), int(np.max(targets))
    if low < 0 or high >= outputs.shape[-1]:
        raise ValueError(
            f"Labels go from {low} to {high}, but the head returns {outputs.shape[-1]} "
            f"logits, for labels 0 to {outputs.shape[-1] - 1}. Give the head as many "
            "outputs as there are classes, and number the classes from 0."
        )


def check_shape(name: str, metric: Metric, outputs: Any, targets: Any) -> None:
    """Raise if a metric does not give one value for each example.

    A mean over the examples would train, and be scored, without the weights and the
    errors that examples have.

    Args:
      name: What the metric is called.
      metric: `(outputs, targets) -> [n]`.
      outputs: Abstract outputs for n examples.
      targets: Theirs; only shapes and dtypes matter.

    Raises:
      ValueError: If it returns another shape.
    """
    n = len(targets)
    like = jax.ShapeDtypeStruct(targets.shape, targets.dtype)
    found = jax.eval_shape(metric, outputs, like)
    shapes = [list(leaf.shape) for leaf in jax.tree.leaves(found)]
    if shapes != [[n]]:
        raise ValueError(
            f"The metric {name!r} returns one number for each example, [{n}] for {n} "
            f"of them, but this one returned {', '.join(map(str, shapes))}. Take means "
            "over the axes of an example only, not over the examples."
        )


def _check_shares(targets: np.ndarray) -> None:
    sums = targets.sum(-1)
    if (targets < 0).any() or not np.allclose(sums, 1, atol=1e-3):
        bad = int(np.argmax((targets < 0).any(-1) | (np.abs(sums - 1) > 1e-3)))
        raise ValueError(
            "Labels that are shares of the classes are 0 or more and sum to 1, but "
            f"those of example {bad} sum to {sums[bad]:.3g}, the smallest of them "
            f"{targets[bad].min():.3g}. Normalise them, or give integer labels."
        )
