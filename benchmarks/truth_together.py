"""All seeds of one network trained at once, by one program that is mapped over them.

A small network leaves most of an accelerator idle, and there mapped arrays train in
about the time of one. On CPUs a mapped convolution is slower than one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from oneshot.programs import apply_update, clip_scale, squared_norm
from oneshot.reweighting import mean_of
from oneshot.space import Arch
from oneshot.supernet import Weights

if TYPE_CHECKING:
    from benchmarks.truth import Alone

Tree = Any


def losses_together(alone: Alone, arch: Arch, seeds: Sequence[int]) -> list[float]:
    """Return the held-out loss of a network trained from each seed.

    Args:
      alone: What trains it; the seeds' batches, weights and rates are those that
        `alone` would train it by, one after the other.
      arch: The network.
      seeds: Numbers that weights and batches follow from.
    """
    space, data, net = alone.space, alone.data, alone.net
    modules = list(dict.fromkeys(step.module for step in net.path(arch)))
    params, state = jax.vmap(alone.init)(jnp.stack([jax.random.key(s) for s in seeds]))
    own = {m: params[m] for m in modules}
    optimizer = {
        m: jax.vmap(alone.trainer.make_optimizer(0.1).init)(own[m]) for m in own
    }
    engine = alone.trainer.engine
    batches = [data.batches(seed, space.batch, engine) for seed in seeds]
    program = jax.jit(jax.vmap(_step(alone, arch), in_axes=(0, 0, 0, 0, None)))
    for step in range(space.steps):
        batch = jax.tree.map(lambda *a: jnp.stack(a), *[b(step) for b in batches])
        own, state, optimizer = program(own, state, optimizer, batch, alone.rate(step))
    found = []
    for i in range(len(seeds)):
        one = jax.tree.map(lambda a, i=i: a[i], ({**params, **own}, state))
        found.append(float(alone.evaluator(Weights(*one), [arch]).loss[0]))
    return found


def _step(alone: Alone, arch: Arch) -> Callable:
    """Return one training step of one seed, a plain function of its arrays."""
    net, loss, clip = alone.net, alone.space.metrics["loss"], alone.space.clip
    make = alone.trainer.make_optimizer

    def step(params: Tree, state: Tree, optimizer: Tree, batch: Tree, rate: Any):
        def mean_loss(params):
            outputs, new = net.apply(params, state, arch, batch[0], train=True)
            return mean_of(loss, outputs, batch[1]), new

        gradients, new = jax.grad(mean_loss, has_aux=True)(params)
        scale = clip_scale(squared_norm(gradients), clip)
        updated = {
            m: apply_update(make, params[m], optimizer[m], gradients[m], rate, scale)
            for m in params
        }
        params, optimizer = ({m: u[i] for m, u in updated.items()} for i in (0, 1))
        return params, new, optimizer

    return step
