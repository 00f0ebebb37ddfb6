"""Losses of a student by its teacher: functions of (outputs, targets, teacher outputs).

Each returns one value for each example; of sequences, the mean over their tokens or
frames. Where targets stand one to a token, tokens whose target is negative, as padding
is, are left out; say `aligned=False` where they do not, as with CTC. Teachers' outputs
are constants: no gradient flows into the teacher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from oneshot.losses import Metric, cross_entropy

# (outputs, targets, the teacher's outputs) -> one value for each example
Distillation = Callable[[Any, Any, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class SoftCrossEntropy:
    """Cross entropy with a teacher's softened probabilities (Hinton et al. 2015,
    arXiv:1503.02531), as in-place distillation uses it (Yu et al. 2020, BigNAS,
    arXiv:2003.11142), beside that with the labels if asked for (Cai et al. 2020,
    Once-for-All, arXiv:1908.09791).

    The soft part is multiplied by the temperature's square, so that its gradient keeps
    its size.

    Args:
      temperature: Divides both sides' logits; above 0.
      soft: Weight of the teacher's part, 0 or more.
      labels: Weight of the labels' part, 0 or more: 0 in BigNAS, 1 in Once-for-All.
      hard: The labels' part, `(outputs, targets) -> [n]`; None is the loss of the
        trainer, or `cross_entropy` outside of one.
      aligned: Whether targets stand one to a token, so that those below 0 are padding.

    Raises:
      ValueError: If the temperature is not above 0, or a weight is negative.

    Example:
      >>> loss = SoftCrossEntropy()
      >>> loss(jnp.zeros((1, 4)), None, jnp.zeros((1, 4)))
      Array([1.3862944], dtype=float32)
    """

    temperature: float = 1.0
    soft: float = 1.0
    labels: float = 0.0
    hard: Metric | None = None
    aligned: bool = True

    def __post_init__(self):
        if not self.temperature > 0 or self.soft < 0 or self.labels < 0:
            raise ValueError(
                "A temperature is above 0, and weights of losses are 0 or more, but "
                f"got temperature={self.temperature}, soft={self.soft}, "
                f"labels={self.labels}."
            )

    def __call__(self, outputs: Any, targets: Any, teacher: Any) -> jax.Array:
        """Return the loss of each example, [n], float32."""
        log_student, log_teacher = _log_probabilities(
            outputs, teacher, self.temperature
        )
        cross = -jnp.sum(jnp.exp(log_teacher) * log_student, axis=-1)
        per_token = targets if self.aligned else None
        loss = self.soft * self.temperature**2 * _over_tokens(cross, per_token)
        if self.labels:
            hard = cross_entropy if self.hard is None else self.hard
            loss = loss + self.labels * hard(outputs, targets)
        return loss


@dataclasses.dataclass(frozen=True)
class AdaptiveAlphaDivergence:
    """The larger of two alpha-divergences of teacher and student (Wang et al. 2021,
    AlphaNet, arXiv:2102.07954).

    With teacher p and student q, D(p || q) = sum_i q_i ((p_i / q_i)^alpha - 1) /
    (alpha (alpha - 1)), at alpha 1 the Kullback-Leibler divergence. A negative alpha
    punishes a student that holds likely what its teacher does not, as one that is less
    sure does; a positive one punishes a student that misses what its teacher holds
    likely. The larger of the two is taken for each example. Powers of the ratio are cut
    at `clip`, in value and gradient, or rare classes would dominate; at alpha 1, where
    the gradient is the teacher's probabilities and cannot grow, nothing is cut.

    Args:
      low: The negative alpha.
      high: The positive alpha.
      clip: Bound on (p / q)^alpha, above 1.
      aligned: Whether targets stand one to a token, so that those below 0 are padding.

    Raises:
      ValueError: If `low` is not below 0, `high` not above 0, or `clip` not above 1.

    Example:
      >>> loss = AdaptiveAlphaDivergence()
      >>> loss(jnp.zeros((1, 4)), None, jnp.zeros((1, 4)))
      Array([0.], dtype=float32)
    """

    low: float = -1.0
    high: float = 1.0
    clip: float = 5.0
    aligned: bool = True

    def __post_init__(self):
        if not self.low < 0 < self.high or not self.clip > 1:
            raise ValueError(
                "The alphas are one below 0 and one above, and the bound on powers of "
                f"the ratio is above 1, but got low={self.low}, high={self.high}, "
                f"clip={self.clip}."
            )

    def __call__(self, outputs: Any, targets: Any, teacher: Any) -> jax.Array:
        """Return the loss of each example, [n], float32."""
        log_q, log_p = _log_probabilities(outputs, teacher, 1.0)
        low, high = (
            _alpha_divergence(log_p, log_q, alpha, self.clip)
            for alpha in (self.low, self.high)
        )
        per_token = targets if self.aligned else None
        return _over_tokens(jnp.maximum(low, high), per_token)


def _log_probabilities(outputs: Any, teacher: Any, temperature: float):
    student, teacher = (
        jax.nn.log_softmax(jnp.asarray(x).astype(jnp.float32) / temperature)
        for x in (outputs, teacher)
    )
    return student, jax.lax.stop_gradient(teacher)


def _over_tokens(losses: jax.Array, targets: Any) -> jax.Array:
    """Return the mean of each example, over its tokens whose target is no padding."""
    if losses.ndim == 1:
        return losses
    real = jnp.ones_like(losses, bool)
    if targets is not None and jnp.shape(targets) == losses.shape:
        real = jnp.asarray(targets) >= 0
    axes = tuple(range(1, losses.ndim))
    total = jnp.sum(jnp.where(real, losses, 0.0), axis=axes)
    return total / jnp.maximum(jnp.sum(real, axis=axes), 1)


def _alpha_divergence(log_p, log_q, alpha: float, clip: float) -> jax.Array:
    # d D / d theta = -1/alpha sum_i q_i (p_i / q_i)^alpha d log q_i / d theta. With the
    # power cut, this is no longer the derivative of the value, so each is given its own
    # expression: `gradient - stop(gradient)` is zero and has the derivative.
    if alpha == 1:
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    q = jax.lax.stop_gradient(jnp.exp(log_q))
    ratio = jax.lax.stop_gradient(log_p - log_q)
    power = jnp.exp(jnp.minimum(alpha * ratio, jnp.log(clip)))
    value = jnp.sum(q * (power - 1), axis=-1) / (alpha * (alpha - 1))
    gradient = -jnp.sum(q * power * log_q, axis=-1) / alpha
    return value + gradient - jax.lax.stop_gradient(gradient)
