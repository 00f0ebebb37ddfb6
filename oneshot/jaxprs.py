"""What a function does, by its jaxpr: multiply-adds, and slices of its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend import core

from oneshot.nn.backend import plain_operations

Box = tuple[tuple[int, int], ...]  # (start, stop) along each axis

_LOOPS = ("scan", "while", "cond")  # their inner inputs are not the outer ones


def trace(fn: Callable, *args: Any) -> core.ClosedJaxpr:
    """Return the jaxpr of `fn`, with backend-tuned operations as plain ones."""
    with plain_operations():  # the fresh function keeps JAX from reusing another trace
        return jax.make_jaxpr(lambda *args: fn(*args))(*args)


def count_macs(fn: Callable, *args: Any) -> int:
    """Count the multiply-adds of matrix products and convolutions in a function.

    Element-wise work is not counted, as in the published tables. A convolution's taps
    on its padding are, a loop's body as often as it runs (once, where that is not known
    before), and of a conditional the dearest branch.

    Args:
      fn: Any function that JAX can trace.
      *args: Its arguments, or `jax.ShapeDtypeStruct`s.

    Returns:
      Multiply-adds of one call.

    Example:
      >>> count_macs(jnp.dot, jnp.ones((2, 3)), jnp.ones((3, 4)))
      24
    """
    return _macs(trace(fn, *args).jaxpr)


def _macs(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            contracted = params["dimension_numbers"][0][0]
            depth = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
            total += math.prod(eqn.outvars[0].aval.shape) * depth
        elif name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            taps = [kernel[i] for i in params["dimension_numbers"].rhs_spec[1:]]
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(taps)
        elif name == "scan":
            total += params["length"] * _macs(params["jaxpr"].jaxpr)
        elif name == "cond":
            total += max(_macs(branch.jaxpr) for branch in params["branches"])
        else:
            total += sum(map(_macs, _inner(params)))
    return total


def array_sizes(jaxpr: Any) -> list[int]:
    """Return the bytes of each array that a jaxpr computes, inner jaxprs included."""
    out = []
    for eqn in jaxpr.eqns:
        out += [_nbytes(v.aval) for v in eqn.outvars]
        out += [size for inner in _inner(eqn.params) for size in array_sizes(inner)]
    return out


def _nbytes(aval: Any) -> int:
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(aval, "shape", ())) * itemsize


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, core.Jaxpr):
                yield one


def used_boxes(closed: core.ClosedJaxpr, num_inputs: int) -> list[Box | None]:
    """Return which part of each of the first inputs a jaxpr reads.

    Only static slices narrow an input; whatever else reads it reads all of it.

    Args:
      closed: A jaxpr.
      num_inputs: How many leading inputs to follow.

    Returns:
      For each, the smallest box that holds all that is read; None if nothing is.
    """
    found: list[list[Box]] = [[] for _ in range(num_inputs)]
    followed = closed.jaxpr.invars[:num_inputs]
    views = {
        v: (i, tuple((0, size) for size in v.aval.shape))
        for i, v in enumerate(followed)
    }
    _follow(closed.jaxpr, views, found)
    return [_union(boxes) if boxes else None for boxes in found]


def _follow(
    jaxpr: Any, views: dict[Any, tuple[int, Box]], found: list[list[Box]]
) -> None:
    for eqn in jaxpr.eqns:
        read = [(n, views[v]) for n, v in enumerate(eqn.invars) if _known(v, views)]
        if not read:
            continue
        strides = eqn.params.get("strides")
        inner = [] if eqn.primitive.name in _LOOPS else list(_inner(eqn.params))
        if eqn.primitive.name == "slice" and set(strides or (1,)) == {1}:
            views[eqn.outvars[0]] = _sliced(read[0][1], eqn.params)
        elif len(inner) == 1 and len(inner[0].invars) == len(eqn.invars):
            _follow(inner[0], {inner[0].invars[n]: view for n, view in read}, found)
        else:
            for _, (which, box) in read:
                found[which].append(box)
    for v in jaxpr.outvars:  # returned as it is: the caller may read all of it
        if _known(v, views):
            found[views[v][0]].append(views[v][1])


def _known(v: Any, views: dict[Any, Any]) -> bool:
    return not isinstance(v, core.Literal) and v in views


def _sliced(view: tuple[int, Box], params: dict[str, Any]) -> tuple[int, Box]:
    which, box = view
    cuts = zip(box, params["start_indices"], params["limit_indices"], strict=True)
    return which, tuple((low + start, low + limit) for (low, _), start, limit in cuts)


def _union(boxes: Sequence[Box]) -> Box:
    axes = zip(*boxes, strict=True)
    return tuple((min(a for a, _ in axis), max(b for _, b in axis)) for axis in axes)
