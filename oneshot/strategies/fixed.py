"""One subnet alone."""

from __future__ import annotations

import dataclasses
from typing import Any

from oneshot.space import Arch
from oneshot.strategies.plans import Plan, Planned


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The same arch at every step: tunes or retrains one subnet by the same engine.

    Args:
      arch: The subnet. It is the strategy's state, so
        `state._replace(strategy=list(arch))` turns a trainer to another one.

    Example:
      >>> strategy = Fixed((1, 0))
      >>> strategy.plan(strategy.init(), seed=0, step=7)
      (Planned(arch=(1, 0), role='labels', weight=1.0),)
    """

    arch: Arch

    def init(self) -> list[int]:
        return [int(option) for option in self.arch]

    def plan(self, state: Any, seed: int, step: int) -> Plan:
        del seed, step  # always the same
        return (Planned(tuple(state)),)

    def observe(self, state: Any, plan: Plan, metrics: Any) -> Any:
        del plan, metrics  # always the same
        return state
