"""Strategies: which archs a training step trains, one paper a file."""

from oneshot.strategies.attentive import Attentive as Attentive
from oneshot.strategies.board import PriorityBoard as PriorityBoard
from oneshot.strategies.cost_binned import CostBinned as CostBinned
from oneshot.strategies.fair import StrictFair as StrictFair
from oneshot.strategies.few_shot import Restricted as Restricted
from oneshot.strategies.few_shot import splits as splits
from oneshot.strategies.fixed import Fixed as Fixed
from oneshot.strategies.loss_aware import LossAware as LossAware
from oneshot.strategies.pairs import PriorPairs as PriorPairs
from oneshot.strategies.path_importance import PathImportance as PathImportance
from oneshot.strategies.plans import Plan as Plan
from oneshot.strategies.plans import Planned as Planned
from oneshot.strategies.plans import Role as Role
from oneshot.strategies.plans import Strategy as Strategy
from oneshot.strategies.progressive import Phase as Phase
from oneshot.strategies.progressive import Progressive as Progressive
from oneshot.strategies.sandwich import Sandwich as Sandwich
from oneshot.strategies.uniform import Uniform as Uniform
