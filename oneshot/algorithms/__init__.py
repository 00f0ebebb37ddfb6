"""Search algorithms, one paper a file, all with `ask` and `tell`."""

from oneshot.algorithms.base import Algorithm as Algorithm
from oneshot.algorithms.evolution import RegularizedEvolution as RegularizedEvolution
from oneshot.algorithms.nsga2 import NSGA2 as NSGA2
from oneshot.algorithms.random_search import RandomSearch as RandomSearch
