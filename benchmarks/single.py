"""A training step of one path as one donated program, as one would write it by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from oneshot.losses import cross_entropy
from oneshot.paths import Path
from oneshot.supernet import Supernet, Weights


class Single:
    """Weights of one path and the compiled step that trains them; call it to step.

    Args:
      net: Whose path; only the modules on it exist here.
      path: Which path.
      optimizer: Applied to all of it.
      batch: (x, labels).
      seed: Of the weights.
    """

    def __init__(
        self,
        net: Supernet,
        path: Path,
        optimizer: optax.GradientTransformation,
        batch: tuple[Any, Any],
        seed: int,
    ):
        def step(params, state, momentum, x, labels):
            def loss(params):
                weights = Weights(params, state)
                logits, new_state = net.run(weights, path, x, mode="train")
                return jnp.mean(cross_entropy(logits, labels)), new_state

            (value, new_state), gradients = jax.value_and_grad(loss, has_aux=True)(
                params
            )
            updates, momentum = optimizer.update(gradients, momentum, params)
            return optax.apply_updates(params, updates), new_state, momentum, value

        names = sorted({one.module for one in path})
        every = net.init(jax.random.key(seed), batch[0])
        self.params, self.state = ({n: tree[n] for n in names} for tree in every)
        self.momentum = optimizer.init(self.params)
        self.batch = jax.device_put(batch)
        jitted = jax.jit(step, donate_argnums=(0, 1, 2))
        own = self.params, self.state, self.momentum
        self.program = jitted.lower(*own, *self.batch).compile()

    def __call__(self) -> None:
        """Take a step and wait for it."""
        own = self.params, self.state, self.momentum
        self.params, self.state, self.momentum, value = self.program(*own, *self.batch)
        jax.block_until_ready((self.params, self.momentum, value))
