"""NAS-Bench-Macro's space: 8 layers of 3 options, 6,561 archs, 3,969 distinct networks.

Su et al., Prioritized Architecture Sampling with Monte-Carlo Tree Search, CVPR 2021,
arXiv:2103.11922. Parameters and multiply-adds of every arch equal the published
table's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from oneshot.layers import Identity, OneOf
from oneshot.nn import ConvBN, InvertedResidual
from oneshot.space import Commuting
from oneshot.supernet import Supernet

_STAGES = ((2, 64), (3, 128), (3, 256))  # layers and channels; each halves the size


class Head(nnx.Module):
    """Conv 1x1, norm, ReLU, global average pool, linear."""

    def __init__(
        self, in_features: int, hidden: int, classes: int, *, rngs, impl="auto"
    ):
        self.conv = ConvBN(in_features, hidden, 1, rngs=rngs, impl=impl)
        self.linear = nnx.Linear(hidden, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, height, width, in] to [n, classes]."""
        return self.linear(jnp.mean(self.conv(x), axis=(1, 2)))


def nb_macro(
    *, classes: int = 10, width: float = 1.0, hidden: int = 1280, impl: str = "auto"
) -> Supernet:
    """Build NAS-Bench-Macro's supernet for images [n, 32, 32, 3] (other sizes work
    too).

    Options of each layer are 0 `id` (skip; a strided 1x1 convolution where a stage
    begins), 1 `e3k3` and 2 `e6k5`: inverted residuals of expansion 3 with kernel 3, and
    6 with 5. Its canonical form moves the identities of a stage's later layers to the
    stage's end.

    Args:
      classes: Outputs of the head.
      width: Factor of all channels, for quicker trials; 1 is the benchmark's.
      hidden: Channels of the head's convolution; 1280 is the benchmark's.
      impl: Operations, see `oneshot.nn.resolve`.

    Example:
      >>> net = nb_macro()
      >>> net.space.size, net.space.num_distinct
      (6561, 3969)
    """
    channels = round(32 * width)
    layers, groups, first = {}, [], channels
    for stage, (depth, features) in enumerate(_STAGES, 1):
        out = round(features * width)
        names = [f"stage{stage}.{i}" for i in range(depth)]
        for i, name in enumerate(names):
            layers[name] = _layer(channels, out, 1 if i else 2, impl)
            channels = out
        groups.append(tuple(f"{name}.op" for name in names[1:]))
    return Supernet(
        stem=lambda rngs: ConvBN(3, first, 3, rngs=rngs, impl=impl),
        layers=layers,
        head=lambda rngs: Head(channels, hidden, classes, rngs=rngs, impl=impl),
        symmetry=Commuting(tuple(groups)),
    )


def _layer(before: int, after: int, stride: int, impl: str) -> OneOf:
    def block(expand: int, kernel: int):
        return lambda rngs: InvertedResidual(
            before,
            after,
            expand=expand,
            kernel=kernel,
            stride=stride,
            rngs=rngs,
            impl=impl,
        )

    def project(rngs):
        return ConvBN(before, after, 1, stride, relu=False, rngs=rngs, impl=impl)

    skip = Identity if stride == 1 else project
    return OneOf(id=skip, e3k3=block(3, 3), e6k5=block(6, 5))
