"""How many hidden channels to work on at a time, for a CPU's caches.

A norm needs the statistics of all images, but only of one channel; a depthwise
convolution needs neighbours, but only of one channel. So a block whose hidden array
would be hundreds of megabytes goes through memory a tile of channels at a time.
"""

from __future__ import annotations

# A depthwise kernel's window and its weights stay in the first-level cache (48 KiB).
_WINDOW_BYTES = 40 << 10
# A small kernel gains nothing from that: the products of thin tiles cost more.
_SMALL_KERNEL = 3
# A tile of all images stays in the last-level cache, with what is made of it.
_TILE_BYTES = 8 << 20
# Matrix products with fewer channels than that are slow.
_FEWEST = 32


def window_tile(channels: int, kernel: int) -> int:
    """Channels of a tile of an inverted residual with frozen statistics."""
    if kernel <= _SMALL_KERNEL:
        return channels
    return _tile(channels, _WINDOW_BYTES / (2 * 4 * kernel * kernel))


def whole_set_tile(channels: int, kernel: int, pixels: int) -> int:
    """Channels of a tile that is computed for all images at once.

    Args:
      channels: of the hidden array.
      kernel: of the depthwise convolution.
      pixels: of the hidden array, over all images.
    """
    most = max(_FEWEST, _TILE_BYTES / (4 * pixels))
    return _tile(channels, min(window_tile(channels, kernel), most))


def _tile(channels: int, most: float) -> int:
    divisors = (d for d in range(1, channels + 1) if channels % d == 0)
    tile = max(d for d in divisors if d <= max(1, most))
    # Of a prime number of channels nothing but single ones could be cut.
    return tile if 4 * tile >= min(most, channels) else channels
