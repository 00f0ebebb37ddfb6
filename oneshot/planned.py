"""What a training step is given: its paths, its batches, and how it updates."""

from __future__ import annotations

from typing import Any, NamedTuple

from oneshot import programs
from oneshot.freezing import frozen_leaves
from oneshot.paths import Path
from oneshot.space import Arch
from oneshot.strategies import Role
from oneshot.supernet import Tree


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
