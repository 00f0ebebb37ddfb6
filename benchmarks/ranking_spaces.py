"""Spaces with a known truth that recipes of supernet training are compared on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import cell_truth, macro_truth, truth
from benchmarks.network_truth import NetworkTruth, first_of_a_permutation
from benchmarks.ranking_data import images
from benchmarks.ranking_recipes import Settings
from benchmarks.truth_spaces import TRUTHS
from oneshot.data import Data, Split
from oneshot.losses import CLASSIFICATION, Metric
from oneshot.space import SearchSpace
from oneshot.spaces import cell201, nb_macro
from oneshot.supernet import Supernet

CELLS = 600
RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class RankedSpace:
    """A space, the truth about its networks, and how its supernets train.

    Args:
      make: The supernet.
      data: (folder or None, number of images to train on) to the data; others than
        images are all used.
      truth: Folder or None, to what is known.
      metrics: Losses by name; networks are ranked by "loss".
      settings: Of training.
      recipes: Those that are compared unless others are asked for.
      recipes_large: The same, with the larger data set.
      pool: Whether what the head is given is averaged over places or tokens to compare
        features; not where each token has a target.
    """

    make: Callable[[], Supernet]
    data: Callable[[Path | None, int], Data]
    truth: Callable[[Path | None], NetworkTruth]
    metrics: Mapping[str, Metric]
    settings: Settings
    recipes: tuple[str, ...]
    recipes_large: tuple[str, ...] = ()
    pool: bool = True

    @functools.cached_property
    def searched(self) -> SearchSpace:
        """The supernet's space; to build a supernet for it takes a second."""
        return self.make().space


def tiny_cells() -> Supernet:
    """Return NAS-Bench-201's space with half the channels and one cell a stage."""
    return cell201(size="tiny")


def some_cells(folder: Path | None) -> NetworkTruth:
    """Return what is known of 600 cells, drawn by seed 0; a third are to choose by."""
    found = cell_truth.load(folder)
    kept = found.only(first_of_a_permutation(len(found.archs), CELLS))
    return dataclasses.replace(
        kept,
        words=f"{found.words}, {CELLS} cells",
        choosing=first_of_a_permutation(CELLS, CELLS // 3),
    )


def fewer_images(folder: Path | None, number: int) -> Data:
    """Return images of which 512 score and 128 recalibrate: a cell is many layers."""
    data = images(folder, number)
    scored, recalibrating = (
        Split(part.x[:n], part.y[:n])
        for part, n in ((data.validate, 512), (data.calibrate, 128))
    )
    return dataclasses.replace(
        data, validate=scored, calibrate=recalibrating, _on_device={}
    )


def ours(
    name: str, settings: Settings, recipes: tuple[str, ...], pool: bool = True
) -> RankedSpace:
    """Return a space whose truth is a table of our own."""
    space, table = TRUTHS[name], RESULTS / f"truth_{name}.csv"
    return RankedSpace(
        make=space.make,
        data=lambda folder, number: space.data(),
        truth=lambda folder: truth.truth(table, space),
        metrics=space.metrics,
        settings=settings,
        recipes=recipes,
        pool=pool,
    )


_FEW = ("uniform", "fair", "sandwich", "darts", "gdas")
_MANY = (
    "uniform",
    "fair",
    "fair_singly",
    "sandwich",
    "no_decay",
    "averaged",
    "low_rate",
    "high_rate",
    "large_batch",
    "small_batch",
    "by_complexity",
    "pairs",
)

SPACES: dict[str, RankedSpace] = {
    # As many steps as fit 45 minutes, and 2.5 hours, on two slow cores: scoring takes
    # about 24 minutes of either.
    "nb_macro": RankedSpace(
        nb_macro,
        images,
        macro_truth.load,
        CLASSIFICATION,
        Settings(steps=4_200, rate=0.1, steps_large=25_000),
        ("uniform_archs", "shrunken", "combined", *_MANY),
        ("brief", "combined"),
    ),
    "mixers": ours(
        "mixers",
        Settings(
            6_000, 6e-3, batch=32, decay=0.1, clip=1.0, optimizer="adamw", over="paths"
        ),
        (*_MANY, "darts", "gdas"),
        pool=False,
    ),
    "cell201": RankedSpace(
        tiny_cells,
        fewer_images,
        some_cells,
        CLASSIFICATION,
        Settings(steps=4_000, rate=0.1),
        _FEW,
    ),
    "vit": ours(
        "vit",
        Settings(
            4_000, 3e-3, batch=32, decay=0.05, clip=1.0, optimizer="adamw", over="paths"
        ),
        _FEW,
    ),
}
