"""The shared weights of a supernet, and what is said if something else is given."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from oneshot.functional import Tree


class Weights(NamedTuple):
    """The shared weights of a supernet, by module name; unpacks as (params, state).

    Attributes:
      params: Trainable arrays of each module.
      state: Other arrays of each module, such as BatchNorm's running averages.
    """

    params: dict[str, Tree]
    state: dict[str, Tree]


def check_weights(weights: Any) -> None:
    """Raise if these are no weights, or were given up to a later step of training.

    Args:
      weights: What was given for the weights.

    Raises:
      ValueError: If they are something else, or their memory was used again.
    """
    if not isinstance(weights, Weights):
        hint = " Pass state.weights." if hasattr(weights, "weights") else ""
        raise ValueError(
            "Weights are a `Weights` of params and state, such as `state.weights`, but "
            f"got a {type(weights).__name__}.{hint}"
        )
    if any(_is_deleted(leaf) for leaf in jax.tree.leaves(tuple(weights))):
        raise ValueError(
            "These weights are of a state that a later step of training has reused the "
            "memory of. Take those of the latest state, or copy them before training "
            "on: jax.tree.map(jnp.copy, state.weights)."
        )


def _is_deleted(leaf: Any) -> bool:
    traced = isinstance(leaf, Tracer)  # has no memory to be used again
    return isinstance(leaf, jax.Array) and not traced and leaf.is_deleted()
