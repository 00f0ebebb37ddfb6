"""A forward and its backward as two programs, with the residuals between them.

`jax.vjp` inside a `jit` returns a pytree of residuals. Those that are the block's own
parameters, input or output, or a mere view of them (a slice, another shape), would be
copied on the way out of the program. They are recognised in the jaxpr and passed to the
backward by reference, which takes the view again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core

Tree = Any

# Equations of one operand that cost nothing but reading what they return.
_VIEWS = ("broadcast_in_dim", "reshape", "slice", "squeeze", "transpose")


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


class Source(NamedTuple):
    """Where the backward finds a residual.

    Attributes:
      kind: "params", "carry", "out", "saved" or "constant".
      at: Position among the leaves of that kind; of a constant, its value.
      views: The equations that lead from there to the residual, in order.
    """

    kind: str
    at: Any
    views: tuple[Any, ...] = ()

    def read(self, found: Mapping[str, Mapping[int, Any]]) -> Any:
        """Return the residual from the values of each kind, by position."""
        value = self.at if self.kind == "constant" else found[self.kind][self.at]
        for view in self.views:
            value = view.primitive.bind(value, **view.params)
        return value


@dataclasses.dataclass
class ResidualPlan:
    """Where the backward finds each residual; filled in while the forward is traced.

    Attributes:
      treedef: Structure of the function that `jax.vjp` returned.
      sources: One for each residual.
    """

    treedef: Any = None
    sources: list[Source] = dataclasses.field(default_factory=list)

    def needs(self, kind: str) -> list[int]:
        """Return the positions of one kind that the backward wants, ascending."""
        return sorted({source.at for source in self.sources if source.kind == kind})

    def collect(
        self,
        residuals: Sequence[Any],
        constants: Sequence[Source | None],
        origins: Mapping[Any, Source],
        eqns: Sequence[Any],
    ) -> list[int]:
        """Record where each residual comes from; return which are saved, each once.

        Args:
          residuals: Variables of the forward's jaxpr.
          constants: For each, its source if its value is known while tracing.
          origins: Variables that the backward gets by reference.
          eqns: The equations of the jaxpr.
        """
        made = {v: e for e in eqns if e.primitive.name in _VIEWS for v in e.outvars}
        found = [
            constant or _reach(v, origins, made)
            for v, constant in zip(residuals, constants, strict=True)
        ]
        whole = {
            (s.kind, s.at)
            for s in found
            if s and s.kind in ("carry", "out") and not s.views
        }
        saved: dict[Any, int] = {}
        self.sources = []
        for i, (v, source) in enumerate(zip(residuals, found, strict=True)):
            if source is None or not _by_reference(source, whole):
                saved.setdefault(v, i)
                source = Source("saved", list(saved).index(v))
            self.sources.append(source)
        return list(saved.values())

    def restore(self, found: Mapping[str, Mapping[int, Any]]) -> Any:
        """Return the vjp function from the values of each kind, by position."""
        return self.treedef.unflatten([source.read(found) for source in self.sources])


def _reach(v: Any, origins: Mapping[Any, Source], made: Mapping) -> Source | None:
    """Follow views back from a residual; None where they do not end at an origin."""
    if not isinstance(v, core.Var):
        return Source("constant", v.val)
    views: list[Any] = []
    while v not in origins:
        if v not in made or not isinstance(made[v].invars[0], core.Var):
            return None
        views.insert(0, made[v])
        (v,) = made[v].invars
    return origins[v]._replace(views=tuple(views))


def _by_reference(source: Source, whole: set[tuple[str, Any]]) -> bool:
    """Tell whether to refer to where a residual comes from, or to save the residual.

    Parameters are there anyway. A carry that nothing else keeps alive is worth keeping
    only for a view that is not smaller.
    """
    if source.kind == "params" or not source.views:
        return True
    first, last = source.views[0].invars[0].aval, source.views[-1].outvars[0].aval
    return (source.kind, source.at) in whole or last.size >= first.size


def forward(apply: Callable, plan: ResidualPlan, input_gradient: bool) -> Callable:
    """Return `(params, state, carry, key) -> (out, new state, saved residuals)`.

    Args:
      apply: `(params, state, carry, key) -> (out, new state)`.
      plan: Filled in when the result is traced.
      input_gradient: False for the first block of a path, whose input is data.
    """

    def run(params, state, carry, key):
        arguments = (params, state, carry, key)
        shapes: list[Any] = []

        def flat(*arguments):
            out, new_state, vjp = _vjp(apply, input_gradient, *arguments)
            residuals, plan.treedef = jax.tree.flatten(vjp)
            shapes[:] = [
                jax.tree.structure((out, new_state)),
                [
                    None if isinstance(r, Tracer) else Source("constant", r)
                    for r in residuals
                ],
            ]
            return [*jax.tree.leaves((out, new_state)), *residuals]

        closed = jax.make_jaxpr(flat)(*arguments)
        treedef, constants = shapes
        values = core.jaxpr_as_fun(closed)(*jax.tree.leaves(arguments))
        shown, split = closed.jaxpr.outvars, treedef.num_leaves
        out, new_state = treedef.unflatten(values[:split])
        origins = _origins(
            closed.jaxpr.invars, arguments, shown[: len(jax.tree.leaves(out))]
        )
        saved = plan.collect(shown[split:], constants, origins, closed.jaxpr.eqns)
        return out, new_state, [values[split + i] for i in saved]

    return run


def _vjp(apply: Callable, input_gradient: bool, params, state, carry, key):
    floats, rebuild = split_carry(carry)

    def f(params, floats):
        out, new_state = apply(params, state, rebuild(floats), key)
        return split_carry(out)[0], (out, new_state)

    if input_gradient:
        _, vjp, (out, new_state) = jax.vjp(f, params, floats, has_aux=True)
    else:
        _, vjp, (out, new_state) = jax.vjp(lambda p: f(p, floats), params, has_aux=True)
    return out, new_state, vjp


def _origins(invars: Sequence[Any], arguments: tuple, out: Sequence[Any]):
    """Return the variables of a forward's jaxpr that its backward gets by reference."""
    params, state, carry, _ = (len(jax.tree.leaves(a)) for a in arguments)
    before = params + state
    kinds = {
        "out": out,
        "carry": invars[before : before + carry],
        "params": invars[:params],
    }
    return {
        v: Source(kind, i)
        for kind, variables in kinds.items()  # the later ones go first
        for i, v in enumerate(variables)
        if isinstance(v, core.Var)
    }


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
