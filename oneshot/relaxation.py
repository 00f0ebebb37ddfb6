"""Archs relaxed to probabilities: the network that is a sum over its options.

Each choice has a vector of logits. Of DARTS (Liu et al. 2019, arXiv:1806.09055) every
layer returns the mean of what its options return, weighted by the softmax of its
choices' logits; of GDAS (Dong & Yang 2019, arXiv:1910.04465) one option is drawn from
them by the Gumbel trick and only that one runs, while gradients go by the softmax.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oneshot.functional import Tree
from oneshot.paths import Step
from oneshot.shapes import shapes
from oneshot.slots import Slot
from oneshot.space import Arch, SearchSpace
from oneshot.supernet import Supernet, Weights, layer_key


class Mixture(NamedTuple):
    """How much each option of each choice counts.

    Attributes:
      weights: For each choice a vector [options] that sums to 1, with gradient.
      drawn: For each choice the one option that runs, or None where all do.
    """

    weights: tuple[jax.Array, ...]
    drawn: tuple[jax.Array, ...] | None


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """How logits become a mixture.

    Args:
      kind: "darts", all options weighted by the softmax; or "gdas", one option drawn.
      hot: Temperature of the softmax at the first step, above 0.
      cold: Temperature at the last one; between, it falls in equal steps. GDAS goes
        from 10 to 0.1.
      steps: The steps over which it falls.

    Raises:
      ValueError: If a temperature is not above 0.

    Example:
      >>> Relaxation("gdas", hot=10.0, cold=0.1, steps=2000)
    """

    kind: Literal["darts", "gdas"] = "darts"
    hot: float = 1.0
    cold: float = 1.0
    steps: int = 1

    def __post_init__(self):
        if self.kind not in ("darts", "gdas"):
            raise ValueError(
                f"A relaxation is 'darts' or 'gdas', but got {self.kind!r}."
            )
        if self.hot <= 0 or self.cold <= 0 or self.steps < 1:
            raise ValueError(
                "Temperatures are above 0 and fall over at least 1 step, but got "
                f"hot={self.hot}, cold={self.cold}, steps={self.steps}."
            )

    def mixture(
        self, logits: Sequence[jax.Array], step: jax.Array, key: jax.Array
    ) -> Mixture:
        """Return the mixture of one step.

        Args:
          logits: For each choice a vector [options].
          step: The step, a scalar.
          key: Random key of the step; DARTS draws nothing.
        """
        share = jnp.clip(step / max(1, self.steps - 1), 0, 1)
        temperature = self.hot + (self.cold - self.hot) * share
        if self.kind == "darts":
            soft = tuple(jax.nn.softmax(own / temperature) for own in logits)
            return Mixture(soft, None)
        weights, drawn = [], []
        for i, own in enumerate(logits):
            noise = jax.random.gumbel(jax.random.fold_in(key, i), own.shape)
            noisy = (jax.nn.log_softmax(own) + noise) / temperature
            soft, place = jax.nn.softmax(noisy), jnp.argmax(noisy)
            hard = jax.nn.one_hot(place, len(own))
            weights.append(hard + soft - jax.lax.stop_gradient(soft))
            drawn.append(place)
        return Mixture(tuple(weights), tuple(drawn))


def run_mixture(
    supernet: Supernet,
    weights: Weights,
    mixture: Mixture,
    x: Tree,
    *,
    key: jax.Array | None = None,
) -> tuple[Tree, dict[str, Tree]]:
    """Run the network of a mixture in training mode.

    A layer's option counts by the product of the weights of the choices that decide on
    it, so a layer of a stage of elastic depth counts by the probability that it runs. A
    choice that several layers read counts in each.

    Returns:
      The head's output and the new state.

    Raises:
      ValueError: If the options of a layer return different shapes.
    """
    state = dict(weights.state)
    for slot in supernet.slots:
        steps = [step for _, step in slot.cases(supernet.space.choices, {})]
        distinct = list(dict.fromkeys(steps))
        run = [
            functools.partial(_run, supernet, step, layer_key(key, slot.layer))
            for step in distinct
        ]
        own = _own(distinct, weights.params), _own(distinct, state)
        if len(run) == 1:
            x, new = run[0](*own, x)
        else:
            _check_shapes(slot, distinct, [jax.eval_shape(f, *own, x) for f in run])
            shares = _shares(slot, supernet.space, steps, distinct, mixture.weights)
            if mixture.drawn is None:
                x, new = _all(run, own, x, shares)
            else:
                index = supernet.switch_table(slot)[1](_stacked(mixture.drawn))
                x, new = jax.lax.switch(index, run, *own, x)
                x = _times(shares[index], x)
        state.update(new)
    return x, state


def discretized(space: SearchSpace, logits: Sequence[Any]) -> Arch:
    """Return the arch of the likeliest option of each choice.

    Args:
      space: The space.
      logits: For each choice a vector [options].

    Example:
      >>> discretized(space, [[0.1, 0.9], [2.0, -1.0]])
      (1, 0)
    """
    return space.check([int(np.argmax(np.asarray(own))) for own in logits])


def _run(supernet: Supernet, step: Step | None, key, params, state, x):
    if step is None:
        return x, state
    module = supernet.modules[step.module]
    out, new = module.apply(
        params[step.module],
        state[step.module],
        x,
        options=step.options,
        mode="train",
        key=key,
    )
    return out, {**state, step.module: new}


def _own(steps: Sequence[Step | None], tree: dict[str, Tree]) -> dict[str, Tree]:
    return {s.module: tree[s.module] for s in steps if s is not None}


def _all(run, own, x, shares):
    """Return the weighted sum of what all options return, and their new states."""
    total, params, state = None, *own
    for f, share in zip(run, shares, strict=True):
        out, state = f(params, state, x)
        out = _times(share, out)
        total = out if total is None else jax.tree.map(_plus, total, out)
    return total, state


def _times(share: jax.Array, tree: Tree) -> Tree:
    def times(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf * share.astype(leaf.dtype) if floating else leaf

    return jax.tree.map(times, tree)


def _plus(a: jax.Array, b: jax.Array) -> jax.Array:
    # Positions and masks travel along unchanged.
    return a + b if jnp.issubdtype(a.dtype, jnp.floating) else a


def _shares(
    slot: Slot,
    space: SearchSpace,
    steps: Sequence[Step | None],
    distinct: Sequence[Step | None],
    weights: Sequence[jax.Array],
) -> jax.Array:
    """Return how much each distinct step counts, [steps]."""
    totals = [jnp.float32(0)] * len(distinct)
    cases = [assignment for assignment, _ in slot.cases(space.choices, {})]
    for assignment, step in zip(cases, steps, strict=True):
        share = jnp.float32(1)
        for choice, option in assignment.items():
            share = share * weights[choice][option]
        totals[distinct.index(step)] += share
    return jnp.stack(totals)


def _stacked(drawn: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack([place.astype(jnp.int32) for place in drawn])


def _check_shapes(slot: Slot, steps: Sequence[Step | None], outs: Sequence[Any]):
    found = {shapes(out[0]) for out in outs}
    if len(found) > 1:
        each = "; ".join(
            f"{'skip' if step is None else dict(step.options) or step.module}: "
            f"{shapes(out[0])}"
            for step, out in zip(steps, outs, strict=True)
        )
        raise ValueError(
            f"The options of layer {slot.name!r} return different shapes ({each}), so "
            "their outputs cannot be added. Relax a space whose options keep shapes, "
            "or search this one by sampling."
        )
