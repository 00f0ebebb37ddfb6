"""The work of scoring archs, in blocks and multiply-adds, counted before it is done.

One at a time, each arch runs its stem, its blocks and its head. By shared prefixes,
each distinct prefix of the paths is run once. Calibration and scored images pass
through the same blocks, so the ratio of the two is that of their multiply-adds for one
image, whatever the numbers of images.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax

from oneshot.costs import count_macs
from oneshot.paths import Path, Step
from oneshot.shapes import abstract
from oneshot.space import Arch
from oneshot.supernet import Supernet, Tree


class Amount(NamedTuple):
    """Work for one image: evaluations of blocks, stem and head not among them."""

    blocks: int
    macs: int


class Work:
    """Counts the work of scoring archs of one supernet.

    Args:
      supernet: Whose archs.
      x: An example batch; only the shape of one example matters.
    """

    def __init__(self, supernet: Supernet, x: Tree):
        one = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), abstract(x)
        )
        self.supernet, self._start = supernet, _frozen(one)
        self._blocks = {
            (step, _frozen(carry)): (_macs(supernet, step, carry), _frozen(out))
            for step, carry, out in supernet.reachable(one)
        }

    def macs(self, arch: Sequence[int]) -> int:
        """Return the multiply-adds of one image through one arch."""
        return self.alone([arch]).macs

    def alone(self, archs: Iterable[Sequence[int]]) -> Amount:
        """Return the work of the archs one at a time."""
        per_path = [self._prefixes(self.supernet.path(a)) for a in archs]
        return self._sum(prefix for prefixes in per_path for prefix in prefixes)

    def shared(self, archs: Iterable[Sequence[int]]) -> Amount:
        """Return the work of the archs with each distinct prefix run once."""
        return self.shared_paths(map(self.supernet.path, archs))

    def shared_paths(self, paths: Iterable[Path]) -> Amount:
        """Return the work of paths with each distinct prefix run once."""
        distinct: dict[Path, int] = {}
        for path in paths:
            distinct |= dict(self._prefixes(path))
        return self._sum(distinct.items())

    def ratio(self, archs: Sequence[Arch], shared: Sequence[Arch] | None = None):
        """Return the multiply-adds of `archs` alone over those of `shared` together."""
        together = self.shared(archs if shared is None else shared)
        return self.alone(archs).macs / together.macs

    def _prefixes(self, path: Path) -> list[tuple[Path, int]]:
        out, carry = [], self._start
        for i, step in enumerate(path):
            macs, carry = self._blocks[step, carry]
            out.append((path[: i + 1], macs))
        return out

    def _sum(self, prefixes: Iterable[tuple[Path, int]]) -> Amount:
        last = len(self.supernet.slots) - 1
        blocks = macs = 0
        for prefix, own in prefixes:
            blocks += 0 < prefix[-1].layer < last
            macs += own
        return Amount(blocks, macs)


def _macs(supernet: Supernet, step: Step, carry: Tree) -> int:
    module = supernet.modules[step.module]
    run = functools.partial(module.apply, options=step.options, mode="eval")
    return count_macs(run, module.params, module.state, carry)


def _frozen(tree: Tree) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple((a.shape, a.dtype) for a in leaves)
