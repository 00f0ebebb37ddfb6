"""The strategies that the contract is held to, on one space, and made-up metrics."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from oneshot.space import Choice, Reader, SearchSpace
from oneshot.strategies import (
    Attentive,
    CostBinned,
    Fixed,
    LossAware,
    PathImportance,
    Phase,
    PriorityBoard,
    PriorPairs,
    Progressive,
    Restricted,
    Sandwich,
    StrictFair,
    Uniform,
    ends,
    even,
)

# `depth` decides how many of `k0..k2` are read; `op` whether `e` is.
DEEP = SearchSpace(
    [
        Choice("depth", (1, 2, 3)),
        *(Choice(f"k{i}", (3, 5)) for i in range(3)),
        Choice("op", ("skip", "conv")),
        Choice("e", (1, 2, 4)),
    ],
    [
        Reader((0,)),
        *(Reader((i + 1,), ((0, tuple(range(i, 3))),)) for i in range(3)),
        Reader((4,)),
        Reader((5,), ((4, (1,)),)),
    ],
)
SQUARE = SearchSpace([Choice(name, (0, 1, 2)) for name in "abc"])


def cost(arch):
    """A cost of the archs of `DEEP` that grows with every option that is read."""
    depth, *kernels, op, expand = arch
    kernel_costs = sum((3, 5)[k] for k in kernels[: depth + 1])
    return kernel_costs + (0, (1, 2, 4)[expand])[op]


SMALLEST, LARGEST = ends(DEEP, cost)
PHASES = (
    Phase(4, {"k*": (5,)}),
    Phase(5, {"k*": None, "depth": (2, 3)}, paths=2),
    Phase(1, {"*": None}, paths=3),
)
STRATEGIES = {
    "uniform": Uniform(DEEP),
    "uniform_paths": Uniform(DEEP, "paths"),
    "fixed": Fixed(LARGEST),
    "fair": StrictFair(DEEP),
    "fair_one_by_one": StrictFair(DEEP, one_by_one=True),
    "sandwich": Sandwich(DEEP, SMALLEST, LARGEST),
    "sandwich_labels": Sandwich(
        DEEP, SMALLEST, LARGEST, random=3, distil=False, reduce="mean", over="paths"
    ),
    "progressive": Progressive(DEEP, LARGEST, PHASES, role="student"),
    "cost_binned": CostBinned(DEEP, cost, even(3, 19, bins=4)),
    "attentive": Attentive(DEEP, SMALLEST, LARGEST, cost, width=4),
    "attentive_predicted": Attentive(
        DEEP, SMALLEST, LARGEST, cost, 4, lambda archs: [a[0] for a in archs]
    ),
    "attentive_worst": Attentive(
        DEEP, SMALLEST, LARGEST, cost, 4, up="worst", distil=False, reduce="mean"
    ),
    "loss_aware": LossAware(DEEP, temperature=0.05, paths=2),
    "path_importance": PathImportance(DEEP, steps=30),
    "priority_board": PriorityBoard(DEEP, size=4),
    "priority_board_bounded": PriorityBoard(
        DEEP, size=3, match="best", cost=cost, maximum=12
    ),
    "prior_pairs": PriorPairs(DEEP, cost),
    "restricted": Restricted(DEEP, {"op": "conv", "k0": 5}),
    "restricted_board": Restricted(DEEP, {"depth": 2}, PriorityBoard(DEEP, size=2)),
}


class Metrics(NamedTuple):
    """What the trainer's metrics hold and strategies read."""

    logged: list[dict[str, Any]]
    squared_norm: Any = None


def metrics_of(plan, step):
    """Return metrics that are a function of the plan and the step, as training's are.

    Losses fall; an option of a higher index costs a little more.
    """
    logged = []
    for planned in plan:
        noise = np.random.default_rng([step, *planned.arch]).normal()
        loss = 1 + math.exp(-step / 20) + 0.1 * sum(planned.arch) + 0.02 * noise
        logged.append({"loss": np.float32(loss), "accuracy": np.float32(0.5)})
    return Metrics(logged, np.float32(sum(float(m["loss"]) ** 2 for m in logged)))


def run(strategy, steps, seed=0, between=lambda state, step: state):
    """Return the plans of some steps and the last state."""
    state, plans = strategy.init(), []
    for step in range(steps):
        state = between(state, step)
        plans.append(strategy.plan(state, seed, step))
        state = strategy.observe(state, plans[-1], metrics_of(plans[-1], step))
    return plans, state
