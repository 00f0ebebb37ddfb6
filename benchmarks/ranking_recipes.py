"""Recipes of supernet training whose rankings are compared, in any space."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable
from typing import Literal

from oneshot.cost_tables import CostTables
from oneshot.distillation import SoftCrossEntropy
from oneshot.space import Over, SearchSpace
from oneshot.strategies import PriorPairs, Sandwich, Strategy, StrictFair, Uniform
from oneshot.supernet import Supernet
from oneshot.teaching import PairwiseRank, Teaching

SMALL_FIRST = ((0.4, 0.5), (0.3, 0.75))

Draw = Callable[[Supernet, CostTables, Over], Strategy]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How supernets of a space train, whatever draws their paths.

    Args:
      steps: Training steps of one path each that fit the budget.
      rate: Highest learning rate; it falls to 0 as a half cosine.
      batch: Examples in a batch.
      decay: Weight decay.
      clip: Bound on the norm of the gradient.
      optimizer: "sgd", with momentum 0.9, "adamw" or "muon".
      over: What random paths are uniform over.
      steps_large: Steps that fit the budget of the larger data set, if there is one.
    """

    steps: int
    rate: float
    batch: int = 64
    decay: float = 5e-4
    clip: float = 5.0
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    over: Over = "canonical"
    steps_large: int = 0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train a supernet, in terms of a space's settings.

    Args:
      words: What it is, for the table.
      draw: (supernet, its costs, what random paths are uniform over) to the strategy;
        None where an arch is relaxed.
      paths: How many steps of one path a step costs; None for as many as the largest
        choice has options. It takes so many times fewer steps.
      rate: Times the settings' learning rate.
      batch: Times the settings' batch, with so many times fewer steps.
      shrunken: Images that it sees before whole ones, smallest first: (share of the
        budget, side as a share of the whole side). They cost less, so that it takes
        more steps.
      decay: Times the settings' weight decay.
      optimizer: Instead of the settings'; None for theirs.
      teaching: Losses of students and of pairs.
      average: Decay of averaged weights, or None.
      by_complexity: Whether the rate falls sooner for smaller networks, and by a power
        instead of a cosine.
      relaxed: The kind of relaxation, instead of a strategy.
      guided: Whether sampler, loss or rate know what networks cost.
      of_large: The share that it takes of the larger data set's steps. Below 1 it is a
        recipe for that data set only.
    """

    words: str
    draw: Draw | None
    paths: float | None = 1
    rate: float = 1.0
    batch: float = 1
    shrunken: tuple[tuple[float, float], ...] = ()
    decay: float = 1.0
    optimizer: Literal["sgd", "adamw", "muon"] | None = None
    teaching: Teaching = Teaching()
    average: float | None = None
    by_complexity: bool = False
    relaxed: Literal["darts", "gdas"] | None = None
    guided: bool = False
    # Settings tell it in a digest; printed there, it would disown all earlier scores.
    of_large: float = dataclasses.field(default=1.0, repr=False)

    @property
    def _stages(self) -> list[tuple[float, float]]:
        """(Steps, as shares of those that whole images would take; side as a share)."""
        last = 1.0 - sum(share for share, _ in self.shrunken)
        return [(share / side**2, side) for share, side in (*self.shrunken, (last, 1))]

    def sizes(self, steps: int) -> list[tuple[int, float]]:
        """Return up to which step images are how large, as a share of their side."""
        parts, sides = zip(*self._stages, strict=True)
        ends = [round(steps * end / sum(parts)) for end in itertools.accumulate(parts)]
        return list(zip(ends, sides, strict=True))

    def settings(
        self, of_space: Settings, space: SearchSpace, share: float
    ) -> Settings:
        """Return what this recipe trains with, for a share of the budget's steps."""
        most = max(len(c.options) for c in space.choices)
        each = (most if self.paths is None else self.paths) * self.batch
        if self.relaxed is not None:  # in turns: the arch, then the weights
            each *= 2
        each /= sum(steps for steps, _ in self._stages)
        small, large = (
            max(1, round(steps * share / each)) if steps else 0
            for steps in (of_space.steps, of_space.steps_large * self.of_large)
        )
        return dataclasses.replace(
            of_space,
            steps=small,
            steps_large=large,
            rate=of_space.rate * self.rate,
            batch=round(of_space.batch * self.batch),
            decay=of_space.decay * self.decay,
            optimizer=self.optimizer or of_space.optimizer,
        )


def uniform(net: Supernet, costs: CostTables, over: Over) -> Strategy:
    """One random path a step."""
    del costs
    return Uniform(net.space, over)


def uniform_archs(net: Supernet, costs: CostTables, over: Over) -> Strategy:
    """One random arch a step, however many archs are its network."""
    del costs, over
    return Uniform(net.space)


def fair(net: Supernet, costs: CostTables, over: Over) -> Strategy:
    """Strict fairness, a round of paths an update."""
    del costs, over  # a round is of archs
    return StrictFair(net.space)


def fair_singly(net: Supernet, costs: CostTables, over: Over) -> Strategy:
    """Strict fairness, one path an update."""
    del costs, over
    return StrictFair(net.space, one_by_one=True)


def sandwich(net: Supernet, costs: CostTables, over: Over) -> Strategy:
    """Largest, smallest and two random paths, the largest teaching."""
    ends = costs.ends("macs")
    return Sandwich(net.space, ends.smallest, ends.largest, reduce="mean", over=over)


def pairs(net: Supernet, costs: CostTables, over: Over) -> Strategy:
    """Two random paths; the one of more multiply-adds ought to be better."""
    return PriorPairs(net.space, lambda a: costs.value("macs", a), over=over)


RECIPES: dict[str, Recipe] = {
    "uniform": Recipe("uniform over distinct networks", uniform),
    "uniform_archs": Recipe("uniform over codes", uniform_archs),
    "fair": Recipe("strict fair, a round an update", fair, paths=None),
    "fair_singly": Recipe("strict fair, one path an update", fair_singly),
    # Its ends are those of multiply-adds: the sampler knows what networks cost.
    "sandwich": Recipe(
        "sandwich and in-place distillation",
        sandwich,
        paths=5,
        teaching=Teaching(SoftCrossEntropy()),
        guided=True,
    ),
    "no_decay": Recipe("uniform, no weight decay", uniform, decay=0.0),
    "averaged": Recipe("uniform, averaged weights", uniform, average=0.999),
    "low_rate": Recipe("uniform, half the rate", uniform, rate=0.5),
    "high_rate": Recipe("uniform, twice the rate", uniform, rate=2.0),
    "large_batch": Recipe("uniform, batches twice as large", uniform, batch=2),
    "small_batch": Recipe("uniform, batches half as large", uniform, batch=0.5),
    "shrunken": Recipe("uniform, small images first", uniform, shrunken=SMALL_FIRST),
    "muon": Recipe("uniform, Muon", uniform, rate=0.3, optimizer="muon"),
    "combined": Recipe(
        "uniform, small images first, half the batch, no weight decay",
        uniform,
        batch=0.5,
        shrunken=SMALL_FIRST,
        decay=0.0,
    ),
    # Of NAS-Bench-Macro's large budget as many steps as `combined` takes of the small.
    "brief": Recipe(
        "uniform, small images first, half the batch, no weight decay, a sixth as long",
        uniform,
        batch=0.5,
        shrunken=SMALL_FIRST,
        decay=0.0,
        of_large=0.168,
    ),
    "by_complexity": Recipe(
        "uniform, rate by parameters", uniform, by_complexity=True, guided=True
    ),
    "pairs": Recipe(
        "pairs ranked by multiply-adds",
        pairs,
        paths=2,
        teaching=Teaching(rank=PairwiseRank(1.0)),
        guided=True,
    ),
    # Of DARTS all options run, of GDAS one.
    "darts": Recipe("DARTS, first order", None, paths=None, relaxed="darts"),
    "gdas": Recipe("GDAS", None, relaxed="gdas"),
}


def digest(recipe: Recipe, settings: Settings, *scoring: object) -> str:
    """Return what tells a recipe, and how its networks are scored, from another."""
    # Functions print with where they are in memory.
    text = re.sub(r" at 0x[0-9a-f]+", "", repr((recipe, settings, scoring)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
