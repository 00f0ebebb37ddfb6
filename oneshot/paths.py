"""Paths: what an arch resolves to, and the identity under which it is scored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

Options = tuple[tuple[str, Any], ...]


class Step(NamedTuple):
    """One layer of a path: which module runs there, and with which options.

    Attributes:
      layer: Position in the supernet; 0 is the stem, the last one the head.
      module: Name of the module that owns the weights.
      options: Static keyword arguments of the call, as sorted pairs; empty for a
        module without elastic dimensions.
    """

    layer: int
    module: str
    options: Options = ()


Path = tuple[Step, ...]  # skipped layers are left out: equal paths, equal scores


def unique(paths: Iterable[Path]) -> tuple[list[Path], list[int]]:
    """Return the distinct paths in order of appearance, and each path's place there.

    Example:
      >>> unique([(Step(0, "a"),), (Step(0, "b"),), (Step(0, "a"),)])[1]
      [0, 1, 0]
    """
    places: dict[Path, int] = {}
    inverse = [places.setdefault(path, len(places)) for path in paths]
    return list(places), inverse


def shared_prefix(a: Path, b: Path) -> int:
    """Return how many leading steps two paths have in common."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
