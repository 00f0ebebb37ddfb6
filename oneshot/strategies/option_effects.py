"""What each option adds to the loss: a running additive model, as a JSON value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from oneshot.space import Arch, SearchSpace


@dataclasses.dataclass(frozen=True)
class OptionEffects:
    """Exponential moving means of the loss, of all archs and of those with an option.

    Under a sampler of independent choices, an option's mean less that of all is its
    main effect. The level falls as training goes on, so effects are taken from the
    level of the moment.

    Args:
      space: Whose options.
      rate: Share of a new loss in the means, above 0 to 1.

    Raises:
      ValueError: If `rate` is outside its range.
    """

    space: SearchSpace
    rate: float = 0.05

    def __post_init__(self):
        if not 0 < self.rate <= 1:
            raise ValueError(
                "The rate of moving means is above 0 and at most 1, but got "
                f"{self.rate}."
            )

    def init(self) -> dict[str, Any]:
        """Return effects of zero."""
        zeros = [[0.0] * len(c.options) for c in self.space.choices]
        return {"level": None, "effects": zeros}

    def update(
        self, state: dict[str, Any], archs: Sequence[Arch], losses: Sequence[float]
    ) -> dict[str, Any]:
        """Return the effects after some losses; what is not finite is left out."""
        level, effects = state["level"], [list(own) for own in state["effects"]]
        for arch, loss in zip(archs, losses, strict=True):
            if not abs(loss) < float("inf"):
                continue
            level = loss if level is None else level + self.rate * (loss - level)
            for i in self.space.read(arch):
                own, option = effects[i], arch[i]
                own[option] += self.rate * (loss - level - own[option])
        return {"level": level, "effects": effects}

    def loss(self, state: dict[str, Any], arch: Arch) -> float:
        """Return the loss that the model expects of an arch, less the level."""
        return sum(state["effects"][i][arch[i]] for i in self.space.read(arch))


def losses_of(metrics: Any) -> list[float]:
    """Return the loss of each planned path; this waits for the device."""
    return [float(one["loss"]) for one in metrics.logged]
