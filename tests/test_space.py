"""The discrete algebra of spaces, as properties of random spaces."""

import itertools
import json

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from supernets import REFERENCES, small_nb_macro

from oneshot import Elastic, Identity, OneOf, Stage, Supernet
from oneshot.space import Choice, Commuting, Reader, SearchSpace

settings.register_profile("quick", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("quick")

# Two sub-spaces: `depth` decides how many of `k0..k2` are read; `op` whether `e` is.
DEEP = SearchSpace(
    [
        Choice("depth", (1, 2, 3)),
        *(Choice(f"k{i}", (3, 5)) for i in range(3)),
        Choice("op", ("skip", "conv")),
        Choice("e", (1, 2, 4)),
    ],
    [
        Reader((0,)),
        *(Reader((i + 1,), ((0, tuple(range(i, 3))),)) for i in range(3)),
        Reader((4,)),
        Reader((5,), ((4, (1,)),)),
    ],
)
COMMUTING = SearchSpace(
    [Choice(n, ("id", "a", "b")) for n in "abcd"],
    canonical=Commuting((("a", "b", "c"),)),
)


@st.composite
def spaces(draw):
    """Small spaces whose later choices may hang on earlier ones, some tied."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    choices = [Choice(f"c{i}", tuple(range(size))) for i, size in enumerate(sizes)]
    readers = []
    for i in range(len(sizes)):
        for _ in range(draw(st.integers(1, 2))):
            when = ()
            if readers and draw(st.booleans()):  # inside another place
                parent = draw(st.sampled_from(readers))
                (c,) = parent.reads
                allowed = draw(st.sets(st.integers(0, sizes[c] - 1)))
                when = (*parent.when, (c, tuple(sorted(allowed))))
            readers.append(Reader((i,), when))
    commuting = None
    if draw(st.booleans()):
        commuting = Commuting((tuple(c.name for c in choices if len(c.options) == 2),))
    return SearchSpace(choices, readers, commuting)


def arch_of(space):
    return st.tuples(*(st.integers(0, len(c.options) - 1) for c in space.choices))


@st.composite
def spaces_and_archs(draw, n=1):
    space = draw(spaces())
    return space, *(draw(arch_of(space)) for _ in range(n))


def every_arch(space):
    return list(itertools.product(*(range(len(c.options)) for c in space.choices)))


@given(spaces())
def test_json_round_trip_keeps_the_space(space):
    text = json.dumps(space.to_json())
    again = SearchSpace.from_json(json.loads(text))
    assert again == space and hash(again) == hash(space)
    assert SearchSpace.from_json(space.to_json()) == space
    assert again.fingerprint == space.fingerprint
    assert again.to_json() == json.loads(text) or json.dumps(again.to_json()) == text


@given(spaces(), spaces())
def test_equal_fingerprints_are_equal_spaces(a, b):
    assert (a.fingerprint == b.fingerprint) == (a == b)
    assert len(a.fingerprint) == 16


def test_options_of_every_json_kind_survive_json():
    options = (1, 1.5, "1", True, None, (1, (2, "x")), False, 0)
    space = SearchSpace([Choice("all", options)])
    again = SearchSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert [type(o) for o in again.choices[0].options] == [type(o) for o in options]
    assert again == space and again.fingerprint == space.fingerprint
    assert Choice("l", [[1, 2], [3]]) == Choice("l", ((1, 2), (3,)))


@given(spaces())
def test_number_of_paths_is_that_of_brute_force(space):
    keys = {space.path_key(a) for a in every_arch(space)}
    listed = list(space.paths())
    assert space.num_paths == len(keys) == len(listed) and set(listed) == keys
    assert space.size == len(every_arch(space)) == len(list(space.enumerate("archs")))
    distinct = {space.canonical(a) for a in every_arch(space)}
    assert space.num_distinct == len(distinct)
    assert set(space.enumerate("canonical")) == distinct


@given(spaces_and_archs())
def test_path_key_and_canonical_are_idempotent(drawn):
    space, arch = drawn
    key, canonical = space.path_key(arch), space.canonical(arch)
    assert space.path_key(key) == key and space.read(key) == space.read(arch)
    assert space.canonical(canonical) == canonical == space.canonical(key)
    assert space.describe(key) == space.describe(arch)
    assert not space.validate(canonical)


@given(spaces_and_archs())
def test_neighbours_change_one_read_choice_and_the_path(drawn):
    space, arch = drawn
    neighbours = space.neighbours(arch)
    read = space.read(arch)
    assert len(set(neighbours)) == len(neighbours)
    assert len(neighbours) == sum(len(space.choices[i].options) - 1 for i in read)
    for other in neighbours:
        changed = [i for i in range(len(arch)) if arch[i] != other[i]]
        assert len(changed) == 1 and changed[0] in read
        assert space.path_key(other) != space.path_key(arch)
        assert not space.validate(other)


@given(spaces_and_archs(2), st.integers(0, 99), st.floats(0, 1))
def test_mutation_and_crossover_stay_in_range(drawn, seed, probability):
    space, a, b = drawn
    rng = np.random.default_rng(seed)
    child, read = space.mutate(rng, a, probability), space.read(a)
    assert not space.validate(child)
    changed = {i for i in range(len(a)) if child[i] != a[i]}
    assert changed <= set(read)
    assert changed or all(len(space.choices[i].options) == 1 for i in read)
    mixed = space.crossover(rng, a, b)
    assert not space.validate(mixed)
    assert all(c in pair for c, *pair in zip(mixed, a, b, strict=True))


def test_mutation_without_probability_changes_one_choice():
    rng = np.random.default_rng(0)
    for arch in DEEP.sample(rng, 50):
        child = DEEP.mutate(rng, arch, probability=0.0)
        assert sum(x != y for x, y in zip(arch, child, strict=True)) == 1


@pytest.mark.parametrize("space", [DEEP, COMMUTING], ids=["deep", "commuting"])
@pytest.mark.parametrize("over", ["archs", "paths", "canonical"])
def test_sampling_is_uniform(space, over):
    n = 6000
    drawn = space.sample(np.random.default_rng(1), n, over)
    everything = list(space.enumerate(over))
    counts = {arch: 0 for arch in everything}
    for arch in drawn:
        counts[arch] += 1
    assert sum(counts.values()) == n
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_sampling_is_a_function_of_the_generator():
    a, b = (DEEP.sample(np.random.default_rng(3), 20, "paths") for _ in range(2))
    assert a == b and DEEP.sample(np.random.default_rng(0), 0) == []
    assert all(type(v) is int for arch in a for v in arch)


def test_sampling_large_spaces_needs_no_enumeration():
    names = tuple(f"c{i}" for i in range(120))
    choices = [Choice(n, ("id", "x", "y", "z")) for n in names]
    space = SearchSpace(choices, canonical=Commuting((names[:3],)))
    assert space.num_paths == 4**120 and space.num_distinct is None
    for arch in space.sample(np.random.default_rng(0), 20, "canonical"):
        assert space.canonical(arch) == arch


def test_validate_says_what_is_wrong():
    assert DEEP.validate((0, 0, 0, 0, 0, 0)) == []
    assert DEEP.validate(np.zeros(6, np.int32)) == []
    (length,) = DEEP.validate((0, 1))
    assert "6 option indices" in length and "got 2: (0, 1)" in length
    reasons = DEEP.validate((3, 0, 0, -1, 0, 1.0))
    assert len(reasons) == 3
    assert "'depth' has options [1, 2, 3]" in reasons[0] and "got 3" in reasons[0]
    assert "'k2'" in reasons[1] and "'e'" in reasons[2]
    assert DEEP.validate((True, 0, 0, 0, 0, 0))
    assert "sequence" in DEEP.validate(7)[0]
    with pytest.raises(ValueError, match="0 to 2.*space.sample"):
        DEEP.check((9, 0, 0, 0, 0, 0))


def test_names_and_options_translate_both_ways():
    arch = DEEP.arch({"depth": 2, "k1": 5, "op": "conv", "e": 4})
    assert arch == (1, 0, 1, 0, 1, 2)
    want = {"depth": 2, "k0": 3, "k1": 5, "op": "conv", "e": 4}
    assert DEEP.describe(arch) == want and DEEP.arch(DEEP.describe(arch)) == arch
    assert "e" not in DEEP.describe(DEEP.arch({"op": "skip"}))
    with pytest.raises(KeyError, match="No choice is called 'nothing'"):
        DEEP.arch({"nothing": 1})
    with pytest.raises(ValueError, match="'depth' has options.*got 9"):
        DEEP.arch({"depth": 9})


def test_bad_spaces_are_refused_with_a_reason():
    with pytest.raises(ValueError, match="no options"):
        Choice("a", ())
    with pytest.raises(ValueError, match="distinct"):
        Choice("a", (1, 2, 1))
    with pytest.raises(ValueError, match=r"\['a'\] repeat"):
        SearchSpace([Choice("a", (1,)), Choice("a", (2,))])
    with pytest.raises(ValueError, match="names choice 4"):
        SearchSpace([Choice("a", (1,))], [Reader((4,))])
    with pytest.raises(ValueError, match="got 'some'"):
        DEEP.sample(np.random.default_rng(0), 1, "some")


def reverse(space, arch):
    return max(arch, arch[::-1])


def test_a_symmetry_that_json_cannot_hold_has_to_be_given_again():
    space = SearchSpace([Choice(n, (0, 1)) for n in "ab"], canonical=reverse)
    data = json.loads(json.dumps(space.to_json()))
    with pytest.raises(ValueError, match="'reverse'.*Pass it as `symmetry`"):
        SearchSpace.from_json(data)
    assert SearchSpace.from_json(data, symmetry=reverse) == space


def test_commuting_moves_what_does_nothing_to_the_end_and_keeps_the_order():
    assert COMMUTING.canonical((0, 2, 1, 0)) == (2, 1, 0, 0)
    assert COMMUTING.canonical((2, 0, 1, 2)) == (2, 1, 0, 2)
    assert COMMUTING.num_distinct == (1 + 2 + 4 + 8) * 3


def test_nb_macro_has_3969_distinct_networks():
    space = small_nb_macro().space
    assert (space.size, space.num_paths, space.num_distinct) == (6561, 6561, 3969)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda r: r.name)
def test_equal_path_keys_are_equal_paths_of_the_supernet(reference):
    net = reference.make()
    for arch in net.space.sample(np.random.default_rng(0), 300):
        assert net.path(net.space.path_key(arch)) == net.path(arch)
        assert net.path(arch) not in list(map(net.path, net.space.neighbours(arch)))
    symmetry = net.space.symmetry  # a function of its own is not in the JSON
    given = None if isinstance(symmetry, Commuting) else symmetry
    again = SearchSpace.from_json(json.loads(json.dumps(net.space.to_json())), given)
    assert again == net.space


def _linear(rngs):
    return nnx.Linear(2, 2, rngs=rngs)


class _Sliced(nnx.Module):
    def __init__(self, *, rngs):
        self.weight = nnx.Param(rngs.normal((2, 2)))

    def __call__(self, x, *, hidden):
        return x @ self.weight[:, :hidden] @ self.weight[:hidden]


def _one():
    sliced = Elastic(_Sliced, hidden=(1, 2))
    return OneOf(a=_linear, skip=Identity, sliced=sliced, again=Identity)


TIED = Choice("depth", (0, 1, 2))
SKIPS_AND_DEPTHS = [
    [Stage([_one(), _one(), _one()], depth=(1, 2, 3))],
    [Stage([_one(), _one(), _one()], depth=(3, 1))],
    [Stage([_one(), Stage([_one(), _linear], depth=(0, 1, 2))], depth=(0, 1, 2))],
    [Stage([_one(), _linear], depth=TIED), Stage([_one(), _one()], depth=TIED)],
    [_one(), Elastic(_Sliced, hidden=(1, 2))],
]


@pytest.mark.parametrize("layers", SKIPS_AND_DEPTHS)
def test_skips_under_depths_still_give_each_path_one_key(layers):
    net = Supernet(_linear, layers, _linear)
    keys = {}
    for arch in net.space.enumerate("archs"):
        keys.setdefault(net.path(arch), set()).add(net.space.path_key(arch))
    assert {len(found) for found in keys.values()} == {1}
    every = {key for found in keys.values() for key in found}
    assert len(every) == len(keys) == net.space.num_paths
    assert set(net.space.paths()) == every
    drawn = net.space.sample(np.random.default_rng(0), 50, "paths")
    assert set(drawn) <= every
