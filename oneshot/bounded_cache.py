"""What is kept from one call to the next, while the weights stay the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import jax


class BoundedCache:
    """Values of one version of the weights, least recently used ones dropped first.

    The version is the identity of the weights' arrays. A `jax.Array` cannot be changed
    in place, and those of the version kept are referred to here, so their identity is
    never given to others: what is found belongs to the weights that were named. Arrays
    of numpy can be changed, so with any of those nothing is kept.

    Args:
      limit: Bytes that all values may take; 0 keeps nothing.

    Attributes:
      hits: How often a value was found.
    """

    def __init__(self, limit: int):
        self.limit, self.size, self.hits = limit, 0, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._version: list[Any] = []
        self._on = False

    def bind(self, weights: Any) -> None:
        """Name the weights of what comes; values of others are forgotten."""
        leaves = jax.tree.leaves(weights)
        same = len(leaves) == len(self._version) and all(
            a is b for a, b in zip(leaves, self._version, strict=True)
        )
        if not same:
            self.clear()
        self._on = self.limit > 0 and all(isinstance(a, jax.Array) for a in leaves)
        self._version = leaves if self._on else []

    def clear(self) -> None:
        """Forget all values."""
        self._values.clear()
        self._version, self.size = [], 0

    def get(self, key: Hashable) -> Any:
        """Return the value of a key, or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        self.hits += 1
        return self._values[key][0]

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep a value as the most recently used one; too large a one is not kept."""
        if not self._on or nbytes > self.limit:
            return
        if key in self._values:
            self.size -= self._values.pop(key)[1]
        self._values[key] = value, nbytes
        self.size += nbytes
        while self.size > self.limit:
            _, (_, freed) = self._values.popitem(last=False)
            self.size -= freed


def nbytes(tree: Any) -> int:
    """Return the bytes of a pytree of arrays or their shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(a.size * a.dtype.itemsize for a in leaves)
