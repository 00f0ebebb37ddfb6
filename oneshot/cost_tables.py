"""Costs of a whole space: what each layer costs, as tables over the choices it reads.

What a block costs depends on its own choices and on those that its input's shape
depends on, and on no other. With the tables of all layers the least and the greatest
cost of any arch follow exactly, however large the space, before anything is built.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from oneshot.bounded_cache import nbytes
from oneshot.constraints import ENUMERABLE, Constraint, extremes
from oneshot.costs import Costs
from oneshot.elimination import Table, least, values_of
from oneshot.engine import INDEX, key_shape
from oneshot.functional import Functional
from oneshot.nn.backend import plain_operations
from oneshot.paths import Step
from oneshot.programs import block_apply
from oneshot.residuals import ResidualPlan, forward
from oneshot.space import Arch
from oneshot.supernet import Supernet, Tree

# One example's; of activations the bytes that a training step keeps until its backward:
# the input, what each block hands to the next, and what each saves besides, by XLA's
# own operations (on a CPU some of ours save less).
Cost = Literal["params", "macs", "activation_bytes"]
COSTS: tuple[Cost, ...] = ("params", "macs", "activation_bytes")
_ENTRIES = 200_000  # in the table of one layer before giving up


@dataclasses.dataclass(frozen=True)
class Ends:
    """The archs of least and greatest cost.

    Attributes:
      least, greatest: Their costs.
      smallest, largest: The archs, as path keys.
      exact: Whether these are the true ends; else the best that descents found.
    """

    least: float
    greatest: float
    smallest: Arch
    largest: Arch
    exact: bool


class CostTables:
    """Costs of the archs of a supernet, by layer.

    Args:
      supernet: Whose archs.
      x: An example input, of any batch size; costs are those of one example.

    Example:
      >>> tables = CostTables(net, images[:1])
      >>> tables.ends("macs").least, tables.values("params", archs)
    """

    def __init__(self, supernet: Supernet, x: Tree):
        self.supernet, self.costs = supernet, Costs(supernet, x)
        self._walk = _Walk(self.costs)
        self._tables: dict[Cost, list[Table] | None] = {}
        self._ends: dict[Cost, Ends] = {}

    def tables(self, cost: Cost) -> list[Table] | None:
        """Return the layers' tables of a cost, whose sum it is.

        None where shapes depend on too many choices at once.
        """
        if cost not in self._tables:  # activations take longer to trace
            both: tuple[Cost, ...] = ("params", "macs")
            traced = both if cost in both else (cost,)
            self._tables.update(_tables(self.supernet, self._walk, traced))
        return self._tables[cost]

    def value(self, cost: Cost, arch: Sequence[int]) -> int:
        """Return a cost of one arch."""
        return int(self.values(cost, [arch])[0])

    def values(self, cost: Cost, archs: Sequence[Sequence[int]]) -> np.ndarray:
        """Return a cost of each arch, int [n]."""
        rows = np.asarray([self.supernet.space.check(a) for a in archs])
        rows = rows.reshape(len(archs), len(self.supernet.space.choices))
        if (tables := self.tables(cost)) is None:
            return np.array([self._by_blocks(cost, a) for a in archs], np.int64)
        return values_of(tables, rows)

    def ends(self, cost: Cost) -> Ends:
        """Return the archs of least and greatest cost.

        They are exact but where shapes depend on so many choices at once that they
        could not be followed; then they are what coordinate descent finds.
        """
        if cost not in self._ends:
            found = self._exact(cost)
            self._ends[cost] = self._descended(cost) if found is None else found
        return self._ends[cost]

    def constraint(self, cost: Cost, maximum: float) -> Constraint:
        """Return a bound on a cost that is refused at once where no arch keeps it."""
        ends = self.ends(cost)
        known = (ends.least, ends.greatest) if ends.exact else None
        return Constraint(
            cost, functools.partial(self.value, cost), maximum, known_range=known
        )

    def _exact(self, cost: Cost) -> Ends | None:
        space, tables = self.supernet.space, self.tables(cost)
        if tables is None:
            return None
        sizes = [len(c.options) for c in space.choices]
        low = least(tables, sizes)
        high = least([Table(t.choices, -t.values) for t in tables], sizes)
        if low is None or high is None:
            return None
        small, large = (
            space.path_key([end[1].get(i, 0) for i in range(len(sizes))])
            for end in (low, high)
        )
        return Ends(low[0], -high[0], small, large, True)

    def _descended(self, cost: Cost) -> Ends:
        value = functools.cache(functools.partial(self.value, cost))
        small, large = extremes(self.supernet.space, value)
        listed = self.supernet.space.num_paths <= ENUMERABLE
        return Ends(value(small), value(large), small, large, listed)

    def _by_blocks(self, cost: Cost, arch: Sequence[int]) -> int:
        carry = self._walk.number(self.costs.x)
        total = nbytes(self.costs.x) if cost == "activation_bytes" else 0
        for step in self.supernet.path(arch):
            carry, more = self._walk(step, carry, [cost])
            total += more
        return total


def _tables(
    supernet: Supernet, walk: _Walk, costs: Sequence[Cost]
) -> Mapping[Cost, list[Table] | None]:
    """Walk down the layers with the shapes that each assignment of choices leads to."""
    choices, x = supernet.space.choices, walk.costs.x
    scope: tuple[int, ...] = ()
    carries = np.array(walk.number(x))  # over the choices in `scope`
    out: dict[Cost, list[Table]] = {cost: [] for cost in costs}
    if "activation_bytes" in out:
        out["activation_bytes"].append(Table((), np.array(nbytes(x))))
    for slot in supernet.slots:
        steps = {
            tuple(assigned[c] for c in slot.choices): step
            for assigned, step in slot.cases(choices, {})
        }
        wider = tuple(sorted({*scope, *slot.choices}))
        sizes = [len(choices[c].options) for c in wider]
        if math.prod(sizes) > _ENTRIES:
            return dict.fromkeys(costs)
        own = [wider.index(c) for c in slot.choices]
        before = [wider.index(c) for c in scope]
        found = np.zeros((1 + len(costs), *sizes), np.int64)
        for index in np.ndindex(*sizes):
            carry = int(carries[tuple(index[i] for i in before)])
            step = steps[tuple(index[i] for i in own)]
            found[(slice(None), *index)] = walk(step, carry, costs)
        after, *priced = (_narrowed(Table(wider, values)) for values in found)
        scope, carries = after.choices, after.values
        for cost, table in zip(costs, priced, strict=True):
            out[cost].append(table)
    return out


class _Walk:
    """Numbers for shapes, and what a block makes of one and costs."""

    def __init__(self, costs: Costs):
        self.costs, self.carries = costs, []
        self._numbers: dict[Any, int] = {}
        self._held: dict[Any, int] = {}  # equal modules hold the same

    def number(self, carry: Tree) -> int:
        key = _key(carry)
        if key not in self._numbers:
            self._numbers[key] = len(self.carries)
            self.carries.append(carry)
        return self._numbers[key]

    def __call__(
        self, step: Step | None, carry: int, costs: Sequence[Cost]
    ) -> tuple[int, ...]:
        """Return the number of the output's shapes, and each cost."""
        if step is None:
            return (carry, *(0 for _ in costs))
        block = self.costs.block(step, self.carries[carry])
        priced = (
            self.held(step, carry, block.out)
            if cost == "activation_bytes"
            else getattr(block, cost)
            for cost in costs
        )
        return (self.number(block.out), *priced)

    def held(self, step: Step, carry: int, out: Tree) -> int:
        """Return the bytes of a block's output and of what its backward is kept."""
        supernet, first = self.costs.supernet, step.layer == 0
        key = supernet.structures[step.module], step.options, carry, first
        if key not in self._held:
            module = supernet.modules[step.module]
            shapes = self.carries[carry]
            self._held[key] = nbytes(out) + saved_bytes(module, step, shapes)
        return self._held[key]


def saved_bytes(module: Functional, step: Step, carry: Tree) -> int:
    """Return the bytes that a block's forward saves for its backward when training.

    Its input, its output and its weights are not among them.
    """
    apply = block_apply(module, step.options, "train")
    run = forward(apply, ResidualPlan(), step.layer != 0)
    key = (key_shape(), INDEX) if module.has_rng else None
    with plain_operations():  # quicker to trace, and the same on every backend
        _, _, saved = jax.eval_shape(run, module.params, module.state, carry, key)
    return nbytes(saved)


def _key(carry: Tree) -> Any:
    leaves, treedef = jax.tree.flatten(carry)
    return treedef, tuple((a.shape, a.dtype) for a in leaves)


def _narrowed(table: Table) -> Table:
    """Leave out the choices that a table does not depend on."""
    scope, values = list(table.choices), table.values
    for choice in table.choices:
        axis = scope.index(choice)
        first = values.take([0], axis)
        if (values == first).all():
            scope.remove(choice)
            values = first.squeeze(axis)
    return Table(tuple(scope), values)
