"""A training step as a chain of compiled blocks: forward, loss, backward, update.

Each block is two programs: its forward, which returns the residuals, and its backward,
which also updates the module when nothing stands between gradient and update. With
clipping, or several paths in a plan, updates come after all backwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from oneshot import programs
from oneshot.chain_warm_up import jobs
from oneshot.engine import (
    INDEX,
    SCALAR,
    Engine,
    key_shape,
    saved_shapes,
)
from oneshot.gradient_sums import GradientSums
from oneshot.paths import Step
from oneshot.placement import OptimizerOf
from oneshot.planned import Batch, PlannedPath, Update
from oneshot.residuals import ResidualPlan, backward, forward, split_carry
from oneshot.shapes import abstract
from oneshot.strategies import Role
from oneshot.supernet import Tree, Weights
from oneshot.teaching import Teaching
from oneshot.trained_arrays import TrainedArrays
from oneshot.training_pass import TrainingPass

Variant = Literal["update", "norm", "gradient"]
_PLAIN = Teaching()


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
        self.arrays = TrainedArrays(self.modules, update)
        self.sums = GradientSums(engine, self.arrays, teaching.rank)
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
        share = self.sums.share(len(batches))
        logs = [run.run(planned, batch, share) for batch in batches]
        logged = logs[0] if len(logs) == 1 else self.sums.mean(logs)
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
        frozen = self.arrays.frozen(module)
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
        frozen = self.arrays.frozen(step.module)
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
        frozen = self.arrays.frozen(module)
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
            (jax.eval_shape(init, self.arrays.shapes(module)), OptimizerOf(module)),
            (SCALAR, "copied"),
        ]

    def apply_update(self, module: str) -> Any:
        """Return the program that updates one module from its gradients."""
        key = ("update", self.engine.structure(module), self.arrays.frozen(module))
        call = self._calls.get(key)
        if call is None:
            fn = programs.update(self.update.make_optimizer, self.update.clip_norm)
            params = (self.modules[module].params, "weights")
            rest = [(self.arrays.shapes(module), "weights"), (SCALAR, "copied")]
            arguments = [params, *self._opt_arguments(module), *rest]
            donate = (0, 1) if self.update.donate else ()
            results = ("weights", OptimizerOf(module))
            full = (key, self._own)
            call = self._calls[key] = self.engine.compile(
                full, fn, arguments, results, donate
            )
        return call

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
        return jobs(self, x, targets, roles, accumulate)


def _suffix(step: Step) -> str:
    return "".join(f"_{k}{v}" for k, v in step.options)
