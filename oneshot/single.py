"""A training step as one program: for a fixed path, or for a traced arch.

The other two ways to execute. `static` compiles a program for each path, which pays
where few paths are trained often; `switch` one for all, by `lax.switch`, where options
return equal shapes. Both do what the chain of blocks does, as the tests hold them to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oneshot import programs
from oneshot.chain import PlannedPath, Update
from oneshot.engine import SCALAR, Engine, key_shape
from oneshot.nested import trained
from oneshot.supernet import Supernet, Tree, Weights


class Single:
    """Runs training steps as single programs.

    Args:
      engine: Compiles and keeps the programs.
      metrics: Functions (outputs, targets) -> [n] by name, with the loss as "loss".
      update: Optimizer, clipping and donation.
      traced: One program for all archs, instead of one for each path.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Mapping[str, programs.Metric],
        update: Update,
        *,
        traced: bool,
    ):
        self.engine, self.metrics, self.update = engine, dict(metrics), update
        self.traced = traced
        self._own = object()

    def step(
        self,
        weights: Weights,
        optimizer: dict[str, Tree],
        planned: Sequence[PlannedPath],
        batch: tuple[Tree, Tree],
        lr: Any,
        key: Any,
    ) -> tuple[Weights, dict[str, Tree], list[dict[str, Any]], Any]:
        """Train on the planned paths; see `Chain.step`."""
        names = self._modules(planned)
        own = [{m: tree[m] for m in names} for tree in (*weights, optimizer)]
        archs = self.engine.put(np.array([p.arch for p in planned], np.int32))
        which = archs, tuple(p.weight for p in planned)
        call = self.program(planned, *batch)
        params, state, opt, logged, norm = call(*own, which, batch, (lr, key))
        new = Weights({**weights.params, **params}, {**weights.state, **state})
        return new, {**optimizer, **opt}, logged, norm

    def _modules(self, planned: Sequence[PlannedPath]) -> list[str]:
        if self.traced:
            return list(self.engine.supernet.modules)
        return sorted({step.module for p in planned for step in p.path})

    def program(self, planned: Sequence[PlannedPath], x: Tree, targets: Tree) -> Any:
        """Return the compiled step for this plan's paths, or for this many archs."""
        x_id, target_id = self.engine.carry_id(x), self.engine.carry_id(targets)
        paths = len(planned) if self.traced else tuple(p.path for p in planned)
        key = ("single", self._own, paths, x_id, target_id)
        net, names = self.engine.supernet, self._modules(planned)
        modules = {m: net.modules[m] for m in names}
        params = {m: f.params for m, f in modules.items()}
        init, frozen = self.update.make_optimizer(0.1).init, self._frozen(params)
        own = {m: trained(p, frozen[m]) for m, p in params.items()}
        arguments = [
            (params, "weights"),
            ({m: f.state for m, f in modules.items()}, "weights"),
            ({m: jax.eval_shape(init, p) for m, p in own.items()}, "weights"),
            (_which(len(planned), len(net.space.choices)), "weights"),
            ((self.engine.carry(x_id), self.engine.carry(target_id)), "data"),
            ((SCALAR, key_shape()), "weights"),
        ]
        donate = (0, 2) if self.update.donate else ()
        runs = [self._run(net, p) for p in planned]
        fn = self._step(net, runs)
        return self.engine.compile(key, fn, arguments, ("weights",) * 5, donate)

    def _frozen(self, params: Tree) -> dict[str, frozenset]:
        return {m: self.update.frozen(m, own) for m, own in params.items()}

    def _run(self, net: Supernet, planned: PlannedPath) -> Callable:
        if self.traced:
            return lambda weights, arch, x, key: net.run_traced(
                weights, arch, x, mode="train", key=key
            )
        return lambda weights, arch, x, key: net.run(
            weights, planned.path, x, mode="train", key=key
        )

    def _step(self, net: Supernet, runs: Sequence[Callable]) -> Callable:
        update = self.update

        def total(params, state, which, batch, key):
            value, logged, (x, targets) = jnp.float32(0), [], batch
            for run, arch, weight in zip(runs, *which, strict=True):
                outputs, state = run(Weights(params, state), arch, x, key)
                means = {
                    k: jnp.mean(m(outputs, targets)) for k, m in self.metrics.items()
                }
                value += weight * means["loss"]
                logged.append(means)
            return value, (state, logged)

        def step(params, state, opt, which, batch, clock):
            lr, key = clock
            gradients, (new_state, logged) = jax.grad(total, has_aux=True)(
                params, state, which, batch, key
            )
            frozen = self._frozen(params)
            gradients = {m: trained(g, frozen[m]) for m, g in gradients.items()}
            norm = programs.squared_norm(gradients)
            scale = None
            if update.clip_norm is not None:
                scale = programs.clip_scale(norm, update.clip_norm)
            new_params, new_opt = {}, {}
            for m in params:
                new_params[m], new_opt[m] = programs.apply_update(
                    update.make_optimizer, params[m], opt[m], gradients[m], lr, scale
                )
            if self.traced:
                used = used_modules(net, which[0])
                old = params, opt
                new_params, new_opt = (
                    {m: _select(used[m], new[m], kept[m]) for m in new}
                    for new, kept in zip((new_params, new_opt), old, strict=True)
                )
            return new_params, new_state, new_opt, logged, norm

        return step


def used_modules(net: Supernet, archs: jax.Array) -> dict[str, jax.Array]:
    """Return for each module whether one of the traced archs [n, choices] runs it."""
    used = {name: jnp.bool_(False) for name in net.modules}
    for slot in net.slots:
        steps, index = net.switch_table(slot)
        for arch in archs:
            for i, step in enumerate(steps):
                if step is not None:
                    used[step.module] |= index(arch) == i
    return used


def _select(condition: jax.Array, new: Tree, old: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _which(n: int, choices: int) -> tuple[Any, tuple[Any, ...]]:
    """Return the shapes of n planned archs and of the weights of their losses."""
    return jax.ShapeDtypeStruct((n, choices), jnp.int32), (SCALAR,) * n
