"""Hidden channels in the order of their importance, before a width becomes elastic.

A narrow block runs the first of its hidden channels. In a supernet whose full width has
been trained these are any channels; sorted, they are those that the next layer reads
most, by the L1 norm of its weights. So one trains the full width first, sorts once,
and then lets the width be elastic. Sorting changes no network of full width, as all
that belongs to a channel moves with it. Cai et al., Once-for-All, ICLR 2020,
arXiv:1908.09791, section 3.

Only channels within a module can be sorted; the width between modules is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from oneshot.functional import Tree
from oneshot.nn.channels import Axis, ChannelGroup, Permutable
from oneshot.supernet import Supernet, Weights


def sort_channels(
    supernet: Supernet, weights: Weights, modules: Sequence[str] | None = None
) -> Weights:
    """Return weights whose hidden channels are sorted, the most important first.

    Of modules that say which of their channels may change places (see
    `oneshot.nn.channels.Permutable`); others stay as they are. An optimizer's momentum
    is not sorted along: begin the next phase with a fresh one.

    Args:
      supernet: The supernet.
      weights: Its weights, trained at full width.
      modules: Names of modules to sort; by default all that can be.

    Returns:
      New weights: the same function at full width, but for rounding.

    Raises:
      ValueError: If a named module does not exist, or cannot be sorted.

    Example:
      >>> weights = sort_channels(net, state.weights)
      >>> state = trainer.init(seed, images, weights)
    """
    params, state = dict(weights.params), dict(weights.state)
    every = {name: _groups(supernet, name) for name in supernet.modules}
    able = {name: groups for name, groups in every.items() if groups}
    if unable := [name for name in modules or () if name not in able]:
        raise ValueError(
            f"Modules {unable} do not exist or do not say which channels may change "
            f"places; those that do are {[*able]}. Give a module the method "
            "`channel_groups`, or leave it out."
        )
    for name in able if modules is None else modules:
        for group in able[name]:
            params[name], state[name] = _sorted(group, params[name], state[name])
    return Weights(params, state)


def _groups(supernet: Supernet, name: str) -> tuple[ChannelGroup, ...]:
    abstract = supernet.modules[name]
    module = abstract.merge(abstract.params, abstract.state, "eval")
    return module.channel_groups() if isinstance(module, Permutable) else ()


def _sorted(group: ChannelGroup, params: Tree, state: Tree) -> tuple[Tree, Tree]:
    order = jnp.argsort(-importance(group.reader, params), stable=True)

    def permute(path: str, array: Array) -> Array:
        for name, axis in group.axes:
            if name == path:
                array = jnp.take(array, order, axis)
        return array

    def narrow(path: str, array: Array) -> Array:
        wide = dict(group.copies).get(path)
        if wide is None:
            return array
        whole = _at(params, wide) if _has(params, wide) else _at(state, wide)
        return whole[: array.shape[0]]

    params, state = (_each(permute, tree) for tree in (params, state))
    return _each(narrow, params), _each(narrow, state)


def importance(reader: Axis, params: Tree) -> Array:
    """Return the L1 norm of the weights that read each channel, `[channels]`.

    Args:
      reader: Path of the weights and the axis of the channels.
      params: Of the module, a nested dict.
    """
    path, axis = reader
    weights = _at(params, path)
    others = tuple(i for i in range(weights.ndim) if i != axis)
    return jnp.abs(weights).sum(others)


def _each(change, tree: Tree) -> Tree:
    def one(keys: Any, leaf: Array) -> Array:
        return change(".".join(str(key.key) for key in keys), leaf)

    return jax.tree_util.tree_map_with_path(one, tree)


def _has(tree: Tree, path: str) -> bool:
    for key in path.split("."):
        if key not in tree:
            return False
        tree = tree[key]
    return True


def _at(tree: Tree, path: str) -> Array:
    for key in path.split("."):
        tree = tree[key]
    return tree
