"""Weights that training leaves as they are, named by path.

A frozen array has no gradient, no momentum and no decay: the optimizer never sees it,
so its bits stay. What the arrays of a module are used for does not change.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Mapping
from typing import Any

import jax
import optax

from oneshot.momentum import Separated
from oneshot.programs import MakeOptimizer

Tree = Any


@dataclasses.dataclass(frozen=True)
class Freeze:
    """An optimizer that leaves the weights of some paths alone.

    A path is that of the module and that of the array in it, as in
    "layers.0.attention/self_attn/q_proj/kernel".

    Args:
      optimizer: `learning_rate -> optax.GradientTransformation`.
      *patterns: What is frozen; `*` stands for any characters, `?` for one.

    Raises:
      ValueError: If there are no patterns, or the optimizer is a `Freeze` itself, or a
        `Separated`, which has to stand outside.

    Example:
      >>> Trainer(net, strategy, Freeze(optax.adam, "stem/*", "*/q_proj/*"), 1e-3)
    """

    optimizer: MakeOptimizer
    patterns: tuple[str, ...]

    def __init__(self, optimizer: MakeOptimizer, *patterns: str):
        if not patterns:
            raise ValueError(
                'Freeze was given no patterns. Name paths such as "stem/*", or use the '
                "optimizer itself."
            )
        if isinstance(optimizer, Freeze):
            raise ValueError(
                "Of a Freeze in a Freeze the trainer would see the patterns of the "
                "outer one only. Give all patterns to one: Freeze(optimizer, "
                f"{', '.join(map(repr, (*optimizer.patterns, *patterns)))})."
            )
        if isinstance(optimizer, Separated):
            raise ValueError(
                "Separated has to stand outside, or the trainer does not see it: write "
                "Separated(Freeze(optimizer, ...), ...)."
            )
        object.__setattr__(self, "optimizer", optimizer)
        object.__setattr__(self, "patterns", patterns)

    def __call__(self, learning_rate: Any) -> optax.GradientTransformation:
        """Return the transformation of the weights that are trained."""
        return self.optimizer(learning_rate)


def frozen_leaves(optimizer: MakeOptimizer, module: str, params: Tree) -> frozenset:
    """Return the paths, inside their module, of the arrays that are frozen."""
    patterns = optimizer.patterns if isinstance(optimizer, Freeze) else ()
    return frozenset(
        path
        for path in map(leaf_path, jax.tree_util.tree_leaves_with_path(params))
        if any(fnmatch.fnmatchcase(f"{module}/{path}", p) for p in patterns)
    )


def leaf_path(found: tuple[Any, Any]) -> str:
    """Return "a/b" of a (path, leaf) pair of nested dicts."""
    return "/".join(str(entry.key) for entry in found[0])


def check_frozen(optimizer: MakeOptimizer, params: Mapping[str, Tree]) -> None:
    """Raise if a pattern matches no array, which then would train unnoticed.

    Args:
      optimizer: Any; only a `Freeze` has patterns.
      params: Arrays of each module, by name.

    Raises:
      ValueError: With the paths that come near.
    """
    if not isinstance(optimizer, Freeze):
        return
    paths = [
        f"{module}/{leaf_path(found)}"
        for module, own in params.items()
        for found in jax.tree_util.tree_leaves_with_path(own)
    ]
    for pattern in optimizer.patterns:
        if not fnmatch.filter(paths, pattern):
            near = difflib.get_close_matches(pattern, paths, 3, 0.0)
            raise ValueError(
                f"No weights have a path like {pattern!r}; there are, for example, "
                f"{', '.join(near)}. A path is module/parameter, and `*` stands for "
                "any characters."
            )
