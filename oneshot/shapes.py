"""Pytrees by their shapes and dtypes alone."""

from __future__ import annotations

from collections.abc import Hashable

import jax
import jax.numpy as jnp

from oneshot.functional import Tree


def abstract(tree: Tree) -> Tree:
    """Return the shapes and dtypes of a pytree of arrays."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), tree
    )


def freeze(tree: Tree) -> Hashable:
    """Return the shapes and dtypes of a pytree as something to look up by."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple((a.shape, a.dtype) for a in leaves)


def thaw(frozen) -> Tree:
    """Return the shapes and dtypes that `freeze` took, as a pytree again."""
    treedef, leaves = frozen
    return treedef.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in leaves])


def shapes(tree: Tree) -> str:
    """Return the dtypes and shapes of a pytree, for messages."""
    return ", ".join(
        f"{a.dtype}{list(a.shape)}" for a in jax.tree.leaves(abstract(tree))
    )
