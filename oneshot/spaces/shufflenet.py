"""Single Path One-Shot's space: 20 layers of four ShuffleNetV2 blocks, 4^20 archs.

Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV
2020, arXiv:1904.00420; the blocks are those of Ma et al., ShuffleNet V2, ECCV 2018,
arXiv:1807.11164, and of its authors' reference networks.

The authors publish as their found network (README of github.com/megvii-model/
SinglePathOneShot) the genes `PUBLISHED`, with 323 M multiply-adds and 3.5 M
parameters for images of 224x224 and 1,000 classes. Counted here are 322.9 M and 3.56 M,
or 3.53 M without the norms' scales and offsets.
Another of theirs, with 328 M and 3.4 M (github.com/megvii-model/ShuffleNet-Series,
OneShot), also searched the widths inside blocks, which are fixed in this space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from oneshot.layers import OneOf
from oneshot.nn import ConvBN
from oneshot.nn.shuffle import ShuffleBlock
from oneshot.supernet import Supernet

PUBLISHED = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)


class Size(NamedTuple):
    """Channels of the stem, the stages and the head, layers, and where it halves."""

    stem: int
    stages: tuple[int, ...]
    depths: tuple[int, ...]
    head: int
    stem_stride: int
    dropout: float


SIZES = {
    "tiny": Size(8, (16, 32, 64), (2, 2, 2), 128, 1, 0.0),
    "published": Size(16, (64, 160, 320, 640), (4, 4, 8, 4), 1024, 2, 0.1),
}


def shufflenet(
    *,
    size: str = "published",
    classes: int | None = None,
    channels: int = 3,
    stages: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    dropout: float | None = None,
    impl: str = "auto",
) -> Supernet:
    """Build Single Path One-Shot's supernet for images [n, height, width, channels].

    Options of each layer are, in the authors' order, 0 `shuffle3`, 1 `shuffle5`, 2
    `shuffle7` (ShuffleNetV2 blocks of that kernel) and 3 `xception` (three depthwise
    convolutions 3x3), each with its own weights. The first layer of a stage halves the
    image; "published" has stages of 4, 4, 8 and 4 layers and halves five times, "tiny"
    three stages of 2 and halves three times.

    Args:
      size: "published", for images of 224x224, or "tiny", for 32x32 (8x8 and up).
      classes: Outputs of the head; 1,000 if published, 10 if tiny.
      channels: Input channels.
      stages: Channels of each stage instead of the size's; multiples of 4.
      depths: Layers of each stage instead of the size's, at least 1.
      dropout: Before the classifier, in 0 to 1, instead of the size's.
      impl: Operations, see `oneshot.nn.resolve`.

    Raises:
      ValueError: If there is no such size, or stages and depths do not fit.

    Example:
      >>> net = shufflenet()
      >>> net.space.size == 4**20, net.space.describe(PUBLISHED)["stage1.0.op"]
      (True, 'shuffle7')
    """
    if size not in SIZES:
        raise ValueError(
            f"`size` of shufflenet is one of {', '.join(map(repr, SIZES))}, but got "
            f"{size!r}."
        )
    sizes = SIZES[size]
    stages = sizes.stages if stages is None else tuple(stages)
    depths = sizes.depths if depths is None else tuple(depths)
    _check(stages, depths)
    layers, before = {}, sizes.stem
    for stage, (width, depth) in enumerate(zip(stages, depths, strict=True), 1):
        layers[f"stage{stage}.0"] = _layer(before, width, 2, impl)
        same = _layer(width, width, 1, impl)
        layers |= {f"stage{stage}.{i}": same for i in range(1, depth)}
        before = width
    usual = 1000 if size == "published" else 10
    outputs = usual if classes is None else classes
    rate = sizes.dropout if dropout is None else dropout
    return Supernet(
        stem=lambda rngs: ConvBN(
            channels, sizes.stem, 3, sizes.stem_stride, rngs=rngs, impl=impl
        ),
        layers=layers,
        head=lambda rngs: Head(
            before, sizes.head, outputs, dropout=rate, rngs=rngs, impl=impl
        ),
    )


def _check(stages: tuple[int, ...], depths: tuple[int, ...]) -> None:
    if len(stages) != len(depths) or not stages or min(depths) < 1:
        raise ValueError(
            "shufflenet needs as many `depths`, each at least 1, as `stages`, but got "
            f"stages={stages} and depths={depths}."
        )
    if any(width % 4 for width in stages):
        raise ValueError(
            "The channels of shufflenet's stages are split in half and shuffled in "
            f"pairs, so each has to be a multiple of 4, but got {stages}."
        )


def _layer(before: int, after: int, stride: int, impl: str) -> OneOf:
    def block(kernels: tuple[int, ...]):
        return lambda rngs: ShuffleBlock(
            before, after, kernels=kernels, stride=stride, rngs=rngs, impl=impl
        )

    return OneOf(
        shuffle3=block((3,)),
        shuffle5=block((5,)),
        shuffle7=block((7,)),
        xception=block((3, 3, 3)),
    )


class Head(nnx.Module):
    """Conv 1x1, norm, ReLU, global average pool, dropout, linear without a bias."""

    def __init__(
        self,
        in_features: int,
        hidden: int,
        classes: int,
        *,
        dropout: float = 0.0,
        rngs,
        impl="auto",
    ):
        self.conv = ConvBN(in_features, hidden, 1, rngs=rngs, impl=impl)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.linear = nnx.Linear(hidden, classes, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, height, width, in] to [n, classes]."""
        pooled = jnp.mean(self.conv(x), axis=(1, 2))
        return self.linear(pooled if self.dropout is None else self.dropout(pooled))
