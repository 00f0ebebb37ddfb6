"""Strict fairness is exact, in the sense that its docstring states."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from strategy_cases import DEEP, SQUARE
from supernets import REFERENCES

from oneshot.space import Choice, SearchSpace
from oneshot.strategies import StrictFair
from oneshot.strategies.fair import fair_archs

SIZES = {"a": 2, "b": 3, "c": 4, "d": 1, "e": 3}
UNEQUAL = SearchSpace([Choice(name, tuple(range(n))) for name, n in SIZES.items()])


def counts(space, archs):
    """Return how often each option of each choice comes, [options] a choice."""
    columns = np.array(archs).T
    return [
        np.bincount(column, minlength=len(choice.options))
        for column, choice in zip(columns, space.choices, strict=True)
    ]


def rounds(space, seed, n):
    return [
        [planned.arch for planned in StrictFair(space).plan(None, seed, step)]
        for step in range(n)
    ]


def hold_to_fairness(space, seed):
    """Check rounds up to the least common multiple of all numbers of options."""
    sizes = [len(c.options) for c in space.choices]
    longest, common = max(sizes), math.lcm(*sizes)
    seen = []
    for archs in rounds(space, seed, common // math.gcd(common, longest)):
        assert len(archs) == longest
        seen += archs
        for found, size in zip(counts(space, seen), sizes, strict=True):
            assert np.ptp(found) <= 1  # at the end of any round
            assert len(seen) % size or np.ptp(found) == 0
        for found, size in zip(counts(space, archs), sizes, strict=True):
            assert size < longest or (found == 1).all()  # in each round by itself
    assert all(np.ptp(found) == 0 for found in counts(space, seen))


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda r: r.name)
def test_rounds_over_the_reference_supernets_are_fair(reference):
    space = reference.make().space
    for seed in range(3):
        hold_to_fairness(space, seed)
        if len({len(c.options) for c in space.choices}) == 1:
            for archs in rounds(space, seed, 5):
                assert all((found == 1).all() for found in counts(space, archs))


@pytest.mark.parametrize("space", [UNEQUAL, DEEP, SQUARE], ids=["3", "deep", "square"])
def test_rounds_over_unequal_choices_are_fair(space):
    for seed in range(10):
        hold_to_fairness(space, seed)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 99))
def test_rounds_over_any_space_are_fair(sizes, seed):
    choices = [Choice(f"c{i}", tuple(range(n))) for i, n in enumerate(sizes)]
    hold_to_fairness(SearchSpace(choices), seed)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 40), st.integers(1, 30), st.integers(0, 29))
def test_the_sequence_is_the_same_however_it_is_cut(first, n, cut):
    whole = fair_archs(UNEQUAL, 7, first, n)
    if 0 < (cut := cut % n):
        head, tail = (
            fair_archs(UNEQUAL, 7, first, cut),
            fair_archs(UNEQUAL, 7, first + cut, n - cut),
        )
        assert head + tail == whole


def test_one_by_one_goes_through_the_archs_of_the_rounds():
    strategy = StrictFair(UNEQUAL, one_by_one=True)
    plans = [strategy.plan(None, 0, step) for step in range(5 * strategy.round_length)]
    assert all(len(plan) == 1 and plan[0].weight == 1.0 for plan in plans)
    assert [plan[0].arch for plan in plans] == sum(rounds(UNEQUAL, 0, 5), [])


def test_a_round_is_weighed_as_one_path_or_as_its_sum():
    for reduce, total in (("mean", 1.0), ("sum", 4.0)):
        plan = StrictFair(UNEQUAL, reduce).plan(None, 0, 0)
        assert math.isclose(sum(p.weight for p in plan), total)
        assert {p.role for p in plan} == {"labels"}


def test_archs_are_uniform_and_choices_independent_of_each_other():
    archs = [archs[0] for archs in rounds(SQUARE, 1, 2700)]  # of distinct rounds
    table = np.zeros((3, 3, 3), int)
    np.add.at(table, tuple(np.array(archs).T), 1)
    assert chisquare(table.ravel()).pvalue > 1e-3
