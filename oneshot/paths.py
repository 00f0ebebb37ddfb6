"""Paths: what an arch resolves to, and the identity under which it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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


def depth_first(paths: Iterable[Path]) -> list[Path]:
    """Return the distinct paths in an order that walks their trie depth first.

    Paths with a common prefix are neighbours, so that whoever keeps what the last path
    shares with the next computes each node of the trie once.
    """
    return sorted(set(paths), key=_order)


def _order(path: Path) -> list[tuple[int, str, str]]:
    return [(step.layer, step.module, repr(step.options)) for step in path]


def together(paths: Sequence[Path]) -> tuple[list[int], list[int]]:
    """Return an order that walks the paths' trie, and how much each path shares.

    The order is that of appearance wherever it can be: a node's branches are walked as
    they first appear, each to its end before the next.

    Args:
      paths: Any, equal ones included.

    Returns:
      (places in `paths` in that order, number of leading steps that each of them has in
      common with the one before it: 0 for the first).

    Example:
      >>> a, b, c = Step(0, "a"), Step(1, "b"), Step(1, "c")
      >>> together([(a, b), (a, c), (a, b)])
      ([0, 2, 1], [0, 2, 1])
    """
    first: dict[Path, int] = {}
    for i, path in enumerate(paths):
        for n in range(len(path) + 1):
            first.setdefault(path[:n], i)
    order = sorted(
        range(len(paths)),
        key=lambda i: [first[paths[i][:n]] for n in range(len(paths[i]) + 1)],
    )
    shared = [
        shared_prefix(paths[a], paths[b])
        for a, b in zip(order, order[1:], strict=False)
    ]
    return order, [0, *shared][: len(order)]


def num_nodes(paths: Iterable[Path]) -> int:
    """Return the number of blocks that scoring runs when each prefix is run once.

    Example:
      >>> a, b, c = Step(0, "a"), Step(1, "b"), Step(1, "c")
      >>> num_nodes([(a, b), (a, c), (a, b)])
      3
    """
    return sum(len(new) for new in _new_costs(depth_first(paths), lambda p: p))


def partition(
    paths: Sequence[Path], cost: Callable[[Path], Sequence[float]], parts: int
) -> list[list[Path]]:
    """Cut paths into parts whose dearest is as cheap as can be.

    Each part is a run of neighbours in the depth-first order, so that it shares all its
    prefixes but those of the walk from the root to its first path, which are paid for
    once more.

    Args:
      paths: Distinct paths in depth-first order.
      cost: The cost of each step of a path, which depends on the steps up to it only.
      parts: How many parts to make; some are empty where there are fewer paths.

    Returns:
      `parts` lists that hold all paths, in their order.
    """
    alone = [float(sum(cost(path))) for path in paths]
    after = [float(sum(new)) for new in _new_costs(paths, cost)]
    low, high = max(alone, default=0.0), sum(after)
    for _ in range(60):  # bisection: to the last digits of a float
        middle = (low + high) / 2
        if len(_filled(alone, after, middle)) <= parts:
            high = middle
        else:
            low = middle
    cuts = [*_filled(alone, after, high), *[len(paths)] * parts][: parts + 1]
    ends = [*cuts[1:], len(paths)][:parts]
    return [list(paths[a:b]) for a, b in zip(cuts, ends, strict=False)]


def _new_costs(
    paths: Sequence[Path], cost: Callable[[Path], Sequence[Any]]
) -> list[Sequence[Any]]:
    """Return the costs of the steps that each path does not share with the last."""
    before: Path = ()
    out = []
    for path in paths:
        out.append(cost(path)[shared_prefix(before, path) :])
        before = path
    return out


def _filled(alone: list[float], after: list[float], capacity: float) -> list[int]:
    """Return where parts begin when each is filled up to a capacity."""
    starts, total = [0], 0.0
    for i, (first, more) in enumerate(zip(alone, after, strict=True)):
        if i == starts[-1]:
            total = first
        elif total + more > capacity:
            starts.append(i)
            total = first
        else:
            total += more
    return starts
