"""One training step of a chain of blocks, in progress: the weights, and the tapes.

The paths of a plan form a trie. Each node runs forward once, and backward once, with
the sum of what its branches send back; so the gradients are those of all paths, each
alone, added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from oneshot.paths import Path, Step
from oneshot.supernet import Tree, Weights
from oneshot.teaching import order_of

if TYPE_CHECKING:
    from oneshot.chain import Block, Chain, Variant
    from oneshot.planned import Batch, PlannedPath

Member = tuple[int, "PlannedPath"]  # its place in the plan, and itself


class TrainingPass:
    """Runs the paths of one plan and updates what they ran.

    Args:
      chain: Whose programs to run.
      weights: Shared weights before the step.
      optimizer: Optimizer state of each module.
      lr: Learning rate, on the device.
      variant: "update" where each backward may update its module at once.
    """

    def __init__(
        self,
        chain: Chain,
        weights: Weights,
        optimizer: dict[str, Tree],
        lr: Any,
        variant: Variant,
    ):
        self.chain, self.lr = chain, lr
        self.variant: Variant = variant
        self.params, self.state = dict(weights.params), dict(weights.state)
        self.optimizer = dict(optimizer)
        self.gradients: dict[str, Tree] = {}
        self.norm = chain.zero
        self.inputs: Tree = None
        self.targets: Tree = None
        self.teacher: Tree = None  # the outputs that students follow
        self.key: Any = None
        self.share: Any = None
        self.logged: dict[int, dict[str, Any]] = {}

    def run(
        self,
        planned: Sequence[PlannedPath],
        batch: Batch,
        share: Any,
    ) -> list[dict[str, Any]]:
        """Run all paths forward and backward on one batch.

        Args:
          planned: The plan's paths; their weights are for this batch alone.
          batch: What to train on.
          share: Of this batch in the step, on the device.

        Returns:
          The logged scalars of each path, in the plan's order.
        """
        self.inputs, self.targets, self.key, self.teacher = batch
        self.share, self.logged = share, {}
        order, _ = order_of([p.role for p in planned], [p.path for p in planned])
        members = [(i, planned[i]) for i in order]
        alone = [m for m in members if m[1].role in ("better", "worse")]
        if common := members[: len(members) - len(alone)]:
            self._walk(common)
        for better, worse in zip(alone[::2], alone[1::2], strict=True):
            self._pair(better, worse)
        return [self.logged[i] for i in range(len(planned))]

    def _walk(self, members: list[Member]) -> None:
        x = self.inputs
        self._descend(members, 0, x, self.chain.engine.carry_id(x))

    def _descend(
        self, members: list[Member], depth: int, carry: Tree, carry_id: int
    ) -> list[Any]:
        """Run what the members' paths do from `depth` on; return the cotangent."""
        tape: list[tuple[Block, str, tuple]] = []
        last = len(self.chain.engine.supernet.slots) - 1
        branches = _branches(members, depth)
        while len(branches) == 1 and (step := next(iter(branches))).layer != last:
            block = self.chain.block(step, carry_id)
            carry = self._forward(block, step, carry, tape)
            carry_id, depth = block.out_id, depth + 1
            branches = _branches(members, depth)
        cotangent: list[Any] | None = None
        for step, group in branches.items():
            for found in (
                self._heads(step, group, carry_id, carry)
                if step.layer == last
                else [self._descend(group, depth, carry, carry_id)]
            ):
                cotangent = self._sum(cotangent, found, carry_id)
        del carry  # no name may keep alive what a backward has used
        assert cotangent is not None
        while tape:
            cotangent = self._backward(*tape.pop(), cotangent)
        return cotangent

    def _sum(self, total: list[Any] | None, more: list[Any], carry_id: int):
        if not total or not more:  # data has no cotangent, whichever block reads it
            return total or more
        return self.chain.sums.add_cotangents(carry_id)(total, more)

    def _pair(self, better: Member, worse: Member) -> None:
        """Run two paths whose losses are compared.

        How much either counts is known when both losses are, so the gradients are kept
        apart until then.
        """
        before, apart = self.gradients, []
        for member in (better, worse):
            self.gradients = {}
            self._walk([member])
            apart.append(self.gradients)
        self.gradients = before
        losses = [self.logged[i]["loss"] for i, _ in (better, worse)]
        weights = [p.weight for _, p in (better, worse)]
        factors = self.chain.sums.rank_factors(*losses, *weights, self.share)
        for gradients, factor in zip(apart, factors, strict=True):
            for module, own in gradients.items():
                self._accumulate(module, self.chain.sums.scale(module)(own, factor))

    def _forward(self, block: Block, step: Step, carry: Tree, tape: list) -> Tree:
        own = self.params[step.module], self.state[step.module]
        out, self.state[step.module], saved = block.forward(
            *own, carry, self._rng(step)
        )
        kept = _pick(block, "carry", carry), _pick(block, "out", out), saved
        tape.append((block, step.module, kept))
        return out

    def _heads(self, step: Step, group: list[Member], carry_id: int, carry: Tree):
        """Run the loss of each of some equal paths; their statistics move once."""
        found, moved = [], None
        for member in group:
            found.append(self._head(step, member, carry_id, carry))
            moved = self.state[step.module] if moved is None else moved
        self.state[step.module] = moved
        return found

    def _head(self, step: Step, member: Member, carry_id: int, carry: Tree):
        place, planned = member
        taught = self.teacher if planned.role == "student" else None
        call = self.chain.head(
            step, carry_id, self.targets, self.variant, planned.role, taught
        )
        own = self.params[step.module], self.state[step.module]
        pair = planned.role in ("better", "worse")
        weight = self.chain.one if pair else planned.weight
        arguments = (*own, carry, self._rng(step), self.targets, weight)
        if taught is not None:
            arguments = (*arguments, taught)
        cotangent, self.state[step.module], self.logged[place], *outputs = self._call(
            call, step.module, arguments
        )
        if outputs:
            (self.teacher,) = outputs
        return cotangent

    def _backward(self, block: Block, module: str, kept: tuple, cotangent: list[Any]):
        call = self.chain.backward(block, module, self.variant)
        arguments = (self.params[module], *kept, cotangent)
        (cotangent,) = self._call(call, module, arguments)
        return cotangent

    def _rng(self, step: Step):
        if not self.chain.modules[step.module].has_rng:
            return None
        return self.key, self.chain.engine.layer_index[step.layer]

    def _call(self, call: Any, module: str, arguments: tuple):
        """Run a gradient program and keep what it says of its module."""
        if self.variant == "update":
            params, *others = arguments
            own = params, self.optimizer[module], self.lr
            first, own, *rest = call(*own, *others)
            self.params[module], self.optimizer[module] = own
        elif self.variant == "norm":
            first, own, *rest, self.norm = call(self.norm, *arguments)
            self.gradients[module] = own
        else:
            first, own, *rest = call(*arguments)
            self._accumulate(module, own)
        return first, *rest

    def _accumulate(self, module: str, gradients: Tree) -> None:
        if module in self.gradients:
            gradients = self.chain.sums.add(module)(self.gradients[module], gradients)
        self.gradients[module] = gradients

    def finish(self):
        """Update every module that has gradients; return their squared norm."""
        if self.variant == "gradient":
            for module, gradients in self.gradients.items():
                self.norm = self.chain.sums.add_norm(module)(self.norm, gradients)
        for module, gradients in self.gradients.items():
            call = self.chain.apply_update(module)
            own = self.params[module], self.optimizer[module], self.lr
            self.params[module], self.optimizer[module] = call(
                *own, gradients, self.norm
            )
        return self.norm


def _branches(members: list[Member], depth: int) -> dict[Step, list[Member]]:
    """Group paths by their next step, in the order of their appearance."""
    found: dict[Step, list[Member]] = {}
    for member in members:
        path: Path = member[1].path
        found.setdefault(path[depth], []).append(member)
    return found


def _pick(block: Block, kind: str, carry: Tree) -> list[Any]:
    places = block.plan.needs(kind)
    leaves = jax.tree.leaves(carry) if places else []
    return [leaves[i] for i in places]
