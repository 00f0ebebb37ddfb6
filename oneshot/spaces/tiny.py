"""A small space of inverted residuals for small images, such as 8x8 digits.

The blocks are MobileNetV2's (Sandler et al. 2018, arXiv:1801.04381); expansion and
kernel are elastic with shared weights, as in Once-for-All (Cai et al. 2020,
arXiv:1908.09791), and each stage has an elastic depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from oneshot.layers import Elastic, Stage
from oneshot.nn import ConvBN, ElasticInvertedResidual
from oneshot.supernet import Supernet


class PoolLinear(nnx.Module):
    """Global average pool, linear."""

    def __init__(self, features: int, classes: int, *, rngs):
        self.linear = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, height, width, features] to [n, classes]."""
        return self.linear(jnp.mean(x, axis=(1, 2)))


def tiny(
    *,
    classes: int = 10,
    channels: int = 1,
    widths: Sequence[int] = (12, 16, 24),
    expand: Sequence[int] = (1, 2, 4),
    kernel: Sequence[int] = (3, 5),
    depth: int = 3,
    impl: str = "auto",
) -> Supernet:
    """Build a supernet for images [n, height, width, channels], 8x8 and up.

    Args:
      classes: Outputs of the head.
      channels: Input channels.
      widths: Channels of the stem and of each stage; stages halve the image.
      expand: Options for the expansion of each block.
      kernel: Options for the kernel of each block, odd.
      depth: Largest number of blocks in a stage; from 1 up are options.
      impl: Operations, see `oneshot.nn.resolve`.

    Example:
      >>> tiny().space.num_paths
      66564
    """
    first, *stages = widths
    expand, kernel = tuple(expand), tuple(kernel)

    def block(before: int, after: int, stride: int) -> Elastic:
        def make(rngs):
            return ElasticInvertedResidual(
                before,
                after,
                expand=expand,
                kernel=kernel,
                stride=stride,
                rngs=rngs,
                impl=impl,
            )

        return Elastic(make, expand=expand, kernel=kernel)

    layers, before = {}, first
    for number, width in enumerate(stages, 1):
        blocks = [block(before, width, 2)]
        blocks += [block(width, width, 1) for _ in range(depth - 1)]
        layers[f"stage{number}"] = Stage(blocks, depth=tuple(range(1, depth + 1)))
        before = width
    return Supernet(
        stem=lambda rngs: ConvBN(channels, first, 3, rngs=rngs, impl=impl),
        layers=layers,
        head=lambda rngs: PoolLinear(before, classes, rngs=rngs),
    )
