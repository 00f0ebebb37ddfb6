"""What one training step measured, and how it comes from the device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from oneshot.strategies import Plan


@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """What one step measured, still on the device.

    Attributes:
      step: Which step.
      plan: The archs that it trained.
      logged: Mean loss and metrics of each planned path, device scalars.
      learning_rate: Device scalar.
      squared_norm: Of the whole gradient, or None where nothing asked for it.
    """

    step: int
    plan: Plan
    logged: list[dict[str, Any]]
    learning_rate: Any
    squared_norm: Any

    def host(self) -> dict[str, Any]:
        """Return plain numbers, waiting for the device; weighted means over paths."""
        return host_metrics([self])[0]


def host_metrics(steps: Sequence[StepMetrics]) -> list[dict[str, Any]]:
    """Return the numbers of several steps, fetched from the device at once."""
    fetched = jax.device_get(
        [(m.logged, m.learning_rate, m.squared_norm) for m in steps]
    )
    return [_row(m, *values) for m, values in zip(steps, fetched, strict=True)]


def _row(metrics: StepMetrics, logged: list[dict[str, Any]], lr: Any, norm: Any) -> Any:
    weights = [p.weight for p in metrics.plan]
    out: dict[str, Any] = {"step": metrics.step, "arch": list(metrics.plan[0].arch)}
    for name in dict.fromkeys(name for one in logged for name in one):
        have = [i for i, one in enumerate(logged) if name in one]
        if any(np.ndim(logged[i][name]) for i in have):
            continue  # one value for each example, for the strategy only
        values = [float(logged[i][name]) for i in have]
        out[name] = float(np.average(values, weights=[weights[i] for i in have]))
    out["learning_rate"] = float(lr)
    if norm is not None:
        out["gradient_norm"] = math.sqrt(float(norm))
    return out
