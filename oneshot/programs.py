"""The functions that the engine compiles, for each (module, options, shapes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from oneshot.distillation import Distillation
from oneshot.functional import Functional
from oneshot.nested import overlaid, part_like, trained
from oneshot.paths import Options
from oneshot.residuals import split_carry
from oneshot.reweighting import mean_of
from oneshot.supernet import layer_key

Tree = Any
MakeOptimizer = Callable[[Any], optax.GradientTransformation]
# (outputs, targets) -> one value for each example
Metric = Callable[[Tree, Tree], jax.Array]


def block_apply(module: Functional, options: Options, mode: Any) -> Callable:
    """Return `(params, state, carry, (step key, layer)) -> (out, state)`."""

    def apply(params, state, carry, key):
        key = None if key is None else layer_key(*key)
        return module.apply(params, state, carry, options=options, mode=mode, key=key)

    return apply


def apply_update(
    make_optimizer: MakeOptimizer, params, opt_state, gradients, lr, scale
):
    """Return (params, optimizer state) after one update with scaled gradients.

    What has no gradient, because it is frozen, comes back as it is.
    """
    if scale is not None:
        gradients = scaled(gradients, scale)
    own = part_like(params, gradients)
    updates, opt_state = make_optimizer(lr).update(gradients, opt_state, own)
    return overlaid(params, optax.apply_updates(own, updates)), opt_state


def squared_norm(tree: Tree) -> jax.Array:
    """Return the sum of squares of a pytree, in float32."""
    leaves = jax.tree.leaves(tree)
    return sum(
        (jnp.sum(jnp.square(g.astype(jnp.float32))) for g in leaves), jnp.float32(0)
    )


def clip_scale(sum_of_squares: jax.Array, clip_norm: float) -> jax.Array:
    """Return the factor that brings a gradient of this squared norm to `clip_norm`."""
    norm = jnp.sqrt(sum_of_squares)
    return clip_norm / jnp.maximum(norm, clip_norm)


def head_loss(
    apply: Callable,
    metrics: Mapping[str, Metric],
    distillation: Distillation | None = None,
    teaches: bool = False,
) -> Callable:
    """Return the last block with its loss, forward and backward in one program.

    Args:
      apply: The last block, `(params, state, carry, key) -> (outputs, state)`.
      metrics: What is logged; "loss" is what is trained on.
      distillation: The loss to train on instead, for students; logged by this name.
      teaches: Whether the outputs are returned, for students to come.

    Returns:
      (params, state, carry, key, targets, weight[, teacher's outputs]) -> (input
      cotangent, gradients, new state, means by name[, outputs]); the gradient is that
      of weight * mean loss.
    """

    def run(params, state, carry, key, targets, weight, *taught):
        floats, rebuild = split_carry(carry)

        def f(params, floats):
            outputs, new_state = apply(params, state, rebuild(floats), key)
            means = {
                k: mean_of(metric, outputs, targets) for k, metric in metrics.items()
            }
            loss = means["loss"]
            if distillation is not None:
                loss = jnp.mean(distillation(outputs, targets, *taught))
                means["distillation"] = loss
            return weight * loss, (means, new_state, [outputs] * teaches)

        (own, inputs), (logged, new_state, outputs) = jax.grad(f, (0, 1), has_aux=True)(
            params, floats
        )
        return inputs, own, new_state, logged, *outputs

    return run


def head_scores(apply: Callable, metrics: Mapping[str, Metric]) -> Callable:
    """Return `(params, state, carry, targets) -> {name: [n]}`, one value an example."""

    def run(params, state, carry, targets):
        outputs, _ = apply(params, state, carry, None)
        return {name: metric(outputs, targets) for name, metric in metrics.items()}

    return run


def with_frozen(gradient_of: Callable, frozen: frozenset, at: int) -> Callable:
    """Let a program that returns gradients (as its result `at`) leave some out."""

    def run(*args):
        results = list(gradient_of(*args))
        results[at] = trained(results[at], frozen)
        return tuple(results)

    return run


def with_update(
    gradient_of: Callable, make_optimizer: MakeOptimizer, at: int
) -> Callable:
    """Let a program that returns gradients (as its result `at`) update its module.

    The new program takes (parameters, optimizer state, learning rate) first, then the
    old one's other arguments. Parameters come before optimizer state on either side,
    since JAX gives the memory of a donated argument to the first result of its shape:
    were they crossed, XLA would have to copy both.
    """

    def run(params, opt_state, lr, *args):
        results = list(gradient_of(params, *args))
        results[at] = apply_update(
            make_optimizer, params, opt_state, results[at], lr, None
        )
        return tuple(results)

    return run


def with_norm(gradient_of: Callable, at: int) -> Callable:
    """Let a program that returns gradients add their squared norm to an argument."""

    def run(norm, *args):
        results = gradient_of(*args)
        return (*results, norm + squared_norm(results[at]))

    return run


def update(make_optimizer: MakeOptimizer, clip_norm: float | None) -> Callable:
    """Return `(params, opt state, lr, gradients, squared norm) -> (params, opt)`."""

    def run(params, opt_state, lr, gradients, sum_of_squares):
        scale = None if clip_norm is None else clip_scale(sum_of_squares, clip_norm)
        return apply_update(make_optimizer, params, opt_state, gradients, lr, scale)

    return run


def add(a: Tree, b: Tree) -> Tree:
    """Return the sum of two gradients."""
    return jax.tree.map(jnp.add, a, b)


def scaled(gradients: Tree, factor: jax.Array) -> Tree:
    """Return gradients times a number, in their own types."""
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), gradients)


def rank_factors(rank: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable:
    """Return `(loss, other loss, weight, other weight, share) -> factors` of two
    gradients.

    The loss of the pair is the weighted sum of both and their rank loss, of which one
    of several batches has its share.
    """

    def run(better, worse, weight, other_weight, share):
        more, less = jax.grad(rank, (0, 1))(better, worse)
        return weight + share * more, other_weight + share * less

    return run


def mean(trees: Sequence[Tree]) -> Tree:
    """Return the mean of equal trees of numbers; a single one as it is."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *values: sum(values) / len(values), *trees)
