"""Wall and processor time of calls, and pauses between two sides of a comparison."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from benchmarks.results import spread

T = TypeVar("T")
_PAUSE = 0.05


@dataclasses.dataclass
class Times:
    """Samples of one side of one comparison, in ms."""

    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)

    def take(self, call: Callable[[], T]) -> T:
        """Time a call, which must have waited for its device; return its result."""
        wall, cpu = time.perf_counter(), time.process_time()
        out = call()
        self.wall.append(1e3 * (time.perf_counter() - wall))
        self.cpu.append(1e3 * (time.process_time() - cpu))
        return out

    def median(self, clock: str = "wall") -> float:
        """Return the median sample in ms."""
        return statistics.median(getattr(self, clock))

    def seconds(self, clock: str = "wall") -> float:
        """Return the sum of the samples in s."""
        return sum(getattr(self, clock)) / 1e3

    def add(self, other: Times, *samples: int) -> None:
        """Append one sample, the sum of some of another's."""
        self.wall.append(sum(other.wall[i] for i in samples))
        self.cpu.append(sum(other.cpu[i] for i in samples))


def scaled(times: Times, factors: Sequence[float]) -> Times:
    """Return one sample: the sum of all, each times its factor."""
    clocks = (
        sum(ms * f for ms, f in zip(samples, factors, strict=True))
        for samples in (times.wall, times.cpu)
    )
    wall, cpu = clocks
    return Times([wall], [cpu])


def ratios(slow: Times, fast: Times, clock: str = "wall") -> list[float]:
    """Return slow / fast, sample by sample."""
    pairs = zip(getattr(slow, clock), getattr(fast, clock), strict=True)
    return [a / b for a, b in pairs]


def compared(name: str, slow: Times, fast: Times) -> dict[str, Any]:
    """Return how many times as long one side took over all samples, and its spread."""
    each = ratios(slow, fast)
    return {
        name: slow.seconds() / fast.seconds(),
        f"{name}_cpu": slow.seconds("cpu") / fast.seconds("cpu"),
        f"{name}_median": statistics.median(each),
        f"{name}_low": min(each),
        f"{name}_high": max(each),
        f"{name}_spread": spread(each),
        f"{name}_samples": len(each),
    }


def rest() -> None:
    """Wait until the thread pool of the side that just ran has gone to sleep.

    Idle threads of a pool look for work for some milliseconds before they sleep, and
    would take that from the side that runs next.
    """
    time.sleep(_PAUSE)


def idle_share(seconds: float = 0.2) -> float:
    """Return the processor time that the process takes, a second, while it waits."""
    rest()
    wall, cpu = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)
