"""How many images and channels to work on at a time, for a CPU's caches.

A norm needs the statistics of all images, but only of one channel; a depthwise
convolution needs neighbours, but only of one channel. So a block whose hidden array
would be hundreds of megabytes goes through memory a tile of channels at a time.
"""

from __future__ import annotations

# A depthwise kernel's window and its weights stay in the first-level cache (48 KiB).
_WINDOW_BYTES = 40 << 10
# A small kernel gains nothing from that: the products of thin tiles cost more.
_SMALL_KERNEL = 3
# Arrays of a group stay in the second-level caches (1 MiB a core).
_GROUP_BYTES = 1 << 20
# glibc maps memory above 32 MiB anew at each call, page by page. This leaves room
# for what a group needs.
_STORED_BYTES = 27 << 20


def largest_divisor(n: int, most: float) -> int:
    """The largest divisor of `n` that is at most `most`; 1 where that is below 1."""
    return max((d for d in range(1, n + 1) if n % d == 0 and d <= most), default=1)


def window_tile(channels: int, kernel: int) -> int:
    """Channels of a tile of an inverted residual with frozen statistics."""
    if kernel <= _SMALL_KERNEL:
        return channels
    return _tile(channels, _WINDOW_BYTES / (2 * 4 * kernel * kernel))


def stored_tile(channels: int, kernel: int, pixels: int) -> int:
    """Channels of a tile whose hidden array is kept for all images.

    Args:
      channels: of the hidden array.
      kernel: of the depthwise convolution.
      pixels: of the hidden array, over all images.
    """
    window = window_tile(channels, kernel)
    return _tile(channels, min(window, _STORED_BYTES / (4 * pixels)))


def _tile(channels: int, most: float) -> int:
    tile = largest_divisor(channels, most)
    # Of a prime number of channels nothing but single ones could be cut.
    return tile if 4 * tile >= min(most, channels) else channels


def image_group(images: int, elements: int) -> int:
    """Images of a group.

    Args:
      images: how many there are.
      elements: of the largest array that a group computes, for one image.

    Returns:
      A divisor of `images`; all of them where none is near the best size.
    """
    most = max(4, _GROUP_BYTES / (4 * elements))
    group = largest_divisor(images, most)
    return group if 4 * group >= min(most, images) else images
