"""Scores by what a network's last layer is given, instead of by what it says.

All networks of a supernet share one head, which fits none of them as well as a head of
its own would. What the head is given tells more of what training a network alone would
reach: how well classes lie apart in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp

from oneshot.functional import Functional, Tree
from oneshot.losses import Metric
from oneshot.shapes import shapes
from oneshot.supernet import Supernet


def with_features(supernet: Supernet, *, pool: bool = True) -> Supernet:
    """Return the supernet with outputs (outputs, what the head was given).

    Args:
      supernet: Any whose head is given an array [n, ..., channels]; of several, the
        features are the largest of floating point that has n rows.
      pool: Whether features are means over the axes between, [n, channels]; False
        keeps them, as where each token has a target. (A head that reads one of the
        places, such as the last token, is given more than the mean tells.)

    Returns:
      A supernet of the same space and weights.

    Raises:
      ValueError: When it runs, if its head is given no such array.

    Example:
      >>> metrics = {"loss": OfOutputs(cross_entropy), "alignment": Alignment()}
      >>> evaluator = Evaluator(with_features(net), data, loss=metrics)
      >>> evaluator(state.weights, archs).mean("alignment")
    """
    last = {name for name, _ in supernet.slots[-1].modules(supernet.space.choices)}

    def change(name: str, module: Functional) -> Functional:
        return _observed(module, pool) if name in last else module

    return supernet.with_modules(change)


@dataclasses.dataclass(frozen=True, eq=False)
class _Observed(Functional):
    """A module that returns what it was given beside what it returns."""

    pool: bool = True

    def structure(self) -> Hashable:
        return super().structure(), "observed", self.pool

    def apply(self, params, state, carry, **how):
        outputs, new = super().apply(params, state, carry, **how)
        found = max(_of_examples(carry, outputs), key=jnp.size)
        axes = tuple(range(1, jnp.ndim(found) - 1)) if self.pool else ()
        return (outputs, jnp.mean(found, axis=axes)), new


def _of_examples(carry: Tree, outputs: jax.Array) -> list[jax.Array]:
    """Return the floating point arrays of a carry that have a row for each example."""
    n, leaves = len(outputs), [jnp.asarray(a) for a in jax.tree.leaves(carry)]
    found = [
        a
        for a in leaves
        if jnp.issubdtype(a.dtype, jnp.floating) and a.ndim > 1 and len(a) == n
    ]
    if not found:
        raise ValueError(
            f"Features are what the head is given, [{n}, ..., channels] for outputs of "
            f"{n} examples, but it is given {shapes(carry)}. Let the layer before the "
            "head return such an array."
        )
    return found


def _observed(module: Functional, pool: bool) -> _Observed:
    own = {f.name: getattr(module, f.name) for f in dataclasses.fields(Functional)}
    return _Observed(**own, pool=pool)


@dataclasses.dataclass(frozen=True)
class OfOutputs:
    """A metric of the outputs of a supernet that returns features beside them.

    Args:
      metric: `(outputs, targets) -> [n]`.
    """

    metric: Metric

    def __call__(self, outputs: Any, targets: Any) -> jax.Array:
        return self.metric(outputs[0], targets)


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Minus the alignment of features with classes, over all examples scored at once.

    It is the centred alignment of two kernels, the inner products of features and
    whether classes are equal: 1 where two examples are alike if and only if they are
    of one class. No example is compared with itself. Nothing is fitted, so it has no
    settings; scale, rotation and mean of the features do not matter.

    Each example's value depends on the others of its chunk: compare scores of one
    `Resources(chunk=...)` only.

    Reference:
      Cortes, Mohri, Rostamizadeh. Algorithms for learning kernels based on centered
      alignment. JMLR 13, 2012.
    """

    together = True  # examples of a chunk are never taken a few at a time

    def __call__(self, outputs: Any, targets: Any) -> jax.Array:
        """Return [n] of which the mean is minus the alignment, and its error the error.

        An example counts in every pair that it is part of, so its value is the mean and
        its influence on it, which is about twice what it adds to the sum of pairs.
        """
        x, y, real = _rows(outputs[1], targets, outputs[0].shape[-1])
        own = jnp.sum(x * x, axis=1) * jnp.sum(y * y, axis=1)
        shared = jnp.sum((x @ (x.T @ y)) * y, axis=1) - own
        of_x, of_y = _squares_apart(x), _squares_apart(y)
        squares = jnp.maximum(jnp.sum(of_x), 1e-30), jnp.maximum(jnp.sum(of_y), 1e-30)
        size = jnp.sqrt(squares[0]) * jnp.sqrt(squares[1])
        found = jnp.sum(shared) / size
        influence = 2 * shared / size - found * (of_x / squares[0] + of_y / squares[1])
        influence, real = (
            jnp.sum(a.reshape(len(targets), -1), axis=1) for a in (influence, real)
        )
        return jnp.where(real > 0, -found - influence * jnp.sum(real > 0), 0)


@dataclasses.dataclass(frozen=True)
class Refitted:
    """The squared error of a linear head refitted to features, without the example.

    For each example the head is the ridge regression on all others that are scored at
    once, in closed form (Allen 1974), so that no example is predicted by its own class.
    As of `Alignment`, compare scores of one chunk size only.

    Args:
      ridge: Penalty on the head's weights, above 0, in units of the features' mean
        squared norm times the number of examples.

    Raises:
      ValueError: If the ridge is not above 0.

    Reference:
      Allen. The relationship between variable selection and data augmentation and a
      method for prediction. Technometrics 16(1), 1974.
    """

    ridge: float = 0.02
    together = True

    def __post_init__(self):
        if not self.ridge > 0:
            raise ValueError(f"The ridge is above 0, but got {self.ridge}.")

    def __call__(self, outputs: Any, targets: Any) -> jax.Array:
        """Return the squared error of each example, [n]."""
        x, y, real = _rows(outputs[1], targets, outputs[0].shape[-1])
        penalty = self.ridge * jnp.sum(x * x) + 1e-30  # all may be equal
        inverse = jnp.linalg.inv(x.T @ x + penalty * jnp.eye(x.shape[1]))
        projected = x @ inverse
        # Without an example the residual is the residual over 1 - its leverage.
        residual = (y - projected @ (x.T @ y)) / (
            1 - jnp.sum(projected * x, axis=1, keepdims=True)
        )
        return _by_example(jnp.sum(residual**2, axis=1), real, targets)


def _rows(features: jax.Array, targets: Any, classes: int):
    """Return centred features [m, channels], centred classes [m, classes], and which
    rows count, [m]: not those of padding, whose target is below 0."""
    labels = jnp.asarray(targets)
    if jnp.issubdtype(labels.dtype, jnp.floating):  # shares of the classes
        y = labels.astype(jnp.float32).reshape(-1, classes)
        real = jnp.all(y >= 0, axis=1, keepdims=True).astype(jnp.float32)
    else:
        labels = labels.reshape(-1)
        y = jax.nn.one_hot(labels, classes)
        real = (labels >= 0).astype(jnp.float32)[:, None]
    x = features.astype(jnp.float32).reshape(len(y), -1)
    count = jnp.maximum(jnp.sum(real), 1)
    x, y = (a - jnp.sum(a * real, axis=0, keepdims=True) / count for a in (x, y))
    return x * real, y * real, real[:, 0]


def _squares_apart(x: jax.Array) -> jax.Array:
    """Return the sum of each row's squared inner products with all others, [rows]."""
    if x.shape[1] < x.shape[0]:
        every = jnp.sum((x @ (x.T @ x)) * x, axis=1)
    else:
        every = jnp.sum((x @ x.T) ** 2, axis=1)
    return every - jnp.sum(x * x, axis=1) ** 2


def _by_example(values: jax.Array, real: jax.Array, targets: Any) -> jax.Array:
    """Return the mean of each example over its rows that count."""
    values, real = (a.reshape(len(targets), -1) for a in (values * real, real))
    return jnp.sum(values, axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)
