"""A forward and its backward as two programs, with the residuals between them.

`jax.vjp` inside a `jit` returns a pytree of residuals. Those that are the block's own
parameters, input or output would be copied on the way out of the program; they are
recognised here as the very tracers that went in (or out) and passed to the backward by
reference instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def is_differentiable(leaf: Any) -> bool:
    """Return whether a carry leaf takes part in differentiation (floating point)."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def split_carry(carry: Tree) -> tuple[list[Any], Callable[[Sequence[Any]], Tree]]:
    """Return the floating-point leaves of a carry, and the carry rebuilt from others.

    Integer leaves (positions, token ids, masks) travel along but get no gradient.
    """
    leaves, treedef = jax.tree.flatten(carry)
    places = [i for i, leaf in enumerate(leaves) if is_differentiable(leaf)]

    def rebuild(floats: Sequence[Any]) -> Tree:
        new = list(leaves)
        for place, value in zip(places, floats, strict=True):
            new[place] = value
        return treedef.unflatten(new)

    return [leaves[i] for i in places], rebuild


@dataclasses.dataclass
class ResidualPlan:
    """Where the backward finds each residual; filled in while the forward is traced.

    Attributes:
      treedef: Structure of the function that `jax.vjp` returned.
      sources: For each residual, ("params" | "carry" | "out" | "saved", position), or
        ("constant", value).
    """

    treedef: Any = None
    sources: list[tuple[str, Any]] = dataclasses.field(default_factory=list)

    def needs(self, kind: str) -> list[int]:
        """Return the positions of one kind that the backward wants, ascending."""
        return sorted({at for name, at in self.sources if name == kind})

    def collect(self, vjp: Any, known: dict[str, list[Any]]) -> list[Any]:
        """Record where each residual of `vjp` comes from; return those to be saved."""
        leaves, self.treedef = jax.tree.flatten(vjp)
        where = {id(v): (k, i) for k, vs in known.items() for i, v in enumerate(vs)}
        saved: list[Any] = []
        self.sources = []
        for leaf in leaves:
            if not isinstance(leaf, jax.core.Tracer):
                self.sources.append(("constant", leaf))
                continue
            if id(leaf) not in where:
                where[id(leaf)] = ("saved", len(saved))
                saved.append(leaf)
            self.sources.append(where[id(leaf)])
        return saved

    def restore(self, found: dict[str, dict[int, Any]]) -> Any:
        """Return the vjp function from the values of each kind, by position."""
        leaves = [
            at if kind == "constant" else found[kind][at] for kind, at in self.sources
        ]
        return self.treedef.unflatten(leaves)


def forward(apply: Callable, plan: ResidualPlan, input_gradient: bool) -> Callable:
    """Return `(params, state, carry, key) -> (out, new state, saved residuals)`.

    Args:
      apply: `(params, state, carry, key) -> (out, new state)`.
      plan: Filled in when the result is traced.
      input_gradient: False for the first block of a path, whose input is data.
    """

    def run(params, state, carry, key):
        floats, rebuild = split_carry(carry)

        def f(params, floats):
            out, new_state = apply(params, state, rebuild(floats), key)
            out_floats, _ = split_carry(out)
            return out_floats, (out, new_state)

        if input_gradient:
            _, vjp, (out, new_state) = jax.vjp(f, params, floats, has_aux=True)
        else:
            _, vjp, (out, new_state) = jax.vjp(
                lambda p: f(p, floats), params, has_aux=True
            )
        known = {
            "params": jax.tree.leaves(params),
            "carry": jax.tree.leaves(carry),
            "out": jax.tree.leaves(out),
        }
        return out, new_state, plan.collect(vjp, known)

    return run


def backward(plan: ResidualPlan, input_gradient: bool) -> Callable:
    """Return `(params, carry, out, saved, cotangent) -> (input cotangent, gradients)`.

    `carry` and `out` are only the leaves that `plan.needs` lists.
    """

    def run(params, carry, out, saved, cotangent):
        found = {
            "params": dict(enumerate(jax.tree.leaves(params))),
            "carry": dict(zip(plan.needs("carry"), carry, strict=True)),
            "out": dict(zip(plan.needs("out"), out, strict=True)),
            "saved": dict(enumerate(saved)),
        }
        gradients = plan.restore(found)(cotangent)
        return (gradients[1] if input_gradient else []), gradients[0]

    return run
