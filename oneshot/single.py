"""A training step as one program: for a fixed path, or for a traced arch.

The other two ways to execute. `static` compiles a program for each path, which pays
where few paths are trained often; `switch` one for all, by `lax.switch`, where options
return equal shapes. Both do what the chain of blocks does, as the tests hold them to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oneshot import programs
from oneshot.engine import SCALAR, Engine, key_shape
from oneshot.nested import trained
from oneshot.planned import Batch, PlannedPath, Update
from oneshot.reweighting import mean_of
from oneshot.strategies import Role
from oneshot.supernet import Supernet, Tree, Weights
from oneshot.teaching import Teaching, order_of


class Single:
    """Runs training steps as single programs.

    Args:
      engine: Compiles and keeps the programs.
      metrics: Functions (outputs, targets) -> [n] by name, with the loss as "loss".
      update: Optimizer, clipping and donation.
      teaching: Losses of students and of pairs.
      traced: One program for all archs, instead of one for each path.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Mapping[str, programs.Metric],
        update: Update,
        teaching: Teaching,
        *,
        traced: bool,
    ):
        self.engine, self.metrics, self.update = engine, dict(metrics), update
        self.teaching, self.traced = teaching, traced
        self._own = object()

    def step(
        self,
        weights: Weights,
        optimizer: dict[str, Tree],
        planned: Sequence[PlannedPath],
        batches: Sequence[Batch],
        lr: Any,
    ) -> tuple[Weights, dict[str, Tree], list[dict[str, Any]], Any]:
        """Train on the planned paths; see `Chain.step`."""
        order, shared = order_of([p.role for p in planned], [p.path for p in planned])
        planned = [planned[i] for i in order]
        names = self._modules(planned)
        own = [{m: tree[m] for m in names} for tree in (*weights, optimizer)]
        archs = self.engine.put(np.array([p.arch for p in planned], np.int32))
        ends = [(p.path[n - 1].layer if n else -1) for p, n in _zip(planned, shared)]
        ends = self.engine.put(np.array(ends, np.int32))
        which = archs, ends, tuple(p.weight for p in planned)
        call = self.program(planned, batches)
        examples, keys = _parted(batches)
        params, state, opt, logged, norm = call(*own, which, examples, (lr, keys))
        new = Weights({**weights.params, **params}, {**weights.state, **state})
        logged = [one for _, one in sorted(_zip(order, logged), key=lambda x: x[0])]
        return new, {**optimizer, **opt}, logged, norm

    def _modules(self, planned: Sequence[PlannedPath]) -> list[str]:
        if self.traced:
            return list(self.engine.supernet.modules)
        return sorted({step.module for p in planned for step in p.path})

    def program(self, planned: Sequence[PlannedPath], batches: Sequence[Batch]) -> Any:
        """Return the compiled step for this plan's paths, or for this many archs."""
        examples, keys = _parted(batches)
        data = self.engine.carry_id(examples)
        roles: tuple[Role, ...] = tuple(p.role for p in planned)
        paths = None if self.traced else tuple(p.path for p in planned)
        key = ("single", self._own, paths, roles, data)
        net, names = self.engine.supernet, self._modules(planned)
        modules = {m: net.modules[m] for m in names}
        params = {m: f.params for m, f in modules.items()}
        init, frozen = self.update.make_optimizer(0.1).init, self._frozen(params)
        own = {m: trained(p, frozen[m]) for m, p in params.items()}
        arguments = [
            (params, "modules"),
            ({m: f.state for m, f in modules.items()}, "modules"),
            ({m: jax.eval_shape(init, p) for m, p in own.items()}, "optimizers"),
            (_which(len(planned), len(net.space.choices)), "copied"),
            (self.engine.carry(data), "data"),
            ((SCALAR, [key_shape()] * len(keys)), "copied"),
        ]
        donate = (0, 2) if self.update.donate else ()
        runs = [self._run(net, p) for p in planned]
        fn = self._step(net, runs, roles)
        results = ("modules", "modules", "optimizers", "copied", "copied")
        return self.engine.compile(key, fn, arguments, results, donate)

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

    def _step(
        self, net: Supernet, runs: Sequence[Callable], roles: Sequence[Role]
    ) -> Callable:
        update, layers = self.update, _layers(net)

        def one(params, state, which, batch, key, share):
            x, targets, taught = batch
            losses, logged = [], []
            for run, role, arch, end in _zip(runs, roles, *which[:2]):
                outputs, new = run(Weights(params, state), arch, x, key)
                if role == "teacher":
                    taught = jax.lax.stop_gradient(outputs)
                # What a path shares with the one before, that one has left behind.
                state = {
                    m: _select(layers[m] > end, own, state[m]) for m, own in new.items()
                }
                means = {
                    k: mean_of(m, outputs, targets) for k, m in self.metrics.items()
                }
                losses.append(means["loss"])
                if role == "student":
                    loss = self.teaching.distillation(outputs, targets, taught)
                    losses[-1] = means["distillation"] = jnp.mean(loss)
                logged.append(means)
            value = sum((w * v for w, v in _zip(which[2], losses)), jnp.float32(0))
            for i in (i for i, role in enumerate(roles) if role == "better"):
                value += share * self.teaching.rank(losses[i], losses[i + 1])
            return value, state, logged

        def total(params, state, which, batches, keys):
            value, logs = jnp.float32(0), []
            for batch, key in _zip(batches, keys):
                more, state, logged = one(
                    params, state, which, batch, key, 1 / len(batches)
                )
                value, logs = value + more, [*logs, logged]
            return value, (state, programs.mean(logs))

        def step(params, state, opt, which, batches, clock):
            lr, keys = clock
            gradients, (new_state, logged) = jax.grad(total, has_aux=True)(
                params, state, which, batches, keys
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


def _layers(net: Supernet) -> dict[str, int]:
    """Return the layer that each module stands in."""
    choices = net.space.choices
    return {m: slot.layer for slot in net.slots for m, _ in slot.modules(choices)}


def _which(n: int, choices: int) -> tuple[Any, Any, tuple[Any, ...]]:
    """Return the shapes of n planned archs, of where what each shares with the one
    before ends, and of the weights of their losses."""
    archs = jax.ShapeDtypeStruct((n, choices), jnp.int32)
    return archs, jax.ShapeDtypeStruct((n,), jnp.int32), (SCALAR,) * n


def _parted(batches: Sequence[Batch]) -> tuple[list[Any], list[Any]]:
    """Return the examples of batches, and their keys."""
    return [(b.x, b.y, b.taught) for b in batches], [b.key for b in batches]


_zip = functools.partial(zip, strict=True)
