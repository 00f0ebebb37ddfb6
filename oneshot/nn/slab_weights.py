"""An inverted residual's weights, cut into slabs of hidden channels and rejoined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jax import Array

# Channels of the innermost axis of a slab, see `oneshot.nn.slabs`.
LANES = 32
# Bytes of a slab, and the fewest channels of one. A program works on several slabs at
# once, which should fit into the caches and stay below the 32 MiB from which on the C
# library maps memory anew at each call.
_SLAB_BYTES, _FEWEST = 2 << 20, 16
# A hidden array of so few bytes is in the caches anyway, and a small kernel's taps are
# few: computing a slab again in the backward then costs more than it saves.
_SMALL_KERNEL, _SMALL_BYTES = 3, 8 << 20


def slabs_pay(depthwise: Sequence[int], images: Sequence[int]) -> bool:
    """Return whether training by slabs is faster than one operation after another.

    Args:
      depthwise: shape of the depthwise kernel, `[kernel, kernel, hidden]`.
      images: shape of the block's input, `[n, height, width, in]`.
    """
    kernel, _, hidden = depthwise
    num_bytes = 4 * images[0] * images[1] * images[2] * hidden
    return kernel > _SMALL_KERNEL or num_bytes > _SMALL_BYTES


class Weights(NamedTuple):
    """Arrays of an inverted residual, or gradients for them.

    Attributes:
      expand: `[in, hidden]`.
      scale1: `[hidden]`, of the norm after `expand`.
      bias1: `[hidden]`.
      depthwise: `[kernel, kernel, hidden]`.
      scale2: `[hidden]`, of the norm after `depthwise`.
      bias2: `[hidden]`.
      project: `[hidden, out]`.
      scale3: `[out]`, of the norm after `project`.
      bias3: `[out]`.
    """

    expand: Array
    scale1: Array
    bias1: Array
    depthwise: Array
    scale2: Array
    bias2: Array
    project: Array
    scale3: Array
    bias3: Array


class Slab(NamedTuple):
    """Weights of some hidden channels, or gradients for them.

    Attributes:
      expand: `[in, c]`.
      scale1: `[1, c]`.
      bias1: `[1, c]`.
      depthwise: `[c / lanes, kernel, kernel, lanes]`.
      scale2: `[c / lanes, 1, 1, 1, lanes]`.
      bias2: `[c / lanes, 1, 1, 1, lanes]`.
      project: `[c, out]`.
    """

    expand: Array
    scale1: Array
    bias1: Array
    depthwise: Array
    scale2: Array
    bias2: Array
    project: Array


def slab_width(hidden: int, num_rows: int) -> int:
    """The number of channels of a slab: the largest divisor of `hidden` that fits.

    Args:
      hidden: number of hidden channels.
      num_rows: pixels of the batch.
    """
    most = max(_SLAB_BYTES // (4 * num_rows), _FEWEST)
    fit = [d for d in range(1, hidden + 1) if hidden % d == 0 and d <= most]
    return max([d for d in fit if d % LANES == 0] or fit)


def row_slabs(vector: Array, width: int) -> Array:
    """`[hidden]` as `[slabs, 1, width]`."""
    return vector.reshape(-1, 1, width)


def lane_slabs(vector: Array, width: int) -> Array:
    """`[hidden]` as `[slabs, width / lanes, 1, 1, 1, lanes]`."""
    lanes = _lanes(width)
    return vector.reshape(-1, width // lanes, 1, 1, 1, lanes)


def cut(w: Weights, width: int) -> Slab:
    """All slabs, along a first axis."""
    inputs, hidden = w.expand.shape
    count, lanes, kernel = hidden // width, _lanes(width), w.depthwise.shape[0]
    taps = w.depthwise.reshape(kernel, kernel, count, width // lanes, lanes)
    return Slab(
        w.expand.reshape(inputs, count, width).transpose(1, 0, 2),
        row_slabs(w.scale1, width),
        row_slabs(w.bias1, width),
        taps.transpose(2, 3, 0, 1, 4),
        lane_slabs(w.scale2, width),
        lane_slabs(w.bias2, width),
        w.project.reshape(count, width, -1),
    )


def join(slabs: Slab, scale3: Array, bias3: Array) -> Weights:
    """What `cut` cut, and the two arrays that it left out."""
    inputs, kernel = slabs.expand.shape[1], slabs.depthwise.shape[2]
    return Weights(
        slabs.expand.transpose(1, 0, 2).reshape(inputs, -1),
        slabs.scale1.reshape(-1),
        slabs.bias1.reshape(-1),
        slabs.depthwise.transpose(2, 3, 0, 1, 4).reshape(kernel, kernel, -1),
        slabs.scale2.reshape(-1),
        slabs.bias2.reshape(-1),
        slabs.project.reshape(-1, slabs.project.shape[-1]),
        scale3,
        bias3,
    )


def _lanes(width: int) -> int:
    return width if width % LANES else LANES
