"""The same supernet computed otherwise: in fewer bits, or with less memory.

Both return a view: space and weights are those of the supernet, so weights trained in
one are scored, saved and extracted in another.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Any

import jax.numpy as jnp

from oneshot.functional import Functional
from oneshot.supernet import Supernet


def in_precision(supernet: Supernet, dtype: Any = jnp.bfloat16) -> Supernet:
    """Return the supernet with its blocks computed in another floating-point type.

    Weights, gradients, optimizer state and BatchNorm's statistics stay as they are, in
    float32: each block rounds its parameters and its input as it starts (mixed
    precision, Micikevicius et al. 2018, arXiv:1710.03740). What travels between blocks
    is of the type; what the head returns is float32, so that losses are. bfloat16
    needs no scaling of the loss.

    Args:
      supernet: Any.
      dtype: A floating-point type, such as `jnp.bfloat16`.

    Returns:
      A supernet of the same space and weights.

    Raises:
      ValueError: If `dtype` is not a floating-point type.

    Example:
      >>> trainer = Trainer(in_precision(net), strategy, sgd(), 0.1)
      >>> scores = Evaluator(net, data)(trainer_state.weights, archs)
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"Blocks are computed in a floating-point type, but got {dtype!r}. Use "
            "jnp.bfloat16, or jnp.float32."
        )
    last = {name for name, _ in supernet.slots[-1].modules(supernet.space.choices)}

    def change(name: str, module: Functional) -> Functional:
        out = jnp.float32 if name in last else dtype
        return dataclasses.replace(module, dtypes=(jnp.dtype(dtype), jnp.dtype(out)))

    return supernet.with_modules(change)


def rematerialized(supernet: Supernet, *patterns: str) -> Supernet:
    """Return the supernet with blocks that keep only their input when training.

    Their backward computes the forward once more (Chen et al. 2016, arXiv:1604.06174):
    a third more work in such a block, and of its memory only input and parameters.
    Results are the same but for rounding.

    Args:
      supernet: Any.
      *patterns: Names of modules, such as "stage3.*"; `*` stands for any characters.
        None means all of them.

    Returns:
      A supernet of the same space and weights.

    Raises:
      ValueError: If a pattern matches no module.

    Example:
      >>> net = rematerialized(oneshot.spaces.decoder(), "layers.*")
    """
    for pattern in patterns:
        if not fnmatch.filter(supernet.modules, pattern):
            raise ValueError(
                f"No module has a name like {pattern!r}; there are "
                f"{', '.join(list(supernet.modules)[:8])} and so on."
            )

    def change(name: str, module: Functional) -> Functional:
        wanted = any(fnmatch.fnmatchcase(name, p) for p in patterns or ("*",))
        return dataclasses.replace(module, recomputed=True) if wanted else module

    return supernet.with_modules(change)
