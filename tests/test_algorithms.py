"""One contract for every algorithm on every space, and what each claims for itself."""

import json

import numpy as np
import pytest

from oneshot.algorithms import NSGA2, RandomSearch, RegularizedEvolution
from oneshot.constraints import Constraint, Constraints, InfeasibleError
from oneshot.pareto import hypervolume
from oneshot.space import Choice, Reader, SearchSpace

ALGORITHMS = {
    "random": RandomSearch,
    "random over paths": lambda *a, **k: RandomSearch(*a, over="paths", **k),
    "evolution": lambda *a, **k: RegularizedEvolution(*a, 8, 4, **k),
    "nsga2": lambda *a, **k: NSGA2(*a, population_size=8, **k),
}


def cube(choices, options):
    names = (f"choice{i}" for i in range(choices))
    return SearchSpace([Choice(n, tuple(range(options))) for n in names])


def stage():
    """Depth 1 to 3; a layer's kernel is read only where the depth reaches it."""
    choices = [Choice("depth", (1, 2, 3)), *(Choice(f"k{i}", (3, 5, 7)) for i in "012")]
    readers = [Reader((0,)), Reader((1,)), Reader((2,), ((0, (1, 2)),))]
    return SearchSpace(choices, [*readers, Reader((3,), ((0, (2,)),))])


SPACES = {
    "tiny": cube(3, 3),
    "stage": stage(),
    "uneven": SearchSpace(
        [Choice("a", (1,)), Choice("b", "xy"), Choice("c", "uvwxyz")]
    ),
    "huge": cube(24, 4),
}


@pytest.fixture(params=ALGORITHMS)
def make(request):
    return ALGORITHMS[request.param]


@pytest.fixture(params=SPACES)
def space(request):
    return SPACES[request.param]


def cost(path):
    return float(sum(path))


def objectives(archs, m=2):
    table = [[sum(a), -max(a), a[-1] - a[0]] for a in archs]
    return np.array(table, float).reshape(len(archs), 3)[:, :m]


def run(algorithm, total, batch=4, values=objectives):
    asked = []
    while len(asked) < total and (
        archs := algorithm.ask(min(batch, total - len(asked)))
    ):
        algorithm.tell(archs, values(archs))
        asked += archs
    return asked


# --- the contract -----------------------------------------------------------------


def test_asks_valid_archs_of_distinct_paths(make, space):
    asked = run(make(space), 60)
    assert all(space.validate(arch) == [] for arch in asked)
    assert all(type(v) is int for arch in asked for v in arch)
    assert len({space.path_key(arch) for arch in asked}) == len(asked)


@pytest.mark.parametrize("name", ["tiny", "stage", "uneven"])
def test_an_exhausted_space_ends(make, name):
    space = SPACES[name]
    algorithm = make(space)
    asked = run(algorithm, 10_000, batch=7)
    assert {space.path_key(a) for a in asked} == set(space.enumerate())
    assert algorithm.ask(3) == []


def test_keeps_constraints(make, space):
    bound = 25 if space.num_paths > 1000 else 2
    constraints = Constraints(space, [Constraint("cost", cost, maximum=bound)])
    asked = run(make(space, constraints=constraints), 60)
    assert all(cost(space.path_key(arch)) <= bound for arch in asked)
    if constraints.paths is not None:  # small: all that is feasible, and nothing else
        assert {space.path_key(a) for a in asked} == set(constraints.paths)
    else:
        assert len(asked) == 60


def test_infeasible_constraints_name_minimum_and_maximum(make, space):
    costs = [cost(k) for k in space.enumerate()] if space.num_paths < 1000 else [0, 72]
    constraints = Constraints(space, [Constraint("my cost", cost, minimum=1000)])
    with pytest.raises(InfeasibleError) as error:
        make(space, constraints=constraints).ask(1)
    message = str(error.value)
    assert "'my cost' is bounded to at least 1,000" in message
    assert f"from {min(costs):,.12g} to {max(costs):,.12g}" in message
    assert f"to {max(costs):,.12g} or less" in message
    assert ("exactly" in message) == (space.num_paths < 1000)


def test_same_seed_same_archs_and_another_seed_others(make, space):
    first, again = run(make(space, seed=5), 20), run(make(space, seed=5), 20)
    assert first == again
    assert first != run(make(space, seed=6), 20)


@pytest.mark.parametrize("asked_before", [0, 5, 23])
def test_state_round_trip_is_exact(make, space, asked_before):
    algorithm = make(space, seed=3)
    run(algorithm, asked_before, batch=3)
    state = json.loads(json.dumps(algorithm.state(), allow_nan=False))
    restored = make(space, seed=99)
    restored.restore(state)
    assert run(restored, 25, batch=5) == run(algorithm, 25, batch=5)
    assert restored.state() == algorithm.state()


def test_state_of_another_space_is_refused(make):
    with pytest.raises(ValueError, match="Restore it into an algorithm over the same"):
        make(SPACES["tiny"]).restore(make(SPACES["stage"]).state())


def test_constraints_of_another_space_are_refused(make):
    with pytest.raises(ValueError, match="Build both with one space"):
        make(SPACES["tiny"], constraints=Constraints(SPACES["stage"]))
    with pytest.raises(ValueError, match=r"are Constraints\(space, \[Constraint"):
        make(SPACES["tiny"], constraints=[Constraint("my cost", cost, maximum=9)])


@pytest.mark.parametrize("failure", [np.nan, np.inf, -np.inf])
def test_failures_never_win_and_never_poison(make, space, failure):
    """Archs whose last gene is 0 fail; what fails has no offspring."""

    def values(archs):
        table = objectives(archs)
        table[[a[-1] == 0 for a in archs], 0] = failure
        return table

    algorithm = make(space, seed=1)
    asked = run(algorithm, 40, values=values)
    assert len(asked) == min(40, space.num_paths)
    members = [m[0] for m in getattr(algorithm, "population", [])]
    assert all(arch[-1] != 0 for arch in members)
    json.dumps(algorithm.state(), allow_nan=False)


def test_all_failing_goes_on(make):
    asked = run(make(SPACES["tiny"]), 99, values=lambda a: np.full((len(a), 2), np.nan))
    assert len(asked) == 27


def test_archs_told_unasked_are_not_asked(make):
    space = SPACES["tiny"]
    known = list(space.enumerate())[:20]
    algorithm = make(space)
    algorithm.tell(known, objectives(known))
    assert set(run(algorithm, 99)) == set(space.enumerate()) - set(known)


def test_tell_explains_a_wrong_shape(make):
    algorithm = make(SPACES["tiny"])
    archs = algorithm.ask(3)
    with pytest.raises(ValueError, match="one row for each of the 3 archs"):
        algorithm.tell(archs, [1.0, 2.0, 3.0])
    algorithm.tell([], [])


def test_a_rare_region_of_a_large_space_is_reached(make):
    """About two archs in 10^9 are feasible: rejection alone would never end."""
    space = SPACES["huge"]
    rare = Constraints(space, [Constraint("cost", cost, maximum=6)])
    asked = run(make(space, constraints=rare), 12)
    assert len(asked) == 12 and all(cost(a) <= 6 for a in asked)


def test_a_large_space_with_few_feasible_paths_ends(make):
    """Feasible are all zeros and, with one gene at 1, fourteen others of 3^14."""
    space = cube(14, 3)
    few = Constraints(space, [Constraint("cost", cost, maximum=1)])
    assert few.paths is None
    assert len(run(make(space, constraints=few), 10**4, batch=16)) == 15


# --- constraints ------------------------------------------------------------------


def test_sampling_under_constraints_is_uniform_where_the_space_is_small():
    space = cube(6, 3)  # 7 of 729 archs are feasible, so that rejection often fails
    constraints = Constraints(space, [Constraint("cost", cost, maximum=1)])
    drawn = constraints.sample(np.random.default_rng(0), 350)
    counts = [drawn.count(path) for path in constraints.paths or ()]
    assert len(counts) == 7 and sum(counts) == 350
    # Chi-square with 6 degrees of freedom exceeds 22.5 in one of 1,000 cases.
    assert sum((c - 50) ** 2 / 50 for c in counts) < 22.5


def test_constraints_that_exclude_each_other_are_told_apart():
    space = SPACES["tiny"]
    both = [Constraint("low", cost, maximum=2), Constraint("high", cost, minimum=4)]
    with pytest.raises(InfeasibleError, match="together they exclude every arch"):
        Constraints(space, both).sample(np.random.default_rng(0), 1)


def test_a_nan_cost_is_infeasible():
    space = SPACES["tiny"]
    constraint = Constraint("odd", lambda a: np.nan if sum(a) % 2 else 0.0, maximum=0)
    drawn = Constraints(space, [constraint]).sample(np.random.default_rng(0), 20)
    assert all(sum(arch) % 2 == 0 for arch in drawn)


def test_a_constraint_is_a_function_of_the_path():
    space = stage()  # depth 1 does not read the last gene
    constraints = Constraints(space, [Constraint("last", lambda a: a[3], maximum=0)])
    assert constraints.feasible((0, 0, 0, 2)) and not constraints.feasible((2, 0, 0, 2))


@pytest.mark.parametrize(
    "bounds", [{}, {"maximum": np.nan}, {"minimum": 2, "maximum": 1}]
)
def test_meaningless_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="needs a `maximum`, a `minimum`"):
        Constraint("cost", cost, **bounds)


# --- what the algorithms are for --------------------------------------------------


def evaluations_to_optimum(algorithm, best=(2, 0, 1, 2, 1)):
    """Hamming distance to `best`: one optimum among 243."""
    for i in range(243):
        [arch] = algorithm.ask(1)
        distance = sum(x != y for x, y in zip(arch, best, strict=True))
        if distance == 0:
            return i + 1
        algorithm.tell([arch], [[distance]])
    raise AssertionError("the whole space was asked without meeting the optimum")


@pytest.mark.parametrize("name", ["evolution", "nsga2"])
def test_finds_the_optimum_sooner_than_random_search(name):
    space, seeds = cube(5, 3), range(20)
    guided = [evaluations_to_optimum(ALGORITHMS[name](space, seed=s)) for s in seeds]
    blind = [evaluations_to_optimum(RandomSearch(space, seed=s)) for s in seeds]
    assert np.mean(guided) < 0.5 * np.mean(blind)


def test_evolution_forgets_the_oldest():
    algorithm = RegularizedEvolution(cube(3, 3), population_size=2, sample_size=1)
    algorithm.tell([(0, 0, 0), (1, 1, 1), (2, 2, 2)], [[0.0], [1.0], [2.0]])
    assert [arch for arch, _ in algorithm.population] == [(1, 1, 1), (2, 2, 2)]


def test_evolution_changes_one_choice():
    algorithm = RegularizedEvolution(cube(6, 3), population_size=1, sample_size=1)
    [parent] = algorithm.ask(1)
    for _ in range(20):
        algorithm.tell([parent], [[0.0]])
        [child] = algorithm.ask(1)
        assert sum(x != y for x, y in zip(parent, child, strict=True)) == 1
        parent = child


def test_nsga2_spreads_over_the_front_better_than_random_search():
    """Two objectives that pull every gene to 0 and to 2; 1 is the compromise."""

    def values(archs):
        genes = np.array(archs)
        return np.stack([(genes**2).sum(axis=1), ((2 - genes) ** 2).sum(axis=1)], 1)

    def volume(algorithm):
        asked = run(algorithm, 200, batch=20, values=values)
        return hypervolume(values(asked), [40, 40])

    space, seeds = cube(10, 3), range(5)
    spread = [volume(NSGA2(space, population_size=20, seed=s)) for s in seeds]
    blind = [volume(RandomSearch(space, seed=s)) for s in seeds]
    # The whole front: per gene (0, 4), (1, 1) or (4, 0), and so at most one mixture.
    best = [(i, 40 - 3 * i) for i in range(11)] + [(40 - 3 * i, i) for i in range(11)]
    assert min(spread) > max(blind)
    assert np.mean(spread) > 0.93 * hypervolume(best, [40, 40])


def test_nsga2_refuses_another_number_of_objectives():
    algorithm = NSGA2(cube(3, 3), population_size=4)
    algorithm.tell([(0, 0, 0)], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="told 2 objectives so far, but now 1"):
        algorithm.tell([(1, 0, 0)], [[1.0]])


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="population_size"):
        RegularizedEvolution(cube(3, 3), population_size=0)
    with pytest.raises(ValueError, match="population_size"):
        NSGA2(cube(3, 3), population_size=1)


@pytest.mark.parametrize("chance", [-0.1, 7, np.nan])
def test_chances_are_checked(chance):
    for make in (NSGA2, RegularizedEvolution):
        with pytest.raises(ValueError, match="`mutation` is a chance from 0 to 1"):
            make(cube(3, 3), mutation=chance)
    with pytest.raises(ValueError, match="`crossover` is a chance"):
        NSGA2(cube(3, 3), crossover=chance)


# --- on real networks -------------------------------------------------------------


def test_evolution_beats_random_search_on_nas_bench_macro(data_dir):
    """Guided by one seed of training, judged by three; 100 evaluations, 15 searches.

    Measured with 30 searches: median rank 6 of 6,561, and random search's 103.
    """
    file = data_dir / "nas_bench_macro.npz"
    if not file.exists():
        pytest.skip(f"{data_dir} holds no nas_bench_macro.npz")
    with np.load(file) as data:
        archs = [tuple(map(int, arch)) for arch in data["arch"]]
        accuracy = np.asarray(data["test_acc"], float)
    guide = dict(zip(archs, accuracy[:, 0], strict=True))
    order = np.argsort(-accuracy.mean(axis=1), kind="stable")
    rank = {archs[i]: place for place, i in enumerate(order, start=1)}
    space = cube(8, 3)

    def found(algorithm):
        asked = run(algorithm, 100, 1, lambda archs: [[-guide[a]] for a in archs])
        return rank[max(asked, key=guide.__getitem__)]

    guided = [found(RegularizedEvolution(space, 20, 5, seed=s)) for s in range(15)]
    blind = [found(RandomSearch(space, seed=s)) for s in range(15)]
    assert np.median(guided) <= 25 and np.median(guided) < np.median(blind) / 3
