"""Losses and metrics of sequences of tokens, one value for each sequence."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def next_token(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return each sequence's mean cross entropy over its tokens, in nats.

    Args:
      logits: [n, tokens, vocabulary], unnormalised; those at a token predict the next.
      targets: [n, tokens], the next tokens, or those that were hidden
        (`oneshot.mask_tokens`); negative where there is none, such as padding.

    Returns:
      [n], float32; 0 for a sequence without targets.

    Example:
      >>> next_token(jnp.zeros((1, 2, 4)), jnp.array([[3, -1]]))
      Array([1.3862944], dtype=float32)
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    places = jnp.maximum(targets, 0)[..., None]
    found = jnp.take_along_axis(log_p, places, axis=-1)[..., 0]
    return _over_tokens(-found, targets)


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
        wanted = jax.nn.one_hot(targets, logits.shape[-1], dtype=jnp.float32)
        wanted = optax.smooth_labels(wanted, self.amount)
        losses = optax.softmax_cross_entropy(logits.astype(jnp.float32), wanted)
        return _over_tokens(losses, targets)


def bits(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return `next_token` in bits, [n]."""
    return next_token(logits, targets) / math.log(2)


def token_accuracy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the share of each sequence's tokens that are predicted, float32 [n]."""
    right = jnp.argmax(logits, axis=-1) == targets
    return _over_tokens(right.astype(jnp.float32), targets)


def _over_tokens(values: jax.Array, targets: jax.Array) -> jax.Array:
    real = targets >= 0
    total = jnp.sum(jnp.where(real, values, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(real, axis=-1), 1)


def check_tokens(outputs: Any, targets: Any) -> None:
    """Raise if targets are not tokens that a network tells apart.

    Args:
      outputs: Abstract output of the head, [n, tokens, vocabulary].
      targets: [n, tokens], on the host or the device.

    Raises:
      ValueError: If shapes disagree, targets are no integers, one is beyond the
        vocabulary, or all are padding.
    """
    targets = np.asarray(targets)
    expected = list(outputs.shape[1:-1])
    if list(targets.shape[1:]) != expected or len(outputs.shape) != 3:
        raise ValueError(
            "The loss of the next token needs logits of shape [n, tokens, vocabulary] "
            f"and targets [n, tokens], but got {list(outputs.shape)} and "
            f"{list(targets.shape)}. For a label an example use cross_entropy."
        )
    if targets.dtype.kind not in "iu":
        raise ValueError(
            f"Tokens are integers, but the targets are {targets.dtype}. Convert them."
        )
    high = int(targets.max())
    if not 0 <= high < outputs.shape[-1]:
        raise ValueError(
            f"The largest target token is {high}, but the head returns "
            f"{outputs.shape[-1]} logits, for tokens 0 to {outputs.shape[-1] - 1} "
            "(negative targets are padding). Give the head the size of the vocabulary."
        )
