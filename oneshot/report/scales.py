"""Scales of a plot: values to units of its view box, and the round values to mark."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from oneshot.report.text import number

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 66, 22, 14, 54


class Scale(NamedTuple):
    """A map from values to units of the view box.

    Args:
        low: Value at `start`.
        high: Value at `stop`, above `low`.
        start: Unit at the low end.
        stop: Unit at the high end.
        log: Whether the map is logarithmic; both values are positive then.

    Example:
        >>> Scale(0.0, 2.0, 0.0, 100.0, False)(0.5)
        25.0
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high = math.log(low), math.log(high)
            value = math.log(value) if value > 0 else low
        part = (value - low) / (high - low)
        return round(self.start + part * (self.stop - self.start), 2)

    def ticks(self) -> list[float]:
        """The round values to mark between both ends."""
        if self.log:
            return log_ticks(self.low, self.high)
        return nice_ticks(self.low, self.high)


def make_scale(
    values: Iterable[Any], start: float, stop: float, *, log: bool = False
) -> Scale:
    """A scale that shows all finite values with a margin.

    Args:
        values: What will be drawn; what is no finite number is ignored.
        start: Unit at the low end.
        stop: Unit at the high end.
        log: Asks for a logarithmic scale; linear if a value is not positive.

    Returns:
        The scale; from 0 to 1 if there is nothing to draw.

    Example:
        >>> make_scale([1.0, 3.0], 0.0, 100.0)(2.0)
        50.0
    """
    finite = [x for x in map(number, values) if x is not None]
    if not finite:
        return Scale(0.0, 1.0, start, stop, False)
    low, high = min(finite), max(finite)
    if log and low > 0:
        margin = max(0.05 * math.log(high / low), 0.05)
        factor = math.exp(margin)
        return Scale(low / factor, high * factor, start, stop, True)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
    return Scale(low - margin, high + margin, start, stop, False)


def x_scale(values: Iterable[Any], *, log: bool = False) -> Scale:
    """A scale along the width of a chart, as `make_scale`."""
    return make_scale(values, LEFT, WIDTH - RIGHT, log=log)


def y_scale(values: Iterable[Any], *, log: bool = False, height: int = HEIGHT) -> Scale:
    """A scale up the height of a chart, as `make_scale`."""
    return make_scale(values, height - BOTTOM, TOP, log=log)


def nice_ticks(low: float, high: float, num: int = 5) -> list[float]:
    """About `num` multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: Lower end.
        high: Upper end, above `low`.
        num: Ticks wished for.

    Returns:
        The ticks inside the ends, in order.

    Example:
        >>> nice_ticks(0.0, 1.0)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and between them as many round values as stay legible.

    Args:
        low: Lower end, positive.
        high: Upper end, above `low`.

    Returns:
        The ticks inside the ends, in order.

    Example:
        >>> log_ticks(0.9, 2000.0)
        [1.0, 10.0, 100.0, 1000.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [float(f"{d}e{p}") for p in powers for d in digits]
        inside = [t for t in ticks if low <= t <= high]
        if len(inside) >= 4:
            stride = math.ceil(len(inside) / 7)
            return inside[::stride]
    return nice_ticks(low, high)
