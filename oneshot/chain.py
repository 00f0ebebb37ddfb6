"""A training step as a chain of compiled blocks: forward, loss, backward, update.

Each block is two programs: its forward, which returns the residuals, and its backward,
which also updates the module when nothing stands between gradient and update. With
clipping, or several paths in a plan, updates come after all backwards.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from oneshot import programs
from oneshot.engine import (
    INDEX,
    SCALAR,
    Engine,
    Kind,
    OptimizerOf,
    key_shape,
    saved_shapes,
)
from oneshot.freezing import frozen_leaves
from oneshot.nested import trained
from oneshot.paths import Path, Step
from oneshot.residuals import ResidualPlan, backward, forward, split_carry
from oneshot.space import Arch
from oneshot.strategies import Role
from oneshot.supernet import Tree, Weights, abstract, reachable
from oneshot.teaching import Teaching
from oneshot.training_pass import TrainingPass

Variant = Literal["update", "norm", "gradient"]
_PLAIN = Teaching()


class Update(NamedTuple):
    """What turns gradients into new parameters."""

    make_optimizer: programs.MakeOptimizer
    clip_norm: float | None = None
    donate: bool = True

    def frozen(self, module: str, params: Tree) -> frozenset:
        """Return the paths of a module's frozen arrays."""
        return frozen_leaves(self.make_optimizer, module, params)


class PlannedPath(NamedTuple):
    """A path of a training step, its arch, the weight of its loss on the device, and
    its role."""

    path: Path
    arch: Arch
    weight: Any
    role: Role = "labels"


class Batch(NamedTuple):
    """What one pass over the network trains on.

    Attributes:
      x, y: Inputs and targets.
      key: Random key of the step, or of its part.
      taught: Outputs of an external teacher, where students need them.
    """

    x: Tree
    y: Tree
    key: Any
    taught: Tree | None = None


@dataclasses.dataclass(frozen=True)
class Block:
    """The forward program of one block, and what its backward needs."""

    key: Any
    forward: Any
    plan: ResidualPlan
    out_id: int
    saved: Any  # abstract residuals
    carry_id: int
    input_gradient: bool


class Chain:
    """Runs training steps as chains of blocks.

    Args:
      engine: Compiles and keeps the programs.
      metrics: Functions (outputs, targets) -> [n] by name, with the loss as "loss".
      update: Optimizer, clipping and donation.
      teaching: Losses of students and of pairs.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Mapping[str, programs.Metric],
        update: Update,
        teaching: Teaching = _PLAIN,
    ):
        self.engine, self.metrics, self.update = engine, dict(metrics), update
        self.teaching = teaching
        self.modules = engine.supernet.modules
        self._blocks: dict[Any, Block] = {}
        self._calls: dict[Any, Any] = {}
        self._frozen_leaves: dict[str, frozenset] = {}
        self._own = object()  # tells this chain's losses and updates from another's
        self.zero, self.one = (engine.put(np.float32(v)) for v in (0, 1))

    # --- the step -----------------------------------------------------------------

    def step(
        self,
        weights: Weights,
        optimizer: dict[str, Tree],
        planned: Sequence[PlannedPath],
        batches: Sequence[Batch],
        lr: Any,
    ) -> tuple[Weights, dict[str, Tree], list[dict[str, Any]], Any]:
        """Train on the planned paths; nothing here waits for the device.

        Args:
          weights: Shared weights.
          optimizer: Optimizer state of each module.
          planned: The paths, with role and weight.
          batches: One, or several whose mean loss is trained on.
          lr: Learning rate of this step.

        Returns:
          Weights, optimizer states, the logged scalars of each path, and the squared
          norm of the gradient (None where nothing asked for it).
        """
        single = len(planned) == len(batches) == 1
        fused = single and self.update.clip_norm is None
        variant: Variant = "update" if fused else "norm" if single else "gradient"
        run = TrainingPass(self, weights, optimizer, lr, variant)
        share = self.shares(len(batches))
        logs = [run.run(planned, batch, share) for batch in batches]
        logged = logs[0] if len(logs) == 1 else self.mean(logs)
        norm = None if fused else run.finish()
        return Weights(run.params, run.state), run.optimizer, logged, norm

    # --- programs -----------------------------------------------------------------

    def block(self, step: Step, carry_id: int) -> Block:
        """Return the forward program of `step` for this input shape."""
        found = self._blocks.get((step, carry_id))
        if found is None:
            module = self.modules[step.module]
            # Data needs no gradient, so the first block of a network computes none.
            wants = step.layer != 0
            key = (self.engine.structure(step.module), step.options, carry_id, wants)
            found = self.engine.once(
                ("block", key), lambda: self._build_block(key, module, step)
            )
            self._blocks[step, carry_id] = found
        return found

    def _build_block(self, key, module, step: Step) -> Block:
        _, options, carry_id, wants = key
        plan = ResidualPlan()
        fn = forward(programs.block_apply(module, options, "train"), plan, wants)
        fn.__name__ = f"{step.module}{_suffix(step)}_forward"
        carry = self.engine.carry(carry_id)
        rng = (key_shape(), INDEX) if module.has_rng else None
        arguments = [
            (module.params, "weights"),
            (module.state, "weights"),
            (carry, "data"),
            (rng, "copied"),
        ]
        compiled = self.engine.compile(
            ("forward", key), fn, arguments, ("data", "weights", None)
        )
        out, _, saved = abstract(compiled.out_info)
        return Block(
            key,
            compiled,
            plan,
            self.engine.carry_id(out),
            saved_shapes(compiled, saved, 2),
            carry_id,
            wants,
        )

    def backward(self, block: Block, module: str, variant: Variant) -> Any:
        """Return the backward program of a block."""
        frozen = self._frozen(module)
        call = self._calls.get((block.key, frozen, variant))
        if call is None:
            fn = backward(block.plan, block.input_gradient)
            fn.__name__ = f"{module}_backward"
            carry = jax.tree.leaves(self.engine.carry(block.carry_id))
            out = self.engine.carry(block.out_id)
            arguments = [
                (self.modules[module].params, "weights"),
                ([carry[i] for i in block.plan.needs("carry")], "data"),
                ([jax.tree.leaves(out)[i] for i in block.plan.needs("out")], "data"),
                (block.saved, None),
                (split_carry(out)[0], "data"),
            ]
            results = ["data", "weights"]
            call = self._vary(
                ("backward", block.key), fn, module, variant, arguments, results
            )
            self._calls[block.key, frozen, variant] = call
        return call

    def head(
        self,
        step: Step,
        carry_id: int,
        targets: Tree,
        variant: Variant,
        role: Role = "labels",
        taught: Tree | None = None,
    ) -> Any:
        """Return the program of the last block, its loss and its backward."""
        target_id = self.engine.carry_id(targets)
        taught_id = None if taught is None else self.engine.carry_id(taught)
        frozen = self._frozen(step.module)
        structure = (self.engine.structure(step.module), frozen)
        kind = role if role in ("teacher", "student") else "labels"
        key = (structure, step.options, carry_id, target_id, kind, taught_id)
        call = self._calls.get(("head", key, variant))
        if call is None:
            module = self.modules[step.module]
            apply = programs.block_apply(module, step.options, "train")
            distillation = self.teaching.distillation if kind == "student" else None
            teaches = kind == "teacher"
            fn = programs.head_loss(apply, self.metrics, distillation, teaches)
            arguments = [
                (module.params, "weights"),
                (module.state, "weights"),
                (self.engine.carry(carry_id), "data"),
                ((key_shape(), INDEX) if module.has_rng else None, "copied"),
                (self.engine.carry(target_id), "data"),
                (SCALAR, "copied"),
            ]
            if taught_id is not None:
                arguments.append((self.engine.carry(taught_id), "data"))
            results = ["data", "weights", "weights", "copied"]
            results += ["data"] * teaches
            call = self._vary(
                ("head", key), fn, step.module, variant, arguments, results
            )
            self._calls["head", key, variant] = call
        return call

    def _vary(self, key, fn, module: str, variant: Variant, arguments, results):
        """Compile a gradient program as it is, with its update, or with its norm."""
        name, donate = getattr(fn, "__name__", "block"), ()
        frozen = self._frozen(module)
        if frozen:
            fn = programs.with_frozen(fn, frozen, 1)
        if variant == "update":
            fn = programs.with_update(fn, self.update.make_optimizer, 1)
            arguments[1:1] = self._opt_arguments(module)
            results[1] = ("weights", OptimizerOf(module))
            donate = (0, 1) if self.update.donate else ()
        elif variant == "norm":
            fn = programs.with_norm(fn, 1)
            arguments, results = (
                [(SCALAR, "copied"), *arguments],
                [*results, "copied"],
            )
        fn.__name__ = f"{name}_{variant}"
        full = (key, frozen, variant, self._own)
        return self.engine.compile(full, fn, arguments, tuple(results), donate)

    def _opt_arguments(self, module: str):
        init = self.update.make_optimizer(0.1).init
        return [
            (jax.eval_shape(init, self._trained(module)), OptimizerOf(module)),
            (SCALAR, "copied"),
        ]

    def _frozen(self, module: str) -> frozenset:
        if module not in self._frozen_leaves:
            params = self.modules[module].params
            self._frozen_leaves[module] = self.update.frozen(module, params)
        return self._frozen_leaves[module]

    def _trained(self, module: str) -> Tree:
        """Return the shapes of the module's arrays that are not frozen."""
        return trained(self.modules[module].params, self._frozen(module))

    def apply_update(self, module: str) -> Any:
        """Return the program that updates one module from its gradients."""
        key = ("update", self.engine.structure(module), self._frozen(module))
        call = self._calls.get(key)
        if call is None:
            fn = programs.update(self.update.make_optimizer, self.update.clip_norm)
            params = (self.modules[module].params, "weights")
            rest = [(self._trained(module), "weights"), (SCALAR, "copied")]
            arguments = [params, *self._opt_arguments(module), *rest]
            donate = (0, 1) if self.update.donate else ()
            results = ("weights", OptimizerOf(module))
            full = (key, self._own)
            call = self._calls[key] = self.engine.compile(
                full, fn, arguments, results, donate
            )
        return call

    def add(self, module: str) -> Any:
        """Return the program that adds two gradients of a module."""
        params = (self._trained(module), "weights")
        return self._small("add", programs.add, module, [params] * 2)

    def add_norm(self, module: str) -> Any:
        """Return the program that adds a gradient's squared norm to a sum."""
        params = (self._trained(module), "weights")
        return self._small("norm", _add_norm, module, [(SCALAR, "copied"), params])

    def scale(self, module: str) -> Any:
        """Return the program that multiplies a module's gradients by a number."""
        arguments = [(self._trained(module), "weights"), (SCALAR, "copied")]
        return self._small("scale", programs.scaled, module, arguments)

    def add_cotangents(self, carry_id: int) -> Any:
        """Return the program that adds two cotangents of one carry."""
        key = ("add cotangents", carry_id)
        if key not in self._calls:
            floats = split_carry(self.engine.carry(carry_id))[0]
            one: tuple[Any, Kind] = floats, "data"
            self._calls[key] = self.engine.compile(
                key, programs.add, (one, one), "data"
            )
        return self._calls[key]

    @functools.cached_property
    def rank_factors(self) -> Any:
        """The program (two losses, two weights, share of this batch) -> factors of the
        two gradients."""
        fn = programs.rank_factors(self.teaching.rank)
        scalar: tuple[Any, Kind] = SCALAR, "copied"
        five = scalar, scalar, scalar, scalar, scalar
        return self.engine.compile(("rank", self._own), fn, five, "copied")

    def shares(self, n: int) -> Any:
        """Return 1 / n on the device."""
        if ("share", n) not in self._calls:
            self._calls["share", n] = self.engine.put(np.float32(1 / n))
        return self._calls["share", n]

    def mean(self, logs: Sequence[Any]) -> Any:
        """Return the mean of what was logged for several batches."""
        one = self.engine.carry_id(logs[0])
        argument: tuple[Any, Kind] = [self.engine.carry(one)] * len(logs), "copied"
        key = "mean", len(logs), one
        call = self.engine.compile(key, programs.mean, [argument], "copied")
        return call(list(logs))

    def _small(self, kind: str, fn: Callable, module: str, arguments):
        key = (kind, self.engine.structure(module), self._frozen(module))
        if key not in self._calls:
            self._calls[key] = self.engine.compile(key, fn, arguments, "weights")
        return self._calls[key]

    # --- warm-up ------------------------------------------------------------------

    def warm_up_jobs(
        self,
        x: Tree,
        targets: Tree,
        roles: Sequence[Role] = ("labels",),
        accumulate: int = 1,
    ) -> Iterator[Callable[[], Any]]:
        """Yield one job for each distinct block that some arch runs on such batches.

        Args:
          x: Inputs of a batch.
          targets: Its targets.
          roles: Those of a plan, one for each of its paths.
          accumulate: Batches in a step.
        """
        last, seen = len(self.engine.supernet.slots) - 1, set()
        several_paths = len(roles) > 1 or accumulate > 1
        variants: list[Variant] = [
            "update" if self.update.clip_norm is None else "norm"
        ]
        if several_paths:
            variants = ["gradient"]
        reached = reachable(self.engine.supernet, x)
        heads: list[tuple[Variant, Role, Any]] = [
            (variant, role, reached[-1].out if role == "student" else None)
            for variant in variants
            for role in dict.fromkeys(roles)
        ]
        for step, carry, _ in reached:
            carry_id = self.engine.carry_id(carry)
            key = (
                self.engine.structure(step.module),
                self._frozen(step.module),
                step.options,
                carry_id,
                step.layer == 0,
            )
            if key in seen:
                continue
            seen.add(key)
            if step.layer == last:
                yield lambda s=step, c=carry_id: [
                    self.head(s, c, targets, *h) for h in heads
                ]
            else:
                yield lambda s=step, c=carry_id: [
                    self.backward(self.block(s, c), s.module, v) for v in variants
                ]
        if several_paths or self.update.clip_norm is not None:
            for name in self.modules:
                yield lambda n=name: self.apply_update(n)
        if several_paths:
            pairs = "better" in roles
            if pairs:
                yield lambda: self.rank_factors
            for name in self.modules:
                yield lambda n=name: (self.add(n), self.add_norm(n))
                if pairs:
                    yield lambda n=name: self.scale(n)
            for carry_id in {self.engine.carry_id(r.carry) for r in reached[1:]}:
                yield lambda c=carry_id: self.add_cotangents(c)


def _add_norm(total, gradients):
    return total + programs.squared_norm(gradients)


def _suffix(step: Step) -> str:
    return "".join(f"_{k}{v}" for k, v in step.options)
