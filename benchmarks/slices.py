"""Cuts a population where its paths share little, so that two sides can alternate."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from oneshot.space import Arch


def by_first_choices(archs: Iterable[Arch], num: int) -> list[list[Arch]]:
    """Return the archs in parts that agree in their first `num` choices.

    Scored one by one, the parts share no more than the stem and the first layers with
    each other, which each of them pays for again.

    Example:
      >>> by_first_choices([(1, 0), (0, 0), (1, 1)], 1)
      [[(0, 0)], [(1, 0), (1, 1)]]
    """
    grouped = itertools.groupby(sorted(archs), key=lambda arch: arch[:num])
    return [list(part) for _, part in grouped]
