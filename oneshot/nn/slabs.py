"""Depthwise convolution of a slab: a few channels of all images, `[b, n, h, w, lanes]`.

At most 32 channels are innermost, so that what a loop over pixels reads again, the
kernel and a window of the image, stays in a CPU's first cache: with all channels
innermost, a 5x5 kernel of 384 alone is 38 kB, and every product waits for the second
cache. Measured in docs/design/0003.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from oneshot.nn.apart import apart

# Beyond about a hundred memory accesses LLVM gives up on vectorising a loop.
_MAX_TERMS = 64
# So many sums are written out; beyond, a loop over the rows adds them up.
_MAX_STRIPS = 4


def to_slab(rows: Array, images: tuple[int, ...], lanes: int) -> Array:
    """`[n * h * w, c]` to `[c / lanes, n, h, w, lanes]`."""
    return rows.reshape(*images, -1, lanes).transpose(3, 0, 1, 2, 4)


def to_rows(slab: Array) -> Array:
    """`[b, n, h, w, lanes]` to `[n * h * w, b * lanes]`."""
    blocks, *images, lanes = slab.shape
    moved = slab.transpose(1, 2, 3, 0, 4)
    return moved.reshape(images[0] * images[1] * images[2], blocks * lanes)


def pad_slab(slab: Array, low: int, high: int) -> Array:
    """Zeros around each image."""
    edge, none = (low, high, 0), (0, 0, 0)
    zero = jnp.zeros((), slab.dtype)
    return lax.pad(slab, zero, [none, none, edge, edge, none])


def inside(padded: Array, low: int, high: int | None = None) -> Array:
    """What `pad_slab` padded; `high` is `low` if not given."""
    _, _, height, width, _ = padded.shape
    both = low + (low if high is None else high)
    return _window(padded, low, low, (height - both, width - both), 1)


def out_size(size: Sequence[int], stride: int) -> tuple[int, int]:
    """Height and width after a convolution that pads by half of its kernel."""
    return -(-size[0] // stride), -(-size[1] // stride)


def convolve(
    padded: Array, w: Array, stride: int, level: Array | None = None
) -> tuple[Array, Array]:
    """Depthwise convolution of a padded slab, less a level for each channel.

    Args:
      padded: `[b, n, h + kernel - 1, w + kernel - 1, lanes]`.
      w: `[b, kernel, kernel, lanes]`.
      stride: step in both directions.
      level: `[b, 1, 1, 1, lanes]`; where None, the mean of the result over a sixteenth
        of the images. Its distance from the mean over all of them is at most 4
        standard deviations, whatever the images, so that what is left has a variance
        that can be had from sums of squares.

    Returns:
      `[b, n, ceil(h / stride), ceil(w / stride), lanes]`, and the level.
    """
    kernel = w.shape[1]
    _, _, height, width, _ = padded.shape
    out = out_size((height - kernel + 1, width - kernel + 1), stride)

    def sums(w: Array, padded: Array) -> Array:
        return _total(
            _window(padded, i, j, out, stride) * _tap(w, i, j)
            for i in range(kernel)
            for j in range(kernel)
        )

    def centred(w: Array, padded: Array, *level: Array) -> tuple[Array, Array]:
        if level:
            return sums(w, padded) - level[0], level[0]
        # The mean image goes through the convolution at the price of one image.
        image = _some(padded).mean(1, keepdims=True)
        found = sums(w, image).mean((2, 3), keepdims=True)
        return sums(w, padded) - found, found

    return apart(centred, w, padded, *(() if level is None else (level,)))


def _some(slab: Array) -> Array:
    # Of a sharded batch every device has some.
    blocks, n, *rest = slab.shape
    step = math.gcd(n, 16)
    return slab.reshape(blocks, n // step, step, *rest)[:, :, 0]


def input_gradient(w: Array, g: Array, stride: int, images: tuple[int, ...]) -> Array:
    """Gradient for the slab before its padding.

    Each of the `stride ** 2` kinds of pixel, by its place within a step, has taps of
    its own: to spread `g` out and convolve would multiply zeros, 3 of 4 for stride 2.

    Args:
      w: `[b, kernel, kernel, lanes]`.
      g: cotangent of the output, padded by `reach`.
      stride: of the convolution.
      images: number, height and width of the images.

    Returns:
      `[b, n, h, w, lanes]`.
    """
    _, height, width = images
    kernel, pad = w.shape[1], w.shape[1] // 2
    low, _ = reach(kernel, stride)
    steps = out_size((height, width), stride)

    def kind(w: Array, g: Array, a: int, b: int) -> Array:
        # Pixel a + stride * t meets tap i of output t + (a + pad - i) / stride.
        return _total(
            _window(
                g,
                low + (a + pad - i) // stride,
                low + (b + pad - j) // stride,
                steps,
                1,
            )
            * _tap(w, i, j)
            for i in range((a + pad) % stride, kernel, stride)
            for j in range((b + pad) % stride, kernel, stride)
        )

    def kinds(w: Array, g: Array) -> list[list[Array]]:
        steps = range(stride)
        return [[kind(w, g, a, b) for b in steps] for a in steps]

    found = apart(kinds, w, g)
    if stride == 1:
        return found[0][0]
    full = jnp.stack([jnp.stack(columns, 4) for columns in found], 3)
    full = full.reshape(*g.shape[:2], steps[0] * stride, steps[1] * stride, g.shape[-1])
    return full[:, :, :height, :width]


def reach(kernel: int, stride: int) -> tuple[int, int]:
    """How many zeros `input_gradient` wants before and after the cotangent."""
    pad = kernel // 2
    return -((pad - kernel + 1) // stride), (stride - 1 + pad) // stride


def weight_gradient(padded: Array, g: Array, kernel: int, stride: int) -> Array:
    """Gradient for the weights, `[b, kernel, kernel, lanes]`.

    For each pixel of the cotangent the window that it saw; additions written out over
    many pixels become one vectorised loop over the channels.

    Args:
      padded: the convolution's input.
      g: cotangent of its output, padded by `reach`.
      kernel: size of the kernel.
      stride: of the convolution.
    """
    g = inside(g, *reach(kernel, stride))

    # XLA would fuse the sum over images with the products, and vectorise neither.
    def total(*terms: Array) -> Array:
        return _total(term.sum(1) for term in terms)

    return apart(total, *apart(partial(_terms, kernel, stride), padded, g))


def _terms(kernel: int, stride: int, padded: Array, g: Array) -> list[Array]:
    """Arrays `[b, n, kernel, kernel, lanes]`, whose sum is each image's gradient."""
    height, width = g.shape[2:4]
    wide = -(-width // -(-width // _MAX_TERMS))
    columns = [(left, min(wide, width - left)) for left in range(0, width, wide)]
    high = max(1, _MAX_TERMS // width)

    def strip(padded: Array, g: Array, top: int, height: int) -> list[Array]:
        return [
            _sum_of_windows(padded, g, (top, left), (height, count), kernel, stride)
            for left, count in columns
        ]

    if -(-height // high) * len(columns) <= _MAX_STRIPS:
        tops = range(0, height, high)
        strips = [strip(padded, g, top, min(high, height - top)) for top in tops]
        return [term for terms in strips for term in terms]

    def step(row: Array, totals: list[Array]) -> list[Array]:
        rows = lax.dynamic_slice_in_dim(padded, row * stride, kernel, 2)
        pixels = lax.dynamic_slice_in_dim(g, row, 1, 2)
        new = strip(rows, pixels, 0, 1)
        return [total + term for total, term in zip(totals, new, strict=True)]

    start = jnp.zeros((*g.shape[:2], kernel, kernel, g.shape[-1]), g.dtype)
    return lax.fori_loop(0, height, step, [start] * len(columns))


def _sum_of_windows(
    padded: Array,
    g: Array,
    corner: tuple[int, int],
    size: tuple[int, int],
    kernel: int,
    stride: int,
) -> Array:
    return _total(
        _window(padded, row * stride, column * stride, (kernel, kernel), 1)
        * _window(g, row, column, (1, 1), 1)
        for row in range(corner[0], corner[0] + size[0])
        for column in range(corner[1], corner[1] + size[1])
    )


def _total(terms: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, terms)


def _tap(w: Array, i: int, j: int) -> Array:
    return w[:, None, i : i + 1, j : j + 1]


def _window(
    slab: Array, top: int, left: int, size: Sequence[int], stride: int
) -> Array:
    bottom = top + (size[0] - 1) * stride + 1
    right = left + (size[1] - 1) * stride + 1
    blocks, n, _, _, lanes = slab.shape
    return lax.slice(
        slab,
        (0, 0, top, left, 0),
        (blocks, n, bottom, right, lanes),
        (1, 1, stride, stride, 1),
    )
