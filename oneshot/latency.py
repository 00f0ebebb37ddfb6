"""How long an arch takes: its extracted network, compiled as one program and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from oneshot.extraction import extract
from oneshot.shapes import abstract
from oneshot.supernet import Supernet, Tree, Weights

WARM_UP, RUNS = 3, 11


def latency(
    supernet: Supernet, arch: Sequence[int], x: Tree, *, runs: int = RUNS
) -> float:
    """Measure the seconds that the extracted arch takes for a batch.

    Time does not depend on the values of weights, so that nothing has to be trained:
    all of them are one constant. The batch is on the device already.

    Args:
      supernet: The supernet.
      arch: Which subnet.
      x: A batch, or its `jax.ShapeDtypeStruct`s.
      runs: Timed runs, at least 1, after a warm-up of three.

    Returns:
      The median of the runs, in seconds.

    Example:
      >>> latency(net, (0, 1, 2), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    """
    run, arguments = _compiled(supernet, arch, x)
    seconds = []
    for i in range(WARM_UP + runs):
        start = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        if i >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _compiled(
    supernet: Supernet, arch: Sequence[int], x: Tree
) -> tuple[Callable[..., Any], tuple[Any, Any]]:
    x, whole = abstract(x), supernet.abstract()
    names = [step.module for step in supernet.path(arch)]
    weights = Weights(*(_filled({m: part[m] for m in names}) for part in whole))
    model = extract(supernet, weights, arch, x, recalibrate=False)
    graphdef, state = nnx.split(model)
    arguments = state, _filled(x)
    run = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    return run.lower(*arguments).compile(), arguments


def _filled(tree: Tree) -> Tree:
    """Return arrays of these shapes, of numbers that no device treats as special."""
    return jax.tree.map(
        lambda a: jnp.full(
            a.shape, 0.1 if jnp.issubdtype(a.dtype, jnp.floating) else 0, a.dtype
        ),
        tree,
    )
