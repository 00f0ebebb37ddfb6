"""Optimizers: two ready ones, and what one must be to work module by module."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from oneshot.programs import MakeOptimizer


def check_optimizer(make_optimizer: MakeOptimizer) -> None:
    """Raise if an optimizer cannot be applied module by module.

    Two things are recognised. A schedule inside would count a module's visits, not the
    steps of the run. A transformation that mixes leaves, such as a global clip, would
    see one module instead of the whole path; it is found by changing the gradient of
    one of two leaves and looking at the update of the other.

    Args:
      make_optimizer: `learning_rate -> optax.GradientTransformation`.

    Raises:
      ValueError: With what to use instead.
    """
    try:
        transformation = make_optimizer(0.1)
        states, updates = _probe(transformation)
    except (AttributeError, TypeError) as error:
        raise ValueError(
            "The optimizer is a function of the learning rate that returns an optax "
            f"transformation, such as `lambda lr: optax.sgd(lr, momentum=0.9)`: {error}"
        ) from error
    kinds = {type(s) for s in jax.tree.leaves(states, is_leaf=_is_named)}
    if optax.ScaleByScheduleState in kinds:
        raise ValueError(
            "The optimizer holds a schedule, which would count the visits of each "
            "module instead of the steps of the run. Pass the schedule as the "
            "trainer's `learning_rate`, and build the optimizer from the rate it is "
            "given."
        )
    if not np.array_equal(*updates):
        raise ValueError(
            "The optimizer mixes the gradients of different arrays (a global norm, for "
            "example), but is applied to each module on its own. For clipping use the "
            "trainer's `clip_norm`, which clips the gradient of the whole path."
        )


def _is_named(node: object) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def _probe(transformation: optax.GradientTransformation):
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    state = transformation.init(params)

    def update(factor):
        gradients = {"a": jnp.full((2, 2), 3.0), "b": jnp.full((2, 2), factor)}
        updates: Any = transformation.update(gradients, state, params)[0]
        return updates["a"]

    compiled = jax.jit(update)
    return state, (np.asarray(compiled(5.0)), np.asarray(compiled(5e4)))


def sgd(
    momentum: float = 0.9, weight_decay: float = 0.0, *, decay_all: bool = True
) -> MakeOptimizer:
    """Return SGD with Nesterov momentum, as a function.

    Args:
      momentum: Decay of the mean of gradients.
      weight_decay: Added to the gradient, times the weight.
      decay_all: Whether biases and arrays of one axis, such as the scales of norms,
        decay too; Once-for-All and AttentiveNAS spare them.

    Example:
      >>> Trainer(net, strategy, sgd(weight_decay=5e-4), 0.1)
    """

    def make(learning_rate: Any) -> optax.GradientTransformation:
        mask = None if decay_all else _decayed
        decay = optax.add_decayed_weights(weight_decay, mask)
        return optax.chain(decay, optax.sgd(learning_rate, momentum, nesterov=True))

    return make


def adamw(momentum: float = 0.9, weight_decay: float = 0.0) -> MakeOptimizer:
    """Return AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), as a function.

    Decay spares biases, which are the arrays whose name ends so, and arrays of one
    axis, such as the scales of norms.

    Args:
      momentum: Decay of the mean of gradients, Adam's first beta.
      weight_decay: As the paper's, times the learning rate at each step.

    Example:
      >>> Trainer(net, strategy, adamw(weight_decay=0.05), 1e-3)
    """

    def make(learning_rate: Any) -> optax.GradientTransformation:
        return optax.adamw(
            learning_rate, b1=momentum, weight_decay=weight_decay, mask=_decayed
        )

    return make


def muon(
    momentum: float = 0.95, weight_decay: float = 0.0, others: float = 0.1
) -> MakeOptimizer:
    """Return Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    The update of each matrix is orthogonalised, so that it moves all directions alike;
    kernels of convolutions count as matrices to their last axis. Depthwise kernels and
    arrays of one axis train by Adam, which costs less and suits them.

    Args:
      momentum: Decay of the mean of gradients.
      weight_decay: Of matrices, times the learning rate at each step.
      others: Adam's learning rate as a multiple of the matrices'.

    Example:
      >>> Trainer(net, strategy, muon(), 0.02)
    """

    def make(learning_rate: Any) -> optax.GradientTransformation:
        return optax.contrib.muon(
            learning_rate,
            beta=momentum,
            weight_decay=weight_decay,
            adam_learning_rate=others * learning_rate,
            muon_weight_dimension_numbers=_matrices,
        )

    return make


def _matrices(params: Any) -> Any:
    """Return which axes of each array are a matrix's rows and columns; None of others.

    A depthwise kernel, [height, width, 1, channels], has one input a channel.
    """

    def one(array: Any) -> optax.contrib.MuonDimensionNumbers | None:
        axes = jnp.ndim(array)
        if axes < 2 or (axes > 2 and array.shape[-2] == 1):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(axes - 1)), axes - 1)

    return jax.tree.map(one, params)


def _decayed(params: Any) -> Any:
    def matrix(path: tuple[Any, ...], array: Any) -> bool:
        names = [str(entry.key) for entry in path if hasattr(entry, "key")]
        # A bias of heads has two axes, [heads, head_size].
        return jnp.ndim(array) > 1 and not (names and names[-1].endswith("bias"))

    return jax.tree_util.tree_map_with_path(matrix, params)
