"""One-shot neural architecture search in JAX.

The public names are imported when first used (PEP 562), so that the command line
answers at once and `import oneshot` does not load JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oneshot import nn as nn
    from oneshot import spaces as spaces
    from oneshot import strategies as strategies
    from oneshot.algorithms import NSGA2 as NSGA2
    from oneshot.algorithms import RandomSearch as RandomSearch
    from oneshot.algorithms import RegularizedEvolution as RegularizedEvolution
    from oneshot.averaging import Averaged as Averaged
    from oneshot.averaging import averages as averages
    from oneshot.bound import bind as bind
    from oneshot.checkpoint import restore as restore
    from oneshot.checkpoint import save as save
    from oneshot.compilation_cache import (
        use_compilation_cache as use_compilation_cache,
    )
    from oneshot.compilations import CompilationCounter as CompilationCounter
    from oneshot.constraints import Constraint as Constraint
    from oneshot.constraints import Constraints as Constraints
    from oneshot.constraints import InfeasibleError as InfeasibleError
    from oneshot.cost_tables import CostTables as CostTables
    from oneshot.costs import Costs as Costs
    from oneshot.costs import count_macs as count_macs
    from oneshot.data import Data as Data
    from oneshot.data import Split as Split
    from oneshot.diagnostics import ranking as ranking
    from oneshot.distillation import AdaptiveAlphaDivergence as AdaptiveAlphaDivergence
    from oneshot.distillation import SoftCrossEntropy as SoftCrossEntropy
    from oneshot.engine import Engine as Engine
    from oneshot.evaluate import Evaluator as Evaluator
    from oneshot.evaluate import Scores as Scores
    from oneshot.extraction import Model as Model
    from oneshot.extraction import extract as extract
    from oneshot.factories import Factory as Factory
    from oneshot.features import Alignment as Alignment
    from oneshot.features import OfOutputs as OfOutputs
    from oneshot.features import Refitted as Refitted
    from oneshot.features import with_features as with_features
    from oneshot.fitting import DivergedError as DivergedError
    from oneshot.fitting import fit as fit
    from oneshot.freezing import Freeze as Freeze
    from oneshot.importance import sort_channels as sort_channels
    from oneshot.layers import Elastic as Elastic
    from oneshot.layers import Identity as Identity
    from oneshot.layers import OneOf as OneOf
    from oneshot.layers import Stage as Stage
    from oneshot.losses import SmoothedCrossEntropy as SmoothedCrossEntropy
    from oneshot.losses import accuracy as accuracy
    from oneshot.losses import cross_entropy as cross_entropy
    from oneshot.losses import next_token as next_token
    from oneshot.models import Origin as Origin
    from oneshot.models import load as load
    from oneshot.models import save_model as save_model
    from oneshot.momentum import Separated as Separated
    from oneshot.precision import in_precision as in_precision
    from oneshot.precision import rematerialized as rematerialized
    from oneshot.profiles import Profile as Profile
    from oneshot.profiles import profile as profile
    from oneshot.racing import Race as Race
    from oneshot.rates import ComplexityAware as ComplexityAware
    from oneshot.relaxation import Relaxation as Relaxation
    from oneshot.relaxed import RelaxedTrainer as RelaxedTrainer
    from oneshot.resources import Resources as Resources
    from oneshot.searching import Objective as Objective
    from oneshot.searching import Result as Result
    from oneshot.searching import search as search
    from oneshot.sharding import ByPath as ByPath
    from oneshot.sharding import FullySharded as FullySharded
    from oneshot.space import Choice as Choice
    from oneshot.space import Commuting as Commuting
    from oneshot.space import SearchSpace as SearchSpace
    from oneshot.strategies import Attentive as Attentive
    from oneshot.strategies import CostBinned as CostBinned
    from oneshot.strategies import DataImportance as DataImportance
    from oneshot.strategies import Fixed as Fixed
    from oneshot.strategies import LossAware as LossAware
    from oneshot.strategies import PathImportance as PathImportance
    from oneshot.strategies import Phase as Phase
    from oneshot.strategies import Planned as Planned
    from oneshot.strategies import PriorityBoard as PriorityBoard
    from oneshot.strategies import PriorPairs as PriorPairs
    from oneshot.strategies import Progressive as Progressive
    from oneshot.strategies import Restricted as Restricted
    from oneshot.strategies import Sandwich as Sandwich
    from oneshot.strategies import Strategy as Strategy
    from oneshot.strategies import StrictFair as StrictFair
    from oneshot.strategies import Uniform as Uniform
    from oneshot.strategies import WithExamples as WithExamples
    from oneshot.supernet import Supernet as Supernet
    from oneshot.supernet import Weights as Weights
    from oneshot.teaching import PairwiseRank as PairwiseRank
    from oneshot.teaching import Teaching as Teaching
    from oneshot.train import Trainer as Trainer
    from oneshot.train import TrainState as TrainState
    from oneshot.trials import Trial as Trial
    from oneshot.trials import Trials as Trials
    from oneshot.tuning import cosine as cosine
    from oneshot.tuning import tune as tune
    from oneshot.unsharing import unshare as unshare
    from oneshot.unsharing import unshared_state as unshared_state
    from oneshot.unsharing import unshared_weights as unshared_weights

_NAMES = {
    "algorithms": "NSGA2 RandomSearch RegularizedEvolution",
    "checkpoint": "restore save",
    "compilation_cache": "use_compilation_cache",
    "compilations": "CompilationCounter",
    "constraints": "Constraint Constraints InfeasibleError",
    "cost_tables": "CostTables",
    "costs": "Costs count_macs",
    "data": "Data Split",
    "diagnostics": "ranking",
    "engine": "Engine",
    "bound": "bind",
    "evaluate": "Evaluator Scores",
    "factories": "Factory",
    "extraction": "Model extract",
    "importance": "sort_channels",
    "freezing": "Freeze",
    "layers": "Elastic Identity OneOf Stage",
    "losses": "SmoothedCrossEntropy accuracy cross_entropy next_token",
    "models": "Origin load save_model",
    "profiles": "Profile profile",
    "racing": "Race",
    "resources": "Resources",
    "searching": "Objective Result search",
    "sharding": "ByPath FullySharded",
    "space": "Choice Commuting SearchSpace",
    "strategies": (
        "Attentive CostBinned Fixed LossAware PathImportance Phase Planned "
        "DataImportance PriorPairs PriorityBoard Progressive Restricted Sandwich "
        "Strategy StrictFair Uniform WithExamples"
    ),
    "teaching": "PairwiseRank Teaching",
    "averaging": "Averaged averages",
    "features": "Alignment OfOutputs Refitted with_features",
    "distillation": "AdaptiveAlphaDivergence SoftCrossEntropy",
    "precision": "in_precision rematerialized",
    "momentum": "Separated",
    "rates": "ComplexityAware",
    "relaxation": "Relaxation",
    "relaxed": "RelaxedTrainer",
    "supernet": "Supernet Weights",
    "train": "TrainState Trainer",
    "fitting": "DivergedError fit",
    "trials": "Trial Trials",
    "tuning": "cosine tune",
    "unsharing": "unshare unshared_state unshared_weights",
}
_MODULE_OF = {
    name: module for module, names in _NAMES.items() for name in names.split()
}

__all__ = ["nn", "spaces", "strategies", *_MODULE_OF]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"oneshot.{_MODULE_OF[name]}"), name)
        globals()[name] = value  # also hides a submodule of the same name, as `search`
        return value
    if name in ("nn", "spaces", "strategies"):
        return importlib.import_module(f"oneshot.{name}")
    raise AttributeError(
        f"oneshot has no name {name!r}; it has {', '.join(sorted(__all__))}."
    )


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
