"""Training: the state, one step, and a short loop over steps."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from oneshot.chain import Chain
from oneshot.engine import Engine
from oneshot.freezing import check_frozen, frozen_leaves
from oneshot.losses import Metric, Metrics, as_metrics, cross_entropy
from oneshot.momentum import Separated, of_group, with_group
from oneshot.nested import trained
from oneshot.optimizer import check_optimizer
from oneshot.placement import OptimizerOf
from oneshot.planned import Batch, PlannedPath, Update
from oneshot.programs import MakeOptimizer
from oneshot.randomness import WEIGHTS, stream_key
from oneshot.rates import ComplexityAware
from oneshot.reweighting import PLACES, Drawn, Reweighted, check_drawn, reweighted
from oneshot.settings import check_clip_norm
from oneshot.sharding import Layout, replicated
from oneshot.single import Single
from oneshot.step_inputs import StepInputs
from oneshot.step_metrics import StepMetrics
from oneshot.strategies import Plan, Role, Strategy, WithExamples, guided
from oneshot.supernet import Supernet, Tree, Weights
from oneshot.teaching import Teaching, check_plan

Execution = Literal["blocks", "static", "switch"]
_PLAIN = Teaching()


class TrainState(NamedTuple):
    """All that a run has learnt; what it will do next follows from seed and step.

    Attributes:
      step: Steps taken.
      seed: Decides archs, batch order, augmentation and dropout.
      weights: Shared weights.
      optimizer: Optimizer state of each module.
      strategy: The strategy's state.
    """

    step: int
    seed: int
    weights: Weights
    optimizer: dict[str, Tree]
    strategy: Any


class Trainer:
    """Trains the shared weights of a supernet, a plan at each step.

    Args:
      supernet: What to train.
      strategy: Draws the plans.
      optimizer: `learning_rate -> optax.GradientTransformation`, leaf-wise. It is
        called inside the compiled update and applied to each module on its own, so that
        modules off the path keep weights, momentum and decay as they are. `Freeze`
        makes one that leaves some weights as they are, `Separated` one whose momentum
        is kept apart for groups of archs.
      learning_rate: A number, an optax schedule of the global step, or one that also
        depends on the arch (`oneshot.rates.ComplexityAware`).
      loss: `(outputs, targets) -> [n]`, or several such metrics by name with "loss".
      clip_norm: Bound on the norm of the whole path's gradient, or None.
      mesh: Devices to split each batch over, with an axis `data`; None for one device.
      layout: How weights are spread over the mesh: copied to each device, or split by
        `oneshot.sharding.FullySharded` or `ByPath`.
      teaching: Losses of students and of pairs, and an external teacher.
      execution: "blocks", a chain of compiled blocks; "static", one program for each
        path; "switch", one program with a traced arch.

    Raises:
      ValueError: If the optimizer is not leaf-wise or holds a schedule, `clip_norm` is
        not above 0, the metrics have no "loss", the layout does not fit mesh or
        weights, or `execution` is another word.

    Example:
      >>> trainer = Trainer(net, Uniform(net.space),
      ...                   lambda lr: optax.sgd(lr, momentum=0.9), 0.1)
      >>> state = trainer.init(seed=0, x=images[:64])
      >>> state, metrics = trainer.step(state, (images[:64], labels[:64]))
    """

    def __init__(
        self,
        supernet: Supernet,
        strategy: Strategy,
        optimizer: MakeOptimizer,
        learning_rate: float | optax.Schedule,
        *,
        loss: Metric | Metrics = cross_entropy,
        clip_norm: float | None = None,
        mesh: Mesh | None = None,
        layout: Layout = replicated,
        teaching: Teaching = _PLAIN,
        execution: Execution = "blocks",
    ):
        self.separated = optimizer if isinstance(optimizer, Separated) else None
        if self.separated is not None:
            optimizer = self.separated.optimizer
        check_clip_norm(clip_norm)
        check_optimizer(optimizer)
        check_frozen(optimizer, supernet.abstract().params)
        self.supernet, self.strategy, self.make_optimizer = (
            supernet,
            strategy,
            optimizer,
        )
        self.metrics = as_metrics(loss)
        teaching = teaching.of_loss(self.metrics["loss"])
        if isinstance(strategy, WithExamples):
            self.metrics = reweighted(self.metrics)
            teaching = dataclasses.replace(
                teaching, distillation=Reweighted(teaching.distillation)
            )
        self.engine = Engine(supernet, mesh, layout=layout)
        self.teaching = teaching
        how = self.engine, self.metrics, Update(optimizer, clip_norm), teaching
        if execution == "blocks":
            self.executor: Chain | Single = Chain(*how)
        elif execution in ("static", "switch"):
            self.executor = Single(*how, traced=execution == "switch")
        else:
            raise ValueError(
                f"`execution` is 'blocks', 'static' or 'switch', but got {execution!r}."
            )
        self.learning_rate = _as_rate(learning_rate)
        self._inputs = StepInputs(self.engine.placement)
        self._init_optimizer = jax.jit(optimizer(0.1).init)

    def with_strategy(
        self, strategy: Strategy, learning_rate: float | optax.Schedule
    ) -> Trainer:
        """Return a trainer of the same compiled programs with another strategy and
        rate.

        Tuning a subnet after training the supernet then compiles nothing new.

        Raises:
          ValueError: If the new strategy draws examples and the old one did not.
        """
        if isinstance(strategy, WithExamples) and PLACES not in self.metrics:
            raise ValueError(
                "A strategy that draws examples needs a trainer whose losses weigh "
                "them. Build one with the strategy: Trainer(net, WithExamples(...), "
                "...)."
            )
        other = copy.copy(self)
        other.strategy, other.learning_rate = strategy, _as_rate(learning_rate)
        return other

    @property
    def guided(self) -> str | None:
        """What sampler or rate know of costs or another prior, in words, or None.

        A ranking by the weights was told that much: see `Ranking.guided_by`.
        """
        by_rate = isinstance(self.learning_rate, ComplexityAware)
        parts = [guided(self.strategy), "a rate by cost" if by_rate else None]
        return " and ".join(part for part in parts if part) or None

    def _trained(self, module: str, params: Tree) -> Tree:
        return trained(params, frozen_leaves(self.make_optimizer, module, params))

    def abstract(self) -> tuple[Weights, dict[str, Tree]]:
        """Return the shapes and dtypes of weights and optimizer states."""
        weights = self.supernet.abstract()
        optimizer = {
            name: jax.eval_shape(self._init_optimizer, self._trained(name, params))
            for name, params in weights.params.items()
        }
        if self.separated is not None:
            groups = self.separated.groups
            optimizer = {name: (own,) * groups for name, own in optimizer.items()}
        return weights, optimizer

    def init(self, seed: int, x: Tree, weights: Weights | None = None) -> TrainState:
        """Return the state before the first step.

        Args:
          seed: Decides everything random in the run.
          x: An example input batch; only its shapes matter.
          weights: Weights to start from, copied; fresh ones if None.

        Raises:
          ValueError: If some option does not accept what an earlier one returns.
        """
        if weights is None:
            key, put = stream_key(seed, WEIGHTS), self.engine.put
            place = functools.partial(put, kind="weights")
            params, state = self.supernet.init(key, x, place=place)
        else:  # a copy, since steps reuse the memory of what they are given
            params, state = self.engine.put_weights(jax.tree.map(jnp.copy, weights))
        optimizer = {}
        for name, own in params.items():
            optimizer[name] = self._first_states(name, self._trained(name, own))
        start = self.strategy.init()
        return TrainState(0, seed, Weights(params, state), optimizer, start)

    def _first_states(self, module: str, params: Tree) -> Tree:
        """Return what the optimizer keeps of a module at first, of each group."""
        groups = 1 if self.separated is None else self.separated.groups
        found = tuple(
            self.engine.put(self._init_optimizer(params), OptimizerOf(module))
            for _ in range(groups)  # each with memory of its own, which steps reuse
        )
        return found[0] if self.separated is None else found

    def warm_up(
        self,
        batch: tuple[Tree, Tree],
        on_progress: Callable[[int, int], Any] = lambda done, total: None,
        limit: int = 500,
        *,
        roles: Sequence[Role] | None = None,
        accumulate: int = 1,
    ) -> float:
        """Compile everything that training on such batches runs.

        With "static" and "switch" this is little: their programs depend on the plan.

        Args:
          batch: (x, y) of the shapes to come, on the host or the device.
          on_progress: Called with (blocks compiled, blocks in all).
          limit: With more blocks than this only the first are compiled now, the rest
            when they are first used.
          roles: Those of the plans to come, one for each path of a plan; by default
            those of the strategy's first plan. Where plans vary, warm up for each kind.
          accumulate: Batches in a step.

        Returns:
          Seconds it took.

        Example:
          >>> trainer.warm_up((images[:64], labels[:64]))
        """
        self._inputs.compile(self.learning_rate)
        if isinstance(self.executor, Single):
            return 0.0
        x, y = batch
        if isinstance(self.strategy, WithExamples) and not isinstance(y, Drawn):
            ones = np.ones(jax.tree.leaves(x)[0].shape[0], np.float32)
            batch = x, Drawn(y, ones, ones.astype(np.int32))
        if roles is None:
            plan = self.strategy.plan(self.strategy.init(), 0, 0)
            roles = [planned.role for planned in plan]
        jobs = list(self.executor.warm_up_jobs(*batch, roles, accumulate))
        return self.engine.warm_up(jobs, on_progress, limit)

    def step(
        self, state: TrainState, batch: tuple[Tree, Tree] | list[tuple[Tree, Tree]]
    ) -> tuple[TrainState, StepMetrics]:
        """Train one step.

        The arrays of `state` are given up to the new state (donated): copy what shall
        be kept. Nothing here waits for the device.

        Args:
          state: From `init`, `step`, or a checkpoint.
          batch: (x, y), on the host or the device; or a list of several of one shape,
            whose gradients are averaged before the update (BatchNorm's statistics are
            those of each). For a strategy that draws examples y is a
            `oneshot.reweighting.Drawn`, as `fit` makes it.

        Returns:
          The new state, and metrics whose `host()` waits for the device.
        """
        plan = self.strategy.plan(state.strategy, state.seed, state.step)
        check_plan(plan, self.teaching)
        optimizer, group = state.optimizer, None
        if self.separated is not None:
            group = self.separated.group_of(plan)
            optimizer = of_group(state.optimizer, group)
        several = batch if isinstance(batch, list) else [batch]
        if isinstance(self.strategy, WithExamples):
            check_drawn(several)  # before anything is given up
        inputs = self._inputs
        when = self.learning_rate, state.seed, state.step
        lr, key = inputs.rate_and_key(*when, plan)
        batches = [
            self._batch(plan, one, inputs.fold(key, i)) for i, one in enumerate(several)
        ]
        planned = [
            PlannedPath(
                self.supernet.path(p.arch),
                p.arch,
                inputs.scalar(p.weight / len(several)),
                p.role,
            )
            for p in plan
        ]
        weights, optimizer, logged, norm = self.executor.step(
            state.weights, optimizer, planned, batches, lr
        )
        if group is not None:
            optimizer = with_group(state.optimizer, group, optimizer)
        metrics = StepMetrics(state.step, plan, logged, lr, norm)
        observed = self.strategy.observe(state.strategy, plan, metrics)
        return TrainState(
            state.step + 1, state.seed, weights, optimizer, observed
        ), metrics

    def _batch(self, plan: Plan, batch: tuple[Tree, Tree], key: Any) -> Batch:
        """Return a batch on the device, with what an external teacher says of it."""
        x, y = self.engine.put(batch, "data")
        roles = {planned.role for planned in plan}
        if "student" not in roles or "teacher" in roles:
            return Batch(x, y, key)
        assert self.teaching.teacher is not None  # by check_plan
        return Batch(x, y, key, self.engine.put(self.teaching.teacher(x), "data"))


def _as_rate(rate: float | optax.Schedule) -> float | optax.Schedule:
    return rate if callable(rate) else float(rate)
