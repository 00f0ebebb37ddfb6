"""What an optimizer must be, to be applied to each module on its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
