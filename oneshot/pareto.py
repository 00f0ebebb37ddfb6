"""Dominance, fronts, crowding and hypervolume of minimised values, in plain numpy.

`values` is always [n, m]: one row a candidate, one column an objective to minimise.
A row that holds a NaN is a failed candidate: it dominates nothing, is in no front, and
adds no volume. Infinite values are ordinary, very bad or very good ones.

References:
  Deb, Pratap, Agarwal, Meyarivan. A fast and elitist multiobjective genetic algorithm:
  NSGA-II. IEEE Transactions on Evolutionary Computation 6(2), 2002 (ranks, crowding).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def dominates(a: ArrayLike, b: ArrayLike) -> bool:
    """Return whether `a` is no worse than `b` everywhere and better somewhere.

    Args:
      a: Values [m], minimised.
      b: Values [m], minimised.

    Returns:
      True if `a` dominates `b`; never if either holds a NaN.

    Example:
      >>> dominates([1, 2], [1, 3]), dominates([1, 3], [2, 2])
      (True, False)
    """
    left, right = np.asarray(a, float), np.asarray(b, float)
    return bool((left <= right).all() and (left < right).any())


def front(values: ArrayLike) -> np.ndarray:
    """Return the indices of the rows that no other row dominates.

    Args:
      values: [n, m], minimised. Equal rows do not dominate each other: all stay.

    Returns:
      Indices [k], ascending.

    Raises:
      ValueError: If `values` is not two-dimensional.

    Example:
      >>> front([[1, 4], [2, 2], [3, 3], [float("nan"), 0]]).tolist()
      [0, 1]
    """
    table = _table(values)
    valid = np.flatnonzero(~np.isnan(table).any(axis=1))
    # In lexicographic order a row can be dominated only by one before it, so that it
    # is enough to compare with the front so far.
    order = valid[np.lexsort(table[valid].T[::-1])]
    kept: list[int] = []
    for i in order:
        ahead = table[kept]
        no_worse, better = (
            (ahead <= table[i]).all(axis=1),
            (ahead < table[i]).any(axis=1),
        )
        if not (no_worse & better).any():
            kept.append(int(i))
    return np.asarray(sorted(kept), dtype=int)


def ranks(values: ArrayLike) -> np.ndarray:
    """Return the front that each row belongs to: 0 for the best, and so on.

    Args:
      values: [n, m], minimised.

    Returns:
      Ranks [n]. Rows with a NaN share the rank after the last front.

    Raises:
      ValueError: If `values` is not two-dimensional.

    Example:
      >>> ranks([[2, 2], [1, 1], [float("nan"), 0], [3, 1]]).tolist()
      [1, 0, 2, 1]
    """
    table = _table(values)
    no_worse = (table[:, None] <= table[None]).all(axis=2)  # NaN compares false
    better = np.asarray(no_worse & (table[:, None] < table[None]).any(axis=2))
    failed = np.asarray(np.isnan(table).any(axis=1))
    left = ~failed
    out = np.zeros(len(table), dtype=int)
    rank = 0
    while left.any():
        peeled = left & ~better[left].any(axis=0)
        out[peeled] = rank
        left &= ~peeled
        rank += 1
    out[failed] = rank
    return out


def crowding(values: ArrayLike) -> np.ndarray:
    """Return how much room each row of one front has: larger is lonelier.

    Args:
      values: [n, m], minimised, the rows of one front.

    Returns:
      Distances [n]: infinite for the ends of each objective, zero for rows with a NaN,
      else the sum over objectives of the gap between both neighbours over the range.

    Raises:
      ValueError: If `values` is not two-dimensional.

    Example:
      >>> crowding([[0, 4], [1, 2], [4, 0]]).tolist()
      [inf, 2.0, inf]
    """
    table = _table(values)
    out = np.zeros(len(table))
    valid = np.flatnonzero(~np.isnan(table).any(axis=1))
    if not len(valid):
        return out
    for column in np.clip(table[valid], -1e300, 1e300).T:  # inf - inf would be NaN
        order = np.argsort(column, kind="stable")
        ordered = column[order] / max(np.abs(column).max(), 1.0)  # ranges stay finite
        span = ordered[-1] - ordered[0]
        out[valid[order[[0, -1]]]] = np.inf
        if span > 0:
            out[valid[order[1:-1]]] += (ordered[2:] - ordered[:-2]) / span
    return out


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume that `values` dominate, up to a reference point.

    Args:
      values: [n, m], minimised. Rows not better than the reference in every objective,
        and rows with a NaN, add nothing.
      reference: [m], the worst value of interest in each objective.

    Returns:
      The volume, at least 0. Exact; slices along the last objective, so the time grows
      with n to the power m - 1.

    Raises:
      ValueError: If the shapes do not fit.

    Example:
      >>> hypervolume([[1, 3], [2, 1]], reference=[4, 4])  # 3 * 1 + 2 * 2
      7.0
    """
    table, corner = _table(values), np.asarray(reference, float)
    if corner.shape != (table.shape[1],):
        raise ValueError(
            f"The reference point needs one value for each of the {table.shape[1]} "
            f"objectives, but has shape {corner.shape}. Give a list of that length."
        )
    inside = table[(table < corner).all(axis=1)]
    return _volume(inside[front(inside)], corner) if len(inside) else 0.0


def _volume(rows: np.ndarray, corner: np.ndarray) -> float:
    if rows.shape[1] == 1:
        return float(corner[0] - rows.min())
    rows = rows[np.argsort(rows[:, -1], kind="stable")]
    upper = np.append(rows[1:, -1], corner[-1])
    total = 0.0
    for i, thickness in enumerate(upper - rows[:, -1]):
        if thickness > 0:
            slab = rows[: i + 1, :-1]
            total += float(thickness) * _volume(slab[front(slab)], corner[:-1])
    return total


def _table(values: ArrayLike) -> np.ndarray:
    table = np.asarray(values, float)
    if table.ndim != 2:
        raise ValueError(
            "Values are a table [n, m] with one row a candidate and one column an "
            f"objective, but have shape {table.shape}. For one objective, use "
            "`values[:, None]`."
        )
    return table
