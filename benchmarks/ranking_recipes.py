"""Recipes of supernet training whose rankings are compared."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import optax

from oneshot.averaging import Averaged
from oneshot.cost_tables import CostTables
from oneshot.distillation import SoftCrossEntropy
from oneshot.optimizer import sgd
from oneshot.rates import ComplexityAware
from oneshot.strategies import (
    PriorPairs,
    Sandwich,
    Strategy,
    StrictFair,
    Uniform,
)
from oneshot.supernet import Supernet
from oneshot.teaching import PairwiseRank, Teaching

Draw = Callable[[Supernet, CostTables], Strategy]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train a supernet.

    Args:
      words: What it is, for the table.
      draw: (supernet, its costs) to the strategy.
      epochs: Passes over 10,000 training images that fit the budget; of other sets, as
        many steps for each image in proportion to `epochs_large`.
      epochs_large: Passes over 50,000 images.
      rate: Highest learning rate; it falls to 0 as a half cosine.
      batch: Images in a batch.
      decay: Weight decay.
      teaching: Losses of students and of pairs.
      average: Decay of averaged weights, or None.
      by_complexity: Whether the rate falls sooner for larger networks.
      guided: Whether sampler, loss or rate know what networks cost.
    """

    words: str
    draw: Draw
    epochs: int
    epochs_large: int = 0
    rate: float = 0.1
    batch: int = 64
    decay: float = 5e-4
    teaching: Teaching = Teaching()
    average: float | None = None
    by_complexity: bool = False
    guided: bool = False

    def steps(self, images: int) -> int:
        """Return the number of training steps on this many images."""
        epochs = self.epochs if images <= 10_000 else self.epochs_large
        return epochs * (images // self.batch)

    def optimizer(self) -> Any:
        """Return the optimizer, as a function of the learning rate."""
        plain = sgd(0.9, self.decay)
        return plain if self.average is None else Averaged(plain, self.average)

    def schedule(self, steps: int, costs: CostTables) -> Any:
        """Return the learning rate."""
        if not self.by_complexity:
            return optax.cosine_decay_schedule(self.rate, steps)
        ends = costs.ends("params")
        return ComplexityAware(
            self.rate,
            steps,
            lambda arch: costs.value("params", arch),
            ends.least,
            ends.greatest,
        )


def uniform(net: Supernet, costs: CostTables) -> Strategy:
    """Uniform over distinct networks, each by its canonical code."""
    del costs
    return Uniform(net.space, "canonical")


def fair(net: Supernet, costs: CostTables) -> Strategy:
    """Strict fairness, a round of three paths an update."""
    del costs
    return StrictFair(net.space)


def fair_singly(net: Supernet, costs: CostTables) -> Strategy:
    """Strict fairness, one path an update."""
    del costs
    return StrictFair(net.space, one_by_one=True)


def sandwich(net: Supernet, costs: CostTables) -> Strategy:
    """Largest, smallest and two canonical random paths, the largest teaching."""
    ends = costs.ends("macs")
    return Sandwich(
        net.space, ends.smallest, ends.largest, reduce="mean", over="canonical"
    )


def pairs(net: Supernet, costs: CostTables) -> Strategy:
    """Two canonical random paths; the one of more multiply-adds ought to be better."""
    return PriorPairs(net.space, lambda a: costs.value("macs", a), over="canonical")


RECIPES: dict[str, Recipe] = {
    "uniform": Recipe("uniform over canonical codes", uniform, 56, 12),
    "uniform_archs": Recipe(
        "uniform over codes", lambda net, costs: Uniform(net.space), 56, 12
    ),
    "fair": Recipe("strict fair, three paths an update", fair, 18, 4),
    "fair_singly": Recipe("strict fair, one path an update", fair_singly, 56, 12),
    # Its ends are those of multiply-adds: the sampler knows what networks cost.
    "sandwich": Recipe(
        "sandwich and in-place distillation",
        sandwich,
        11,
        2,
        teaching=Teaching(SoftCrossEntropy()),
        guided=True,
    ),
    "no_decay": Recipe("uniform, no weight decay", uniform, 56, 12, decay=0.0),
    "averaged": Recipe("uniform, averaged weights", uniform, 56, 12, average=0.999),
    "low_rate": Recipe("uniform, rate 0.05", uniform, 56, 12, rate=0.05),
    "large_batch": Recipe("uniform, batches of 128", uniform, 56, 12, batch=128),
    "by_complexity": Recipe(
        "uniform, rate by parameters", uniform, 56, 12, by_complexity=True, guided=True
    ),
    "pairs": Recipe(
        "pairs ranked by multiply-adds",
        pairs,
        28,
        6,
        teaching=Teaching(rank=PairwiseRank(1.0)),
        guided=True,
    ),
}


def digest(recipe: Recipe, name: str) -> str:
    """Return what tells this recipe from an earlier one of its name."""
    fields = dataclasses.asdict(recipe) | {"draw": name}
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(sorted(fields.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shorter(recipe: Recipe, factor: float) -> Recipe:
    """Return a recipe of fewer epochs, at least one."""
    epochs = (recipe.epochs, recipe.epochs_large)
    small, large = (max(1, round(float(np.float64(e) * factor))) for e in epochs)
    return dataclasses.replace(recipe, epochs=small, epochs_large=large)
