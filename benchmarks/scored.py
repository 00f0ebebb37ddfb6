"""Scores by arch, kept to compare two ways to get them."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import numpy as np

from oneshot.evaluate import Scores
from oneshot.space import Arch


class Scored:
    """Mean losses by arch, and which examples each classified right."""

    def __init__(self):
        self._losses: dict[Arch, float] = {}
        self._right: dict[Arch, np.ndarray] = {}

    def add(self, archs: Iterable[Arch], scores: Scores) -> None:
        """Keep the scores of archs, given in their order."""
        right = scores.examples["accuracy"].astype(bool)
        for arch, loss, row in zip(archs, scores.loss, right, strict=True):
            self._losses[arch], self._right[arch] = float(loss), np.packbits(row)

    def difference(self, other: Scored) -> float:
        """Return the largest relative difference of losses of archs that both hold."""
        both = self._losses.keys() & other._losses.keys()
        pairs = ((self._losses[a], other._losses[a]) for a in both)
        return max(abs(a - b) / abs(b) for a, b in pairs)

    def unlike(self, other: Scored) -> dict[Arch, np.ndarray]:
        """Return the places of examples that only one of both classified right."""
        both = sorted(self._right.keys() & other._right.keys())
        changed = {a: np.unpackbits(self._right[a] ^ other._right[a]) for a in both}
        return {a: np.flatnonzero(bits) for a, bits in changed.items() if bits.any()}


def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the gap between the two largest logits of each example."""
    del labels  # a metric's second argument
    top, _ = jax.lax.top_k(logits, 2)
    return top[:, 0] - top[:, 1]
