"""Scores of networks smoothed by effects of their options and of pairs of options.

What a supernet says of one network has noise of its own: its weights were last trained
by other paths. A ridge regression on which options, and which pairs of options, each
network has keeps what networks have in common. It knows nothing of the truth, and
nothing of costs.
"""

from __future__ import annotations

import itertools

import numpy as np

_PENALTIES = 10.0 ** np.arange(-2, 4)


def smoothed(archs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return scores [n] as a ridge regression on pairs of options gives them.

    The penalty is the one whose predictions of left-out networks come nearest to their
    scores.

    Args:
      archs: Option indices [n, choices].
      scores: Of each, [n].

    Example:
      >>> archs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
      >>> smoothed(archs, np.array([0.0, 1.0, 1.0, 2.0])).argmax()
      np.int64(3)
    """
    x = features(archs)
    x, mean = x - x.mean(axis=0), scores.mean()
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    inside = u.T @ (scores - mean)
    best, least = scores, np.inf
    for penalty in _PENALTIES:
        shrink = s**2 / (s**2 + penalty)
        fitted = u @ (shrink * inside) + mean
        # Of ridge: the residual without a network is the residual over 1 - leverage.
        leverage = (u**2) @ shrink + 1 / len(x)
        left_out = (scores - fitted) / np.maximum(1 - leverage, 1e-9)
        if (error := float(np.mean(left_out**2))) < least:
            best, least = fitted, error
    return best


def features(archs: np.ndarray) -> np.ndarray:
    """Return which options and which pairs of options archs have, [n, features]."""
    single = [archs[:, i] == o for i, o in _options(archs)]
    pairs = [
        (archs[:, i] == a) & (archs[:, j] == b)
        for (i, a), (j, b) in itertools.combinations(_options(archs), 2)
        if i < j
    ]
    return np.stack([*single, *pairs], axis=1).astype(float)


def _options(archs: np.ndarray) -> list[tuple[int, int]]:
    return [(i, int(o)) for i in range(archs.shape[1]) for o in np.unique(archs[:, i])]
