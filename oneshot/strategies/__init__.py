"""Which archs a training step trains, one idea a file; see `plans.Strategy`."""

from oneshot.strategies.attentive import Attentive as Attentive
from oneshot.strategies.board import PriorityBoard as PriorityBoard
from oneshot.strategies.cost_binned import CostBinned as CostBinned
from oneshot.strategies.cost_binned import even as even
from oneshot.strategies.data_importance import DataImportance as DataImportance
from oneshot.strategies.data_importance import last_layer_norms as last_layer_norms
from oneshot.strategies.fair import StrictFair as StrictFair
from oneshot.strategies.few_shot import Restricted as Restricted
from oneshot.strategies.few_shot import split as split
from oneshot.strategies.fixed import Fixed as Fixed
from oneshot.strategies.importance import PathImportance as PathImportance
from oneshot.strategies.loss_aware import LossAware as LossAware
from oneshot.strategies.option_effects import OptionEffects as OptionEffects
from oneshot.strategies.option_effects import OptionMeans as OptionMeans
from oneshot.strategies.pairs import PriorPairs as PriorPairs
from oneshot.strategies.plans import Plan as Plan
from oneshot.strategies.plans import Planned as Planned
from oneshot.strategies.plans import Reduce as Reduce
from oneshot.strategies.plans import Role as Role
from oneshot.strategies.plans import Strategy as Strategy
from oneshot.strategies.progressive import Phase as Phase
from oneshot.strategies.progressive import Progressive as Progressive
from oneshot.strategies.sandwich import Sandwich as Sandwich
from oneshot.strategies.sandwich import ends as ends
from oneshot.strategies.uniform import Uniform as Uniform
from oneshot.strategies.with_examples import WithExamples as WithExamples
