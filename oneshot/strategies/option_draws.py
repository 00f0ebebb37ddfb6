"""Archs whose options are drawn with given probabilities, each choice on its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oneshot.space import Arch


def draw_options(rng: np.random.Generator, probabilities: Sequence[np.ndarray]) -> Arch:
    """Draw an option of every choice, independently.

    Args:
      rng: The source of randomness.
      probabilities: [options] of each choice, not negative, with a sum of 1.

    Returns:
      The arch.

    Example:
      >>> draw_options(np.random.default_rng(0), [np.array([0, 1]), np.array([1, 0])])
      (1, 0)
    """
    tickets = rng.random(len(probabilities))
    arch = []
    for ticket, row in zip(tickets, probabilities, strict=True):
        below = np.cumsum(row)
        # Scaled by the last sum, which rounding may leave a little off 1.
        arch.append(int(np.searchsorted(below, ticket * below[-1], side="right")))
    return tuple(arch)
