"""The least of a sum whose terms depend on a few choices each, exactly.

Choices are eliminated one after the other: the terms that read one are added, and of
its options the best is kept for every assignment of the other choices that they read.
So the work grows with the choices that terms link, not with the size of the space.

Reference: Bertelè and Brioschi, Nonserial Dynamic Programming, Academic Press, 1972.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

ENTRIES = 2_000_000  # in the largest table before giving up


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """One term of a sum.

    Attributes:
      choices: The choices that it depends on, ascending.
      values: Its value for each of their options, an axis for each choice.
    """

    choices: tuple[int, ...]
    values: np.ndarray


def least(
    tables: Iterable[Table], sizes: Mapping[int, int] | Sequence[int]
) -> tuple[float, dict[int, int]] | None:
    """Return the least sum of the tables, and an assignment that has it.

    Args:
      tables: The terms.
      sizes: Number of options of each choice.

    Returns:
      (sum, option index by choice); choices that no table reads are left out. None if
      the tables link too many choices.

    Example:
      >>> both = Table((0, 1), np.array([[0, 5], [4, 2]]))
      >>> least([Table((0,), np.array([3, 1])), both], [2, 2])
      (3, {1: 0, 0: 0})
    """
    rest, kept = _merged(tables), []
    while waiting := {c for scope in rest for c in scope}:
        choice = min(sorted(waiting), key=lambda c: _entries(_linked(rest, c), sizes))
        scope = _linked(rest, choice)
        if _entries(scope, sizes) > ENTRIES:
            return None
        own = [Table(s, v) for s, v in rest.items() if choice in s]
        values, axis = total(own, scope), scope.index(choice)
        others = tuple(c for c in scope if c != choice)
        kept.append((choice, others, values.argmin(axis)))
        left = [Table(s, v) for s, v in rest.items() if choice not in s]
        rest = _merged([*left, Table(others, values.min(axis))])
    assignment: dict[int, int] = {}
    for choice, others, best in reversed(kept):
        assignment[choice] = int(best[tuple(assignment[c] for c in others)])
    return rest.get((), np.zeros(())).item(), assignment


def total(tables: Sequence[Table], scope: tuple[int, ...]) -> np.ndarray:
    """Return the sum of tables over `scope`, all of their choices among them."""
    out: np.ndarray = np.zeros((1,) * len(scope), np.int64)
    for table in tables:
        sizes = dict(zip(table.choices, table.values.shape, strict=True))
        shape = tuple(sizes.get(c, 1) for c in scope)
        out = out + table.values.reshape(shape)
    return out


def values_of(tables: Sequence[Table], archs: np.ndarray) -> np.ndarray:
    """Return the sum for each row of `archs`, int [n, choices]."""
    out: np.ndarray = np.zeros(len(archs), np.int64)
    for table in tables:
        out = out + table.values[tuple(archs[:, c] for c in table.choices)]
    return out


def _merged(tables: Iterable[Table]) -> dict[tuple[int, ...], np.ndarray]:
    """Add up tables of the same choices."""
    out: dict[tuple[int, ...], np.ndarray] = {}
    for table in tables:
        known = out.get(table.choices)
        out[table.choices] = table.values if known is None else known + table.values
    return out


def _linked(tables: Iterable[tuple[int, ...]], choice: int) -> tuple[int, ...]:
    return tuple(sorted({c for scope in tables if choice in scope for c in scope}))


def _entries(scope: tuple[int, ...], sizes: Mapping[int, int] | Sequence[int]) -> int:
    return math.prod(sizes[c] for c in scope)
