"""NNX modules as pure functions of (params, state, carry, key).

NNX modules own their variables. The engine needs functions of plain dicts, because
those cost a tenth of the dispatch time of NNX's own transforms and because a block
must be a function of its weights for `jax.vjp`. Only `split`, `merge` and pure dicts
are used, which work in both of NNX's modes.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Mode = Literal["train", "calibrate", "eval"]
Tree = Any  # a pytree of arrays, usually a dict


def _set_mode(module: nnx.Module, mode: Mode) -> nnx.Module:
    module.train() if mode == "train" else module.eval()
    if mode == "calibrate":
        for _, part in nnx.iter_graph(module):
            if hasattr(part, "use_running_average") and hasattr(part, "momentum"):
                # momentum 0 makes one pass leave exactly the batch statistics; with
                # the default 0.99 it would go a hundredth of the way.
                part.use_running_average, part.momentum = False, 0.0
    return module


@dataclasses.dataclass(frozen=True, eq=False)
class Functional:
    """An NNX constructor as an init and an apply over plain dicts.

    Attributes:
      name: The module's name in its supernet.
      make: Constructor, called as `make(rngs=...)`.
      graphdefs: Static structure for each mode; modules built alike have equal ones.
      params: Abstract trainable arrays (`nnx.Param`), a nested dict.
      state: Abstract other arrays but random state (BatchNorm statistics).
      dtypes: What floating-point numbers are computed in and returned as; None leaves
        them as they are. Parameters and state keep their own dtypes in any case.
      recomputed: Whether training keeps nothing of the module's inside and computes it
        again for its gradient.
      has_rng: Whether the module draws random numbers when training.
      has_batch_statistics: Whether recalibration concerns it.
    """

    name: str
    make: Callable[..., nnx.Module]
    graphdefs: Mapping[Mode, Any]
    params: Tree
    state: Tree
    rng: Any
    templates: Any
    dtypes: tuple[Any, Any] | None = None
    recomputed: bool = False

    @property
    def has_rng(self) -> bool:
        return bool(len(self.rng))

    @property
    def has_batch_statistics(self) -> bool:
        return self.graphdefs["calibrate"] != self.graphdefs["eval"]

    def structure(self) -> Hashable:
        """Return what two modules that can share programs have in common."""
        leaves, treedef = jax.tree.flatten((self.params, self.state))
        shapes = tuple((a.shape, str(a.dtype)) for a in leaves)
        how = str(self.dtypes), self.recomputed
        return self.graphdefs["train"], treedef, shapes, how

    def init(self, key: jax.Array) -> tuple[Tree, Tree]:
        """Return (params, state) of a fresh module, as nested dicts."""
        module = self.make(rngs=nnx.Rngs(key))
        _, params, _, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def merge(self, params: Tree, state: Tree, mode: Mode, key=None) -> nnx.Module:
        """Return the NNX module that owns these arrays, in this mode."""
        # Copies, since filling a template in place would leak tracers into it.
        p, s = jax.tree.map(lambda leaf: leaf, self.templates)
        nnx.replace_by_pure_dict(p, params)
        # NNX would write a new statistic into the caller's own numpy array.
        nnx.replace_by_pure_dict(s, jax.tree.map(_immutable, state))
        key = jax.random.key(0) if key is None else key
        rng = [
            (path, v.replace(_random_value(v, key, i)))
            for i, (path, v) in enumerate(self.rng)
        ]
        return nnx.merge(self.graphdefs[mode], p, nnx.from_flat_state(rng), s)

    def apply(
        self,
        params: Tree,
        state: Tree,
        carry: Tree,
        *,
        options=(),
        mode: Mode,
        key=None,
    ) -> tuple[Tree, Tree]:
        """Return `module(carry, **options)` and the module's new state.

        Raises:
          ValueError: If the module draws random numbers in training and has no `key`.
        """
        if mode == "train" and self.has_rng and key is None:
            raise ValueError(
                f"Module {self.name!r} draws random numbers in training (dropout), so "
                "`key` is needed: pass key=jax.random.key(seed)."
            )
        run = functools.partial(self._run, options=options, mode=mode)
        if self.recomputed and mode == "train":
            run = jax.checkpoint(run)
        return run(params, state, carry, key)

    def _run(self, params, state, carry, key, *, options, mode):
        if self.dtypes is not None:
            params, carry = _cast((params, carry), self.dtypes[0])
        module = self.merge(params, state, mode, key)
        out = module(carry, **dict(options))
        new = state
        if mode != "eval":
            rest = nnx.state(module, nnx.Not(nnx.Any(nnx.Param, nnx.RngState)))
            new = nnx.to_pure_dict(rest)
        if self.dtypes is not None:
            out = _cast(out, self.dtypes[1])
            new = jax.tree.map(lambda a, old: a.astype(old.dtype), new, state)
        return out, new


def _cast(tree: Tree, dtype: Any) -> Tree:
    def cast(leaf):
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf).astype(dtype) if floating else leaf

    return jax.tree.map(cast, tree)


def _immutable(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


def _random_value(variable: Any, key: jax.Array, i: int) -> jax.Array:
    if isinstance(variable, nnx.RngCount):
        return jnp.zeros((), jnp.uint32)
    return jax.random.fold_in(key, i)


def functional(name: str, make: Callable[..., nnx.Module]) -> Functional:
    """Build the functional view of the modules that `make` constructs.

    Nothing is allocated: the module is built under `nnx.eval_shape`.

    Raises:
      TypeError: If `make` does not take `rngs` or does not return an nnx.Module.
    """
    first = _build(name, make)
    whole = nnx.split(first)
    graphdefs = {}
    for mode in ("train", "calibrate", "eval"):  # each of a copy: building takes longer
        graphdefs[mode] = nnx.split(_set_mode(nnx.merge(*whole), mode))[0]
    if whole[0] != nnx.split(_build(name, make))[0]:
        warnings.warn(
            f"Building module {name!r} twice gives two unequal structures, so its "
            "programs cannot be shared with equal layers. Usually a lambda or a fresh "
            "object is stored as an attribute: store a named function instead.",
            stacklevel=4,
        )
    _, params, rng, state = nnx.split(first, nnx.Param, nnx.RngState, ...)
    return Functional(
        name,
        make,
        graphdefs,
        nnx.to_pure_dict(params),
        nnx.to_pure_dict(state),
        tuple(nnx.to_flat_state(rng)),
        (params, state),
    )


def _build(name: str, make: Callable[..., nnx.Module]) -> nnx.Module:
    found: list[Any] = []  # what eval_shape itself cannot return

    def construct() -> Any:
        module = make(rngs=nnx.Rngs(0))
        if not isinstance(module, nnx.Module):
            found.append(module)
            return None
        return module

    try:
        module = nnx.eval_shape(construct)
    except Exception as error:
        raise TypeError(
            f"Building module {name!r} failed: {error}. A layer's constructor is "
            "called as make(rngs=...), and returns an nnx.Module."
        ) from error
    if found:
        raise TypeError(
            f"The constructor of module {name!r} returned {type(found[0]).__name__}; "
            "it has to return an nnx.Module. Wrap a function in a small Module class."
        )
    return module
