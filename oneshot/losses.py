"""Losses and metrics: functions of (outputs, targets), one value for each example."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Metric = Callable[[Any, Any], jax.Array]
Metrics = Mapping[str, Metric]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the cross entropy of each example, in nats.

    Args:
      logits: [n, classes], unnormalised.
      labels: [n], integers in 0 to classes - 1; or [n, classes], probabilities, as
        mixed examples have.

    Returns:
      [n], float32.

    Example:
      >>> cross_entropy(jnp.zeros((1, 4)), jnp.zeros(1, int))
      Array([1.3862944], dtype=float32)
    """
    logits = logits.astype(jnp.float32)
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return optax.softmax_cross_entropy(logits, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


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
        """Return the loss of each example, [n]."""
        targets = labels
        if not jnp.issubdtype(labels.dtype, jnp.floating):
            targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
        targets = optax.smooth_labels(targets, self.amount)
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return 1 where the largest logit is the label's, else 0, as float32 [n].

    Of labels that are probabilities the largest counts.
    """
    if jnp.issubdtype(labels.dtype, jnp.floating):
        labels = jnp.argmax(labels, axis=-1)
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def next_token(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return each sequence's mean cross entropy over its tokens, in nats.

    Args:
      logits: [n, tokens, vocabulary], unnormalised; those at a token predict the next.
      targets: [n, tokens], the next tokens; negative where there is none (padding).

    Returns:
      [n], float32; 0 for a sequence without targets.

    Example:
      >>> next_token(jnp.zeros((1, 2, 4)), jnp.array([[3, -1]]))
      Array([1.3862944], dtype=float32)
    """
    return _over_tokens(cross_entropy, logits, targets)


@dataclasses.dataclass(frozen=True)
class SmoothedNextToken:
    """`next_token` against targets mixed with `amount` of the uniform ones.

    Args:
      amount: In 0 to 1.

    Example:
      >>> Trainer(net, strategy, optimizer, 1e-3, loss=SmoothedNextToken(0.1))
    """

    amount: float

    def __call__(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """Return the loss of each sequence, [n]."""
        return _over_tokens(SmoothedCrossEntropy(self.amount), logits, targets)


def bits(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return `next_token` in bits, [n]."""
    return next_token(logits, targets) / math.log(2)


def token_accuracy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the share of each sequence's tokens that are predicted, float32 [n]."""
    return _over_tokens(accuracy, logits, targets)


def _over_tokens(metric: Metric, logits: jax.Array, targets: jax.Array) -> jax.Array:
    real = targets >= 0
    values = metric(logits, jnp.where(real, targets, 0))
    total = jnp.sum(jnp.where(real, values, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(real, axis=-1), 1)


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


def check_labels(outputs: Any, targets: Any, loss: Metric) -> None:
    """Raise if integer labels fall outside the classes that a network tells apart.

    XLA clamps an index out of range without a word, so a wrong label would train.

    Args:
      outputs: Abstract output of the head.
      targets: Host or device labels.
      loss: Only cross entropy, of examples or of tokens, defines what labels mean;
        others are not checked.

    Raises:
      ValueError: If labels are not one integer an example (or token), or one is not
        below the number of classes, or negative without being a token's.
    """
    tokens = loss is next_token or isinstance(loss, SmoothedNextToken)
    known = loss is cross_entropy or isinstance(loss, SmoothedCrossEntropy)
    if not (known or tokens) or not hasattr(outputs, "shape") or not len(targets):
        return
    targets = np.asarray(targets)
    if targets.ndim != len(outputs.shape) - 1 or targets.dtype.kind not in "iu":
        raise ValueError(
            f"Cross entropy needs integer labels of shape {list(outputs.shape[:-1])}, "
            f"but got {targets.dtype}{list(targets.shape)}. Convert them: "
            "y.astype(int) for numbers, y.argmax(-1) for one-hot rows, y.ravel() for a "
            "column."
        )
    low, high = int(np.min(targets)), int(np.max(targets))
    low = max(low, 0) if tokens else low  # negative ones are padding
    if low < 0 or high >= outputs.shape[-1]:
        raise ValueError(
            f"Labels go from {low} to {high}, but the head returns {outputs.shape[-1]} "
            f"logits, for labels 0 to {outputs.shape[-1] - 1}. Give the head as many "
            "outputs as there are classes, and number the classes from 0."
        )
