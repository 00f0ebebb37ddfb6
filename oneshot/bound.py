"""An evaluator bound to weights: what a search calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from oneshot.digest import digest
from oneshot.evaluate import Evaluator
from oneshot.score_keys import settings_digest
from oneshot.space import Arch
from oneshot.supernet import Weights
from oneshot.weights import check_weights


def bind(
    evaluator: Evaluator,
    weights: Weights,
    *,
    groups: Sequence[Any] | None = None,
    equal_networks_once: bool = False,
) -> Bound:
    """Return `archs -> rows` for `search`, with the digests that key its trials.

    Args:
      evaluator: Scores the archs.
      weights: The shared weights to score by. Training goes on in their memory: to
        score by them later, copy them (`jax.tree.map(jnp.copy, state.weights)`).
      groups: A group's name for each scored example, [n]. Each metric then also comes
        by group, and as its lowest and highest over the groups (see `Scores.rows`), so
        that a search can have the worst group's as an objective.
      equal_networks_once: Score archs that are one network by their canonical arch.

    Returns:
      What to pass to `search`.

    Raises:
      ValueError: If there is not one group for each scored example, or these are no
        weights.

    Example:
      >>> search(algorithm, bind(evaluator, state.weights), objectives, budget=200)
    """
    check_weights(weights)
    names = None if groups is None else np.asarray(groups).astype(str)
    if names is not None and names.shape != (evaluator.n,):
        raise ValueError(
            f"`groups` names a group for each of the {evaluator.n} scored examples, "
            f"but has shape {list(names.shape)}."
        )
    return Bound(evaluator, weights, digest(weights), names, equal_networks_once)


@dataclasses.dataclass(frozen=True, eq=False)
class Bound:
    """An evaluator and the weights it scores by: a function of archs alone."""

    evaluator: Evaluator
    weights: Weights
    weights_digest: str
    groups: np.ndarray | None = None
    equal_networks_once: bool = False

    @property
    def settings_digest(self) -> str:
        """Tells what is measured, and how, from other settings."""
        extra: dict[str, Any] = {}
        if self.groups is not None:
            extra["groups"] = self.groups.tolist()
        if self.equal_networks_once:
            extra["equal_networks_once"] = True
        return settings_digest(self.evaluator.settings | extra)

    @property
    def split(self) -> str:
        """The split that is scored."""
        return self.evaluator.split

    def __call__(self, archs: Sequence[Arch]) -> list[dict[str, float]]:
        """Return {metric: mean, metric_se: standard error, n} for each arch."""
        merge = self.equal_networks_once
        scores = self.evaluator(self.weights, archs, equal_networks_once=merge)
        return scores.rows(self.groups)
