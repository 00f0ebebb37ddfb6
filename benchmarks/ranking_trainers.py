"""Builds what a recipe trains with."""

from __future__ import annotations

from typing import Any

import optax

from benchmarks.ranking_recipes import Recipe, Settings
from oneshot.averaging import Averaged
from oneshot.cost_tables import CostTables
from oneshot.data import Data
from oneshot.losses import Metrics
from oneshot.optimizer import adamw, muon, sgd
from oneshot.rates import ComplexityAware
from oneshot.relaxation import Relaxation
from oneshot.relaxed import RelaxedTrainer, halves
from oneshot.supernet import Supernet
from oneshot.train import Trainer


def trainer_of(
    recipe: Recipe,
    settings: Settings,
    net: Supernet,
    data: Data,
    steps: int,
    metrics: Metrics,
) -> tuple[Trainer | RelaxedTrainer, Data]:
    """Return a recipe's trainer and the data that it takes batches from.

    Args:
      recipe: What to train by.
      settings: The recipe's own, see `Recipe.settings`.
      net: What to train.
      data: Its training split; a relaxed arch is trained on half of it, the weights on
        the other half.
      steps: Steps in all, over which the rate falls.
      metrics: Losses by name.
    """
    costs = CostTables(net, data.train.x[:1])
    rate = _rate(recipe, settings, steps, costs)
    common: dict[str, Any] = {"loss": metrics, "clip_norm": settings.clip}
    optimizer = _optimizer(recipe, settings)
    if recipe.relaxed is None:
        strategy = recipe.draw(net, costs, settings.over)
        common["teaching"] = recipe.teaching
        return Trainer(net, strategy, optimizer, rate, **common), data
    own, of_arch = halves(data)
    hot, cold = (10.0, 0.1) if recipe.relaxed == "gdas" else (1.0, 1.0)
    relaxation = Relaxation(recipe.relaxed, hot, cold, steps)
    return RelaxedTrainer(
        net, relaxation, optimizer, rate, search=of_arch, **common
    ), own


def _optimizer(recipe: Recipe, settings: Settings) -> Any:
    """Return the optimizer, as a function of the learning rate."""
    kinds = {"sgd": sgd, "adamw": adamw, "muon": muon}
    plain = kinds[settings.optimizer](weight_decay=settings.decay)
    return plain if recipe.average is None else Averaged(plain, recipe.average)


def _rate(recipe: Recipe, settings: Settings, steps: int, costs: CostTables) -> Any:
    """Return the learning rate."""
    if recipe.by_complexity:
        ends = costs.ends("params")
        return ComplexityAware(
            settings.rate,
            steps,
            lambda arch: costs.value("params", arch),
            ends.least,
            ends.greatest,
        )
    return optax.cosine_decay_schedule(settings.rate, steps)
