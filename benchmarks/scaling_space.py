"""A chain of equal-shape inverted residuals, of any number of layers and options.

Each layer can also be skipped, so that the time of stem and head is that of a path of
its own and the rest is that of the blocks. The first three options are those of every
chain, and the paths that are timed are drawn from them: what a block does is then the
same whatever the chain's size.
"""

from __future__ import annotations

import functools

import numpy as np

from oneshot.data import Data
from oneshot.layers import Identity, OneOf
from oneshot.nn import ConvBN, InvertedResidual
from oneshot.space import Arch
from oneshot.spaces.nb_macro import Head
from oneshot.supernet import Supernet

SIZE, COMMON = 16, 3  # pixels of an input's side, half as many in the blocks
_OPTIONS = (  # (expand, kernel)
    *((2, 3), (3, 3), (3, 5)),
    *((2, 5), (4, 3), (4, 5)),
    *((2, 7), (3, 7), (4, 7), (6, 3), (6, 5), (6, 7)),
)


def chain(layers: int, options: int, channels: int) -> Supernet:
    """Return a supernet of `layers` layers with `options` options besides skipping.

    Args:
      layers: At least 1.
      options: 1 to 12.
      channels: Of every block's input and output.
    """

    def block(expand: int, kernel: int):
        return lambda rngs: InvertedResidual(
            channels, channels, expand=expand, kernel=kernel, rngs=rngs
        )

    named = {f"e{e}k{k}": block(e, k) for e, k in _OPTIONS[:options]}
    return Supernet(
        stem=lambda rngs: ConvBN(3, channels, 3, 2, rngs=rngs),
        layers=[OneOf(skip=Identity, **named)] * layers,
        head=functools.partial(Head, channels, channels, 10),
    )


def skipping(layers: int) -> Arch:
    """Return the arch that skips every layer."""
    return (0,) * layers


def common_archs(seed: int, layers: int, n: int) -> list[Arch]:
    """Return archs that repeat a random pattern of eight of the common options.

    With a multiple of eight layers, the mix of blocks is the same in any of them.
    """
    rng = np.random.default_rng([seed, 7])
    out = []
    for _ in range(n):
        pattern = rng.permutation(np.arange(8) % COMMON + 1)
        out.append(tuple(int(v) for v in np.resize(pattern, layers)))
    return out


def batch(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `n` random images and labels."""
    rng = np.random.default_rng([seed, 8])
    x = rng.normal(size=(n, SIZE, SIZE, 3)).astype(np.float32)
    return x, rng.integers(0, 10, n).astype(np.int32)


def data(seed: int, n: int) -> Data:
    """Return `n` images to calibrate with and as many to score."""
    return Data.from_arrays(batch(seed, n), validate=batch(seed + 1, n), calibrate=n)
