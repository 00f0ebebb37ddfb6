"""Which arrays of a module an update trains, and which it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping

from oneshot.functional import Functional
from oneshot.nested import trained
from oneshot.planned import Update
from oneshot.supernet import Tree


class TrainedArrays:
    """Finds them out once for each module.

    Args:
      modules: The supernet's.
      update: Says what is frozen.
    """

    def __init__(self, modules: Mapping[str, Functional], update: Update):
        self.modules, self.update = modules, update
        self._frozen: dict[str, frozenset] = {}

    def frozen(self, module: str) -> frozenset:
        """Return the paths of a module's frozen arrays."""
        if module not in self._frozen:
            params = self.modules[module].params
            self._frozen[module] = self.update.frozen(module, params)
        return self._frozen[module]

    def shapes(self, module: str) -> Tree:
        """Return the shapes of those that are not."""
        return trained(self.modules[module].params, self.frozen(module))
