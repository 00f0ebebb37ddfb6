"""Ways to rank networks by what one pass over held-out data says of them.

- "loss": the loss, as it is.
- "accuracy": where there is one.
- "calibrated": the loss at the temperature that suits each network best. The head is
  shared, so a network's logits may be too large or too small for it, which training it
  alone would mend.
- "refitted": the squared error of a linear head that is fitted to each network's own
  features, all other scored examples at a time; see `oneshot.features.Refitted`.
- "alignment": how well classes lie apart in the features; see
  `oneshot.features.Alignment`.
- "summed": the loss and the alignment, each over its standard deviation among the
  networks.
- "smoothed" and "alignment, smoothed": of losses, and of alignments; see
  `benchmarks.smoothing`.

None knows the truth, or what networks cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from benchmarks.smoothing import smoothed
from oneshot.features import Alignment, OfOutputs, Refitted
from oneshot.losses import Metric

# Evenly apart in their logarithm; so near that a parabola errs by less than 0.001.
TEMPERATURES = tuple(float(np.exp(0.15 * i)) for i in range(-5, 6))


@dataclasses.dataclass(frozen=True)
class AtTemperature:
    """A loss of logits that are divided by a temperature first.

    Args:
      loss: `(logits, targets) -> [n]`.
      temperature: Above 0.
    """

    loss: Metric
    temperature: float

    def __call__(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """Return the loss of each example, [n]."""
        return self.loss(logits / self.temperature, targets)


def scoring_metrics(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return what scores a supernet `with_features`: a space's metrics, its loss at
    several temperatures, and metrics of features."""
    hot = {_name(t): AtTemperature(metrics["loss"], t) for t in TEMPERATURES}
    plain = {name: OfOutputs(metric) for name, metric in {**metrics, **hot}.items()}
    return {**plain, "refitted": Refitted(), "alignment": Alignment()}


def kept(means: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what is kept of the means [n] of `scoring_metrics`, as float32."""
    at = np.stack([means[_name(t)] for t in TEMPERATURES])
    out = {"loss": means["loss"], "calibrated": least_along(at)}
    for name in ("accuracy", "refitted", "alignment"):
        if name in means:
            out[name] = means[name]
    return {name: values.astype(np.float32) for name, values in out.items()}


def scores_by_rule(
    means: Mapping[str, np.ndarray], archs: np.ndarray
) -> dict[str, np.ndarray]:
    """Return scores [n], higher is better, by rule.

    Args:
      means: What `kept` returned.
      archs: The networks, [n, choices].
    """
    losses = ("loss", "calibrated", "refitted", "alignment")
    out = {name: -means[name].astype(float) for name in losses}
    if "accuracy" in means:
        out["accuracy"] = means["accuracy"].astype(float)
    out["summed"] = standardised(out["loss"]) + standardised(out["alignment"])
    out["smoothed"] = smoothed(archs, out["loss"])
    out["alignment, smoothed"] = smoothed(archs, out["alignment"])
    return out


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return scores [n] less their mean, over their standard deviation."""
    return (scores - scores.mean()) / (scores.std() or 1.0)


def least_along(values: np.ndarray) -> np.ndarray:
    """Return the least of values [points, n], read off a parabola through three.

    The points are taken to be evenly apart. Where the least lies at an end, and no
    parabola opens there, it is the end's.
    """
    place = np.clip(values.argmin(axis=0), 1, len(values) - 2)
    left, middle, right = (
        np.take_along_axis(values, (place + d)[None], axis=0)[0] for d in (-1, 0, 1)
    )
    bend = left + right - 2 * middle
    shift = np.where(bend > 0, (left - right) / np.where(bend > 0, 2 * bend, 1), 0.0)
    shift = np.clip(shift, -1, 1)  # beyond the ends nothing is known
    parabola = middle - shift * (left - right) / 2 + shift**2 * bend / 2
    return np.where(bend > 0, parabola, values.min(axis=0))


def _name(temperature: float) -> str:
    return f"loss_at_{temperature:.3f}"
