"""Channel counts as MobileNet rounds them."""

from __future__ import annotations


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of `divisor`, at least one of them, and not far down.

    Where rounding would take more than a tenth away, it goes up instead.

    Args:
      value: number of channels, over 0.
      divisor: what the result is a multiple of, 1 or more.

    Returns:
      The number of channels.

    Example:
      >>> make_divisible(16 * 1.2), make_divisible(28.8), make_divisible(3)
      (24, 32, 8)
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
