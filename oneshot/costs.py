"""Parameters and multiply-adds of an arch, summed over its blocks, nothing built."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from oneshot.functional import Functional
from oneshot.jaxprs import Box, trace, used_boxes
from oneshot.jaxprs import count_macs as count_macs
from oneshot.paths import Options, Path, Step
from oneshot.shapes import abstract
from oneshot.supernet import Supernet, Tree


@dataclasses.dataclass(frozen=True)
class BlockCost:
    """What one block costs, and what it hands on."""

    params: int
    macs: int
    out: Tree


class Costs:
    """Costs of archs, from their blocks.

    Args:
      supernet: Whose archs.
      x: An example input, of any batch size; costs are those of one example.

    Example:
      >>> costs = Costs(net, images[:1])
      >>> costs.params(arch), costs.macs(arch)
    """

    def __init__(self, supernet: Supernet, x: Tree):
        self.supernet = supernet
        self.x = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), abstract(x)
        )
        self._blocks: dict[Any, BlockCost] = {}
        self._totals: dict[Any, tuple[int, int]] = {}

    def params(self, arch: Sequence[int]) -> int:
        """Return the number of parameters of the extracted arch.

        Of an elastic module only the slices that the arch reads count; statistics such
        as BatchNorm's do not.
        """
        return self._total(arch)[0]

    def macs(self, arch: Sequence[int]) -> int:
        """Return the multiply-adds of one example (see `count_macs`)."""
        return self._total(arch)[1]

    def depth(self, arch: Sequence[int]) -> int:
        """Return the number of blocks on the path, stem and head included."""
        return len(self.supernet.path(arch))

    def steps(self, path: Path) -> list[BlockCost]:
        """Return what each block of a path costs, in order."""
        carry, out = self.x, []
        for step in path:
            out.append(self.block(step, carry))
            carry = out[-1].out
        return out

    def __call__(self, arch: Sequence[int]) -> dict[str, int]:
        """Return {"params", "macs", "depth"} of an arch."""
        params, macs = self._total(arch)
        return {"params": params, "macs": macs, "depth": self.depth(arch)}

    def _total(self, arch: Sequence[int]) -> tuple[int, int]:
        path = self.supernet.path(arch)
        if path not in self._totals:
            blocks = self.steps(path)
            self._totals[path] = (
                sum(block.params for block in blocks),
                sum(block.macs for block in blocks),
            )
        return self._totals[path]

    def block(self, step: Step, carry: Tree) -> BlockCost:
        """Return what one block costs on abstract input of one example."""
        leaves, treedef = jax.tree.flatten(carry)
        key = (
            self.supernet.structures[step.module],  # equal modules cost the same
            step.options,
            treedef,
            tuple((a.shape, a.dtype) for a in leaves),
        )
        if key not in self._blocks:
            module = self.supernet.modules[step.module]
            run = functools.partial(_run, module, step.options)
            out = jax.eval_shape(run, module.params, module.state, carry)
            boxes = parameter_boxes(module, step.options, carry)
            self._blocks[key] = BlockCost(
                sum(map(volume, boxes)),
                count_macs(run, module.params, module.state, carry),
                out,
            )
        return self._blocks[key]


def _run(
    module: Functional, options: Options, params: Tree, state: Tree, carry: Tree
) -> Tree:
    return module.apply(params, state, carry, options=options, mode="eval")[0]


def volume(box: Box | None) -> int:
    """Return the number of elements in a box; 0 where nothing is read."""
    return 0 if box is None else math.prod(stop - start for start, stop in box)


def parameter_boxes(
    module: Functional, options: Options, carry: Tree
) -> list[Box | None]:
    """Return which part of each parameter (as flattened) a block reads."""
    return _boxes(module, options, carry, lambda p, s: p)


def state_boxes(module: Functional, options: Options, carry: Tree) -> list[Box | None]:
    """Return which part of each array of state (as flattened) a block reads."""
    return _boxes(module, options, carry, lambda p, s: s)


def _boxes(
    module: Functional, options: Options, carry: Tree, followed: Callable
) -> list[Box | None]:
    leaves, treedef = jax.tree.flatten(followed(module.params, module.state))
    first = followed("params", "state")

    def run(leaves, other, carry):
        tree = treedef.unflatten(leaves)
        both = (tree, other) if first == "params" else (other, tree)
        return _run(module, options, *both, carry)

    other = module.state if first == "params" else module.params
    return used_boxes(trace(run, leaves, other, carry), len(leaves))
