"""A stand-alone model from supernet weights and an arch.

The model holds the user's own modules with only the weights that the arch reads: slices
of elastic weights are really cut. To run, a cut array is padded with zeros to the shape
that the module was written for and sliced again by the module's own code; XLA removes
the pair. So any module that slices its weights can be cut, without a line for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from oneshot.costs import parameter_boxes, state_boxes
from oneshot.functional import Functional
from oneshot.jaxprs import Box
from oneshot.paths import Options
from oneshot.shapes import abstract
from oneshot.supernet import Supernet, Tree, Weights, layer_key
from oneshot.weights import check_weights

Pad = tuple[tuple[int, int], ...]  # elements cut off before and after, for each axis


class Part(nnx.Module):
    """One module of an extracted model, called with the options that it was cut for.

    Attributes:
      module: The user's own module; its arrays are cut to what is read.
    """

    def __init__(
        self,
        module: nnx.Module,
        options: Options,
        pads: tuple[Pad, ...],
        state_pads: tuple[Pad, ...],
    ):
        self.module = module
        self.options, self.pads, self.state_pads = options, pads, state_pads

    def __call__(self, x: Tree) -> Tree:
        if not _anything(self.pads) and not _anything(self.state_pads):
            return self.module(x, **dict(self.options))
        graphdef, params, rng, state = nnx.split(
            self.module, nnx.Param, nnx.RngState, ...
        )
        padded = _changed(state, self.state_pads, _pad_leaf)
        given = jax.tree.leaves((rng, padded))
        params = _changed(params, self.pads, _pad_leaf)
        whole = nnx.merge(graphdef, params, rng, padded, copy=True)
        out = whole(x, **dict(self.options))
        _, _, rng, state = nnx.split(whole, nnx.Param, nnx.RngState, ...)
        # Where nothing was written nothing is updated, so that in evaluation a model
        # may be closed over by anybody's jit, as other modules may.
        now = jax.tree.leaves((rng, state))
        if any(a is not b for a, b in zip(now, given, strict=True)):
            nnx.update(self.module, rng, _changed(state, self.state_pads, _cut_leaf))
        return out


def _anything(pads: tuple[Pad, ...]) -> bool:
    return any(any(axis) for pad in pads for axis in pad)


def _changed(state: Any, pads: Sequence[Pad], change: Callable) -> Any:
    """Return an nnx.State of padded or cut arrays; the order is that of dicts."""
    new = jax.tree.map(lambda leaf: leaf, state)
    nnx.replace_by_pure_dict(new, _change(nnx.to_pure_dict(state), pads, change))
    return new


class Model(nnx.Module):
    """An extracted network: a chain of parts, to call, train, save and export.

    It is an ordinary `nnx.Module` and knows nothing of the supernet. `model.train()`
    and `model.eval()` switch dropout and BatchNorm as in any other.
    """

    def __init__(self, parts: Sequence[Part]):
        self.parts = nnx.List(parts)

    def __call__(self, x: Tree) -> Tree:
        """Return the network's output for a batch."""
        for part in self.parts:
            x = part(x)
        return x


def extract(
    supernet: Supernet,
    weights: Weights,
    arch: Sequence[int],
    calibrate: Any,
    *,
    recalibrate: bool = True,
    seed: int = 0,
) -> Model:
    """Build the stand-alone model of one arch.

    Args:
      supernet: The supernet.
      weights: Its shared weights; they are copied.
      arch: Which subnet.
      calibrate: Images [n, ...] that BatchNorm's statistics are computed on, as one
        batch.
      recalibrate: False keeps the statistics in `weights` and needs only the shape of
        `calibrate`: right if they are those of `arch`, as after tuning or from
        `Evaluator.recalibrated`.
      seed: For the dropout of later training.

    Returns:
      The model, in eval mode.

    Raises:
      ValueError: If `arch` is not one of the space, or these are no weights.

    Example:
      >>> model = extract(net, state.weights, best.arch, calibrate=data.calibrate.x)
      >>> model(images).argmax(-1)
    """
    check_weights(weights)
    path = supernet.path(arch)
    names = {step.module for step in path}
    own = Weights(*({m: part[m] for m in names} for part in weights))
    if recalibrate:
        run = jax.jit(lambda w, x: supernet.run(w, path, x, mode="calibrate")[1])
        own = Weights(own.params, run(own, calibrate))
    carry, parts = abstract(calibrate), []
    for step in path:
        module = supernet.modules[step.module]
        key = layer_key(jax.random.key(seed), step.layer)
        params, state = own.params[step.module], own.state[step.module]
        parts.append(_part(module, step.options, carry, (params, state), key))
        run = functools.partial(module.apply, options=step.options, mode="eval")
        carry, _ = jax.eval_shape(run, module.params, module.state, carry)
    return Model(parts)


def _part(
    module: Functional, options: Options, carry: Tree, own: tuple[Tree, Tree], key: Any
) -> Part:
    boxes = parameter_boxes(module, options, carry), state_boxes(module, options, carry)
    whole = tuple(
        [a.shape for a in jax.tree.leaves(t)] for t in (module.params, module.state)
    )
    pads, state_pads = (
        tuple(_pad_of(box, shape) for box, shape in zip(found, shapes, strict=True))
        for found, shapes in zip(boxes, whole, strict=True)
    )
    params, state = jax.tree.map(jnp.copy, own)
    params = _change(params, pads, _cut_leaf)
    state = _change(state, state_pads, _cut_leaf)
    return Part(module.merge(params, state, "eval", key), options, pads, state_pads)


def _pad_of(box: Box | None, shape: tuple[int, ...]) -> Pad:
    """Return what to add on each side of each axis; an unread array keeps nothing."""
    if box is None:
        return tuple((0, size) for size in shape) if shape else ()
    return tuple(
        (start, size - stop) for (start, stop), size in zip(box, shape, strict=True)
    )


def _change(tree: Tree, pads: Sequence[Pad], change: Callable) -> Tree:
    leaves, treedef = jax.tree.flatten(tree)
    new = [
        change(a, p) if any(map(any, p)) else a
        for a, p in zip(leaves, pads, strict=True)
    ]
    return treedef.unflatten(new)


def _cut_leaf(array: jax.Array, pad: Pad) -> jax.Array:
    return array[
        tuple(
            slice(low, size - high)
            for (low, high), size in zip(pad, array.shape, strict=True)
        )
    ]


def _pad_leaf(array: jax.Array, pad: Pad) -> jax.Array:
    return jnp.pad(array, pad)
