"""Fronts and volumes against brute force, hand-worked numbers and their laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oneshot import pareto

TABLES = hnp.arrays(
    float,
    st.tuples(st.integers(0, 12), st.integers(1, 3)),
    elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, float("inf"), float("nan")]),
)


def brute_front(values):
    valid = [i for i, row in enumerate(values) if not np.isnan(row).any()]
    return [
        i
        for i in valid
        if not any(
            (values[j] <= values[i]).all() and (values[j] < values[i]).any()
            for j in valid
        )
    ]


@settings(max_examples=150, deadline=None)
@given(TABLES)
def test_front_is_the_brute_force_one(values):
    assert pareto.front(values).tolist() == brute_front(values)


@settings(max_examples=150, deadline=None)
@given(TABLES)
def test_ranks_peel_fronts(values):
    ranks, left = pareto.ranks(values), list(range(len(values)))
    for rank in itertools.count():
        best = [left[i] for i in brute_front(values[left])]
        if not best:
            break
        assert (ranks[best] == rank).all()
        left = [i for i in left if i not in best]
    assert (ranks[left] == rank).all()  # failed rows, after the last front


@settings(max_examples=80, deadline=None)
@given(TABLES, st.randoms(use_true_random=False))
def test_front_does_not_depend_on_the_order(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    found = {order[i] for i in pareto.front(values[order])}
    assert found == set(pareto.front(values).tolist())


@settings(max_examples=80, deadline=None)
@given(TABLES)
def test_crowding_is_never_nan(values):
    assert not np.isnan(pareto.crowding(values)).any()


def test_dominates():
    assert pareto.dominates([1, 2], [1, 3])
    assert not pareto.dominates([1, 2], [1, 2])
    assert not pareto.dominates([0, np.nan], [1, 1])
    assert not pareto.dominates([1, 1], [2, np.nan])


def test_crowding_by_hand():
    # Neighbours of the second: (0, 10) and (4, 4). 4/10 of the first range and 6/10 of
    # the second. Of the third: (1, 6) and (10, 0), 9/10 and 6/10.
    values = [[0, 10], [1, 6], [4, 4], [10, 0]]
    np.testing.assert_allclose(pareto.crowding(values), [np.inf, 1.0, 1.5, np.inf])


def test_hypervolume_by_hand():
    assert pareto.hypervolume([[1, 3], [2, 1]], [4, 4]) == 3 * 1 + 2 * 2
    assert pareto.hypervolume([[1], [2]], [5]) == 4
    # Two boxes of 2 * 1 * 1 and 1 * 2 * 1 from the reference, which share 1 * 1 * 1.
    assert pareto.hypervolume([[0, 1, 1], [1, 0, 1]], [2, 2, 2]) == 2 + 2 - 1
    assert pareto.hypervolume([[5, 0], [np.nan, 0]], [4, 4]) == 0
    assert pareto.hypervolume(np.zeros((0, 2)), [4, 4]) == 0


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_hypervolume_counts_dominated_cells(m):
    values = np.random.default_rng(m).integers(0, 5, (7, m)).astype(float)
    cells = itertools.product(range(5), repeat=m)
    dominated = sum(any((row <= cell).all() for row in values) for cell in cells)
    assert pareto.hypervolume(values, [5] * m) == dominated


def test_wrong_shapes_are_explained():
    with pytest.raises(ValueError, match="table \\[n, m\\]"):
        pareto.front([1, 2, 3])
    with pytest.raises(ValueError, match="each of the 2 objectives"):
        pareto.hypervolume([[1, 2]], [3])
