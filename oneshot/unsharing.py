"""Less sharing: a layer gets weights of its own for each option of another choice.

Paths that share a layer's weights pull them in different directions. Few-shot search
splits a whole supernet at one choice, CLOSE starts with all weights shared and shares
less and less; both are here a supernet with more modules, which starts from the
weights of the one before.

References:
  Zhao, Wang, Tian, Fonseca, Guo. Few-shot neural architecture search. ICML 2021.
  https://arxiv.org/abs/2006.06863
  Zhou, Ning, Hong, Han, et al. CLOSE: curriculum learning on the sharing extent towards
  better one-shot NAS. ECCV 2022. https://arxiv.org/abs/2207.07868
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from oneshot.slots import Apart
from oneshot.space import SearchSpace
from oneshot.supernet import Supernet, Weights
from oneshot.train import TrainState


def unshare(supernet: Supernet, apart: Mapping[str, Sequence[str]]) -> Supernet:
    """Return a supernet in which some layers have weights for each option of a choice.

    A layer that is given the choice of the layer before it no longer shares its weights
    between what comes before. The space is the same, its archs, paths and networks; of
    each module of the layer there are as many copies as the choices have options
    together. Where a path does not read such a choice, because its layer is left out,
    it counts as if that layer were skipped.

    Args:
      supernet: What to start from; it may share less already.
      apart: For each layer, by name, the names of the choices of whose options it gets
        weights of its own. "stem" and "head" are layers too; `layer_names` lists them.

    Raises:
      ValueError: If there is no such layer or choice, the choice is a depth, or the
        layer depends on it already.

    Example:
      >>> net = nb_macro()
      >>> few = unshare(net, {"stage1.1": ["stage1.0.op"]})  # apart for each option
      >>> few_trainer = Trainer(few, Uniform(few.space), sgd(), 0.05)
      >>> state = unshared_state(state, few)       # goes on from what was trained
    """
    if unknown := [name for name in apart if name not in layer_names(supernet)]:
        raise ValueError(
            f"There is no layer called {unknown[0]!r}; the layers are "
            f"{', '.join(layer_names(supernet))}."
        )
    slots = []
    for slot in supernet.slots:
        added = [_apart(supernet.space, name) for name in apart.get(slot.name, ())]
        if known := [other.choice for other in added if other.choice in slot.choices]:
            raise ValueError(
                f"What layer {slot.name!r} runs depends on the choice "
                f"{supernet.space.choices[known[0]].name!r} already. Name a choice of "
                "another layer."
            )
        slots.append(dataclasses.replace(slot, apart=(*slot.apart, *added)))
    return supernet.with_slots(slots, lambda name: _source(name, supernet.modules))


def layer_names(supernet: Supernet) -> list[str]:
    """Return the names of a supernet's layers, from the stem to the head."""
    return [slot.name for slot in supernet.slots]


def _apart(space: SearchSpace, choice: str) -> Apart:
    """Return how a choice of the space tells modules apart.

    Raises:
      ValueError: If there is no such choice, or it is a depth.
    """
    names = [c.name for c in space.choices]
    if choice not in names:
        raise ValueError(
            f"No choice is called {choice!r}; there are: {', '.join(names)}."
        )
    index = names.index(choice)
    readers = [reader for reader in space.readers if index in reader.reads]
    every = tuple(range(len(space.choices[index].options)))
    if any(reader.skip == every for reader in readers):
        raise ValueError(
            f"{choice!r} is the depth of a stage. A stage of two layers of which one "
            "is skipped can be the path of a stage of one, so a depth cannot tell "
            "weights apart. Name the choice of an operation or a width."
        )
    skips = tuple(i for i in every if all(i in reader.skip for reader in readers))
    return Apart(index, tuple(reader.when for reader in readers), skips)


def unshared_weights(weights: Weights, supernet: Supernet) -> Weights:
    """Return the weights of a supernet that shares less, copied from one that shared
    more.

    Every arch computes what it did before.

    Args:
      weights: Of the supernet that `supernet` was made from by `unshare`.
      supernet: The one that shares less.

    Raises:
      ValueError: If it has a module that the weights do not know.
    """
    params, state = (_copied(tree, supernet) for tree in weights)
    return Weights(params, state)


def unshared_state(state: TrainState, supernet: Supernet) -> TrainState:
    """Return a training state that goes on with a supernet that shares less.

    Weights and optimizer state are copied, so that momentum is kept; step, seed and the
    strategy's state stay.

    Args:
      state: Of a trainer of the supernet that `supernet` was made from by `unshare`.
      supernet: The one that shares less.

    Raises:
      ValueError: If it has a module that the state does not know.
    """
    return state._replace(
        weights=unshared_weights(state.weights, supernet),
        optimizer=_copied(state.optimizer, supernet),
    )


def _copied(tree: dict[str, Any], supernet: Supernet) -> dict[str, Any]:
    return {
        name: jax.tree.map(jnp.copy, tree[_source(name, tree)])
        for name in supernet.modules
    }


def _source(name: str, known: Mapping[str, Any]) -> str:
    """Return the module that a module starts from: the one of the same layer and
    option, told from its copies by fewer choices or the same."""
    base, *pairs = name.split("@")
    found = [
        other
        for other in known
        if other.split("@")[0] == base and set(other.split("@")[1:]) <= set(pairs)
    ]
    if len(found) != 1:
        raise ValueError(
            f"There are no weights for the module {name!r}; those given are of "
            f"{', '.join(list(known)[:5])} and others. Give the weights of the "
            "supernet that this one was made from."
        )
    return found[0]
