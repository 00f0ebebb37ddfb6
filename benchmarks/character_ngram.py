"""A character 5-gram by interpolated modified Kneser-Ney, what a decoder has to beat.

Chen & Goodman 1999, An empirical study of smoothing techniques for language modeling,
Computer Speech & Language 13: the model of their section 3, whose discounts come from
the numbers of n-grams that were seen once to four times.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class _Order(NamedTuple):
    """What the n-grams of one length say, sorted for look-up.

    Attributes:
      grams: Distinct n-grams as numbers, ascending.
      kept: Their counts less the discount.
      contexts: Distinct contexts as numbers, ascending.
      totals: Counts of each context's n-grams in all.
      left: The part of the total that the discounts took.
    """

    grams: np.ndarray
    kept: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    left: np.ndarray


class CharacterNgram:
    """An interpolated n-gram over numbered characters.

    Args:
      numbers: The text to count, integers in 0 to symbols - 1.
      symbols: Number of different characters.
      length: Of the longest n-grams.

    Example:
      >>> CharacterNgram(train, 65).bits(test)
    """

    def __init__(self, numbers: np.ndarray, symbols: int, length: int = 5):
        self.symbols, self.length = symbols, length
        grams, counts = np.unique(_grams(numbers, symbols, length), return_counts=True)
        orders = []
        for n in range(length, 0, -1):
            orders.append(_order(grams, counts, symbols))
            # Shorter ones count in how many different left contexts they were seen.
            shorter = grams % symbols ** (n - 1)
            grams, counts = np.unique(shorter, return_counts=True)
        self.orders = orders[::-1]

    def probabilities(self, numbers: np.ndarray) -> np.ndarray:
        """Return the probability of each character but the first `length - 1`.

        Args:
          numbers: A text, at least `length` long.
        """
        whole = _grams(np.asarray(numbers), self.symbols, self.length)
        p = np.full(len(whole), 1 / self.symbols)
        for n, order in enumerate(self.orders, 1):
            grams = whole % self.symbols**n
            kept, _ = _look_up(order.grams, order.kept, grams)
            totals, known = _look_up(
                order.contexts, order.totals, grams // self.symbols
            )
            left, _ = _look_up(order.contexts, order.left, grams // self.symbols)
            mixed = (kept + left * p) / np.where(known, totals, 1)
            p = np.where(known, mixed, p)
        return p

    def bits(self, numbers: np.ndarray) -> float:
        """Return the mean bits a character, the first `length - 1` left out."""
        return float(-np.log2(self.probabilities(numbers)).mean())


def _grams(numbers: np.ndarray, symbols: int, length: int) -> np.ndarray:
    views = np.lib.stride_tricks.sliding_window_view(numbers.astype(np.int64), length)
    return views @ symbols ** np.arange(length - 1, -1, -1, dtype=np.int64)


def _order(grams: np.ndarray, counts: np.ndarray, symbols: int) -> _Order:
    kept = counts - _discounts(counts)[np.minimum(counts, 3)]
    contexts, starts = np.unique(grams // symbols, return_index=True)
    totals = np.add.reduceat(counts.astype(float), starts)
    return _Order(grams, kept, contexts, totals, totals - np.add.reduceat(kept, starts))


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Return what is taken from counts of 1, 2, and 3 or more, behind a 0."""
    seen = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    if not seen[1:5].all():
        return np.array([0, 0.5, 0.5, 0.5])  # too few n-grams to estimate from
    y = seen[1] / (seen[1] + 2 * seen[2])
    found = [k - (k + 1) * y * seen[k + 1] / seen[k] for k in (1, 2, 3)]
    return np.clip([0, *found], 0, [0, 1, 2, 3])


def _look_up(
    keys: np.ndarray, values: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the wanted keys, 0 where unknown, and which are known."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = keys[places] == wanted
    return np.where(known, values[places], 0.0), known
