"""A profile of a space: how large it is, and what its networks cost, before training.

Smallest and largest are those of the whole space, exactly, from the costs of each layer
(`CostTables`); medians are of random paths. Latency is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from oneshot.constraints import Constraints
from oneshot.cost_tables import COSTS, Cost, CostTables
from oneshot.latency import RUNS
from oneshot.latency import latency as measure
from oneshot.shapes import abstract
from oneshot.space import Arch, SearchSpace
from oneshot.supernet import Supernet, Tree


@dataclasses.dataclass(frozen=True)
class Spread:
    """One cost over the space.

    Attributes:
      smallest, largest: Over all archs if `exact`, else the ends that were found.
      median: Of the sample.
      exact: Whether the ends are proved.
    """

    smallest: float
    median: float
    largest: float
    exact: bool


@dataclasses.dataclass(frozen=True)
class Latency:
    """Median seconds of one batch, of three networks.

    Attributes:
      smallest, largest: Of the archs of fewest and of most multiply-adds.
      median: Of the sampled arch whose multiply-adds are the median.
      batch: Examples in the batch.
      runs: How many runs each median is of.
      device: What it was measured on.
    """

    smallest: float
    median: float
    largest: float
    batch: int
    runs: int
    device: str


@dataclasses.dataclass(frozen=True)
class Profile:
    """What `profile` found.

    Attributes:
      choices: Number of choices.
      archs: Number of archs.
      paths: Number of distinct paths; None where they could not be counted.
      networks: Number of distinct networks; None where they were not counted.
      counted: How networks were counted, in words.
      blocks: Distinct blocks (module, options and shapes) that some arch runs.
      training_programs: Programs that training compiles: a forward and a backward for
        each block, one for a head.
      costs: `params`, `macs` and `activation_bytes`, each of one example. The last is
        what a training step keeps until its backward: the input, all that blocks hand
        to the next, and what each saves besides.
      archs_of: The archs of fewest, median and most multiply-adds.
      latency: None if it was not measured.
      limits: The constraints given, by cost.
      feasible: Share of the sample that keeps all of them; None without constraints.
      samples, seed: The random paths that medians and `feasible` are of.
    """

    choices: int
    archs: int
    paths: int | None
    networks: int | None
    counted: str
    blocks: int
    training_programs: int
    costs: Mapping[Cost, Spread]
    archs_of: Mapping[str, Arch]
    latency: Latency | None
    limits: Mapping[Cost, float]
    feasible: float | None
    samples: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        return dataclasses.asdict(self)


def profile(
    supernet: Supernet,
    x: Tree,
    *,
    constraints: Mapping[Cost, float] | None = None,
    samples: int = 1000,
    seed: int = 0,
    latency: bool = True,
) -> Profile:
    """Describe a space and what its networks cost; nothing is trained.

    Args:
      supernet: The supernet.
      x: An example batch or its `jax.ShapeDtypeStruct`s; latency is that of a batch of
        its size.
      constraints: Largest allowed `params`, `macs` or `activation_bytes`.
      samples: Random paths for the medians, at least 1.
      seed: Decides which.
      latency: Whether to measure latency, which compiles three networks.

    Returns:
      The profile.

    Raises:
      ValueError: If `samples` is not positive or a constraint is on another cost.
      InfeasibleError: If no arch keeps the constraints; it names the nearest value
        that one does.

    Example:
      >>> profile(tiny(), images[:1], constraints={"macs": 50_000}).feasible
    """
    limits = dict(constraints or {})
    if samples < 1 or not set(limits) <= set(COSTS):
        raise ValueError(
            "A profile takes 1 sample or more, and constraints on "
            f"{', '.join(COSTS)}, but got samples={samples} and constraints={limits}."
        )
    x, space = abstract(x), supernet.space
    tables = CostTables(supernet, x)
    check_limits(tables, limits, seed)
    archs = _sample(space, samples, seed)
    values = {cost: tables.values(cost, archs) for cost in COSTS}
    kept = [values[cost] <= limit for cost, limit in limits.items()]
    ends = tables.ends("macs")
    middle = archs[int(np.argsort(values["macs"], kind="stable")[len(archs) // 2])]
    three = {"smallest": ends.smallest, "median": middle, "largest": ends.largest}
    paths, networks, counted = _counts(space)
    blocks, programs = _programs(supernet, x)
    return Profile(
        choices=len(space.choices),
        archs=space.size,
        paths=paths,
        networks=networks,
        counted=counted,
        blocks=blocks,
        training_programs=programs,
        costs={cost: _spread(tables, cost, values[cost]) for cost in COSTS},
        archs_of=three,
        latency=_measured(supernet, x, three) if latency else None,
        limits={**limits},
        feasible=float(np.all(kept, axis=0).mean()) if kept else None,
        samples=samples,
        seed=seed,
    )


def check_limits(tables: CostTables, limits: Mapping[Cost, float], seed: int) -> None:
    """Raise an InfeasibleError if no arch keeps all limits, or none was found."""
    bounds = [tables.constraint(cost, limit) for cost, limit in limits.items()]
    kept = Constraints(tables.supernet.space, bounds)
    kept.refuse()
    # Several that can be kept alone may exclude each other; of one whose range is not
    # known nothing was refused yet.
    if len(bounds) > 1 or any(b.known_range is None for b in bounds):
        kept.sample(np.random.default_rng(seed), 1)


def _sample(space: SearchSpace, samples: int, seed: int) -> list[Arch]:
    rng = np.random.default_rng(seed)
    try:
        return space.sample(rng, samples, "paths")
    except ValueError:  # too many linked choices to tell paths apart
        return [space.path_key(arch) for arch in space.sample(rng, samples)]


def _counts(space: SearchSpace) -> tuple[int | None, int | None, str]:
    try:
        paths = space.num_paths
    except ValueError:
        return None, None, "not counted: too many linked choices to tell paths apart"
    if space.symmetry is None:
        return paths, paths, "each path is a network: the space has no symmetry"
    networks = space.num_distinct
    if networks is None:
        return paths, None, "not counted: too many paths to find each one's canonical"
    return paths, networks, "canonical archs, by looking at every path"


def _programs(supernet: Supernet, x: Tree) -> tuple[int, int]:
    """Return the numbers of distinct blocks and of programs that training compiles."""
    found, last = set(), len(supernet.slots) - 1
    for step, carry, _ in supernet.reachable(x):
        leaves, treedef = jax.tree.flatten(carry)
        shapes = treedef, tuple((a.shape, a.dtype) for a in leaves)
        # The stem's backward returns no gradient of its input, the head's is its loss.
        place = "stem" if step.layer == 0 else "head" if step.layer == last else ""
        structure = supernet.structures[step.module]
        found.add((place, structure, step.options, shapes))
    heads = sum(block[0] == "head" for block in found)
    return len(found), 2 * len(found) - heads


def _spread(tables: CostTables, cost: Cost, values: np.ndarray) -> Spread:
    ends = tables.ends(cost)
    return Spread(ends.least, float(np.median(values)), ends.greatest, ends.exact)


def _measured(supernet: Supernet, x: Tree, archs: Mapping[str, Arch]) -> Latency:
    found = {name: measure(supernet, arch, x) for name, arch in archs.items()}
    device = jax.local_devices()[0]
    return Latency(
        **found,
        batch=jax.tree.leaves(x)[0].shape[0],
        runs=RUNS,
        device=f"{device.platform} ({device.device_kind})",
    )
