"""Vision Transformers: AutoFormer's supernets, and small ones for small images.

Chen et al., AutoFormer: Searching Transformers for Visual Recognition, ICCV 2021,
arXiv:2107.00651 (code: github.com/microsoft/Cream, MIT). Embedding width, depth, and
for each layer the number of heads and the MLP's ratio are elastic; queries, keys and
values have 64 features a head; two-dimensional relative position acts on keys and
values, and the patches' features are averaged before the classifier.

`FOUND` holds the networks that the paper found, read in a public copy of its code, from
`experiments/subnet/AutoFormer-{T,S,B}.yaml`. Published there are 5.8, 22.9 and 53.7
million parameters; `Costs` counts 5,867,944, 22,891,432 and 53,691,688 with 1000
classes. Small's and base's figures are these, rounded. Tiny's is 1.2 % less, and agrees
with the count without the tables of relative position, 5,768,104 (the paper's abstract
says 5.7); the paper does not say what it counts. Tiny's network has ratios of 3, which
the paper's list for tiny (3.5 and 4) lacks; they are on offer here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from oneshot.layers import Elastic, Stage
from oneshot.nn import (
    ConvBN,
    ElasticLinear,
    ElasticMlp,
    ImageAttention,
    LayerNorm,
    PatchEmbedding,
)
from oneshot.space import Choice
from oneshot.spaces.sizes import changed
from oneshot.supernet import Supernet


@dataclasses.dataclass(frozen=True)
class VitSize:
    """The choices and constants of a supernet.

    Attributes:
      width: options for the width of the embedding, one choice for all layers.
      depth: options for the number of layers.
      heads: options for the heads of each layer.
      mlp: options for the hidden width of each layer, as multiples of the width.
      image: side of the images, in pixels.
      patch: side of a patch; of what the convolutions return, where there are some.
      head_size: features of a head.
      distance: the largest relative position told apart, in patches; None for none.
      stem: channels of 3x3 convolutions of stride 2 before the patches.
      channels: channels of the images.
    """

    width: tuple[int, ...]
    depth: tuple[int, ...]
    heads: tuple[int, ...]
    mlp: tuple[float, ...]
    image: int = 224
    patch: int = 16
    head_size: int = 64
    distance: int | None = 14
    stem: tuple[int, ...] = ()
    channels: int = 3


SIZES = {
    "digits": VitSize(
        (24, 32), (2, 3), (2, 3), (1, 2), 8, 2, head_size=8, distance=3, channels=1
    ),
    "tiny": VitSize(
        (96, 128),
        (2, 3, 4),
        (2, 3, 4),
        (1, 2, 3),
        image=32,
        patch=1,
        head_size=32,
        distance=7,
        stem=(32, 64),
    ),
    "autoformer_tiny": VitSize((192, 216, 240), (12, 13, 14), (3, 4), (3.0, 3.5, 4.0)),
    "autoformer_small": VitSize(
        (320, 384, 448), (12, 13, 14), (5, 6, 7), (3.0, 3.5, 4.0)
    ),
    "autoformer_base": VitSize(
        (528, 576, 624), (14, 15, 16), (8, 9, 10), (3.0, 3.5, 4.0)
    ),
}

# Of each size: width, heads of each layer, MLP ratio of each layer.
FOUND = {
    "autoformer_tiny": (
        192,
        (3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3),
        (3.5, 3.5, 3.0, 3.5, 3.0, 3.0, 4.0, 4.0, 3.5, 4.0, 3.5, 4.0, 3.5),
    ),
    "autoformer_small": (
        384,
        (6, 6, 5, 7, 5, 5, 5, 6, 6, 7, 7, 6, 7),
        (3.0, 3.5, 3.0, 3.5, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.5, 4.0),
    ),
    "autoformer_base": (
        576,
        (9, 9, 9, 9, 9, 10, 9, 9, 10, 9, 10, 9, 9, 10),
        (3.5, 3.5, 4.0, 3.5, 4.0, 3.5, 3.5, 3.0, 4.0, 4.0, 3.0, 4.0, 3.0, 3.5),
    ),
}


class Stem(nnx.Module):
    """Convolutions, if any, then patches of what they return."""

    def __init__(self, size: VitSize, *, rngs, impl: str):
        before, convolutions = size.channels, []
        for channels in size.stem:
            conv = ConvBN(before, channels, 3, 2, rngs=rngs, impl=impl)
            convolutions.append(conv)
            before = channels
        self.convolutions = nnx.List(convolutions)
        self.embed = PatchEmbedding(
            size.patch, before, grid_of(size), size.width, rngs=rngs
        )

    def __call__(self, x: Array, *, width: int) -> Array:
        """[n, height, width, channels] to [n, 1 + patches, width]."""
        for conv in self.convolutions:
            x = conv(x)
        return self.embed(x, width=width)


class AttentionLayer(nnx.Module):
    """x + attention(norm(x))."""

    def __init__(self, size: VitSize, dropout: float, *, rngs):
        width = max(size.width)
        self.norm = LayerNorm(width)
        self.attention = ImageAttention(
            width,
            heads=size.heads,
            head_size=(size.head_size,),
            grid=grid_of(size),
            distance=size.distance,
            rngs=rngs,
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(self, x: Array, *, heads: int) -> Array:
        """[n, tokens, width] to the same."""
        y = self.attention(self.norm(x), heads=heads)
        return x + (y if self.dropout is None else self.dropout(y))


class MlpLayer(nnx.Module):
    """x + mlp(norm(x))."""

    def __init__(self, size: VitSize, dropout: float, *, rngs):
        width = max(size.width)
        self.norm = LayerNorm(width)
        self.mlp = ElasticMlp(width, size.mlp, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(self, x: Array, *, ratio: float) -> Array:
        """[n, tokens, width] to the same."""
        y = self.mlp(self.norm(x), ratio=ratio)
        return x + (y if self.dropout is None else self.dropout(y))


class Head(nnx.Module):
    """Norm, mean over the patches, linear."""

    def __init__(self, width: int, classes: int, *, rngs):
        self.norm = LayerNorm(width)
        self.linear = ElasticLinear(width, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """[n, 1 + patches, width] to [n, classes]."""
        patches = jax.lax.slice_in_dim(self.norm(x), 1, x.shape[1], axis=1)
        return self.linear(jnp.mean(patches, axis=1))


def grid_of(size: VitSize) -> tuple[int, int]:
    """Return the rows and columns of patches of a size's images."""
    side = size.image
    for _ in size.stem:
        side = -(-side // 2)
    if side % size.patch:
        raise ValueError(
            f"Patches of {size.patch} do not cover {side} pixels (images of "
            f"{size.image}, after {len(size.stem)} convolutions of stride 2). Choose "
            "a patch that divides them."
        )
    return side // size.patch, side // size.patch


def vit(
    size: str = "tiny",
    *,
    classes: int = 10,
    dropout: float = 0.0,
    impl: str = "auto",
    **changes: Any,
) -> Supernet:
    """Build a supernet of Vision Transformers for images [n, side, side, channels].

    Args:
      size: "digits" (8x8 grey images), "tiny" (32x32, two convolutions first), or
        "autoformer_tiny", "autoformer_small", "autoformer_base" (224x224).
      classes: Outputs of the head; AutoFormer's have 1000.
      dropout: Probability of zeroing an element of a layer's result, in 0 to 1.
      impl: Operations of the convolutions, see `oneshot.nn.resolve`.
      **changes: Fields of `VitSize` to change, such as `depth=[2, 3]`.

    Raises:
      ValueError: If there is no such size or field.

    Example:
      >>> net = vit("autoformer_tiny", classes=1000)
      >>> Costs(net, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    """
    found = changed(SIZES, size, changes)
    grid_of(found)  # raises here, where a caller can read it
    width = Choice("width", found.width)
    attention = Elastic(
        lambda rngs: AttentionLayer(found, dropout, rngs=rngs), heads=found.heads
    )
    mlp = Elastic(lambda rngs: MlpLayer(found, dropout, rngs=rngs), ratio=found.mlp)
    layer = Stage({"attention": attention, "mlp": mlp})
    return Supernet(
        stem=Elastic(lambda rngs: Stem(found, rngs=rngs, impl=impl), width=width),
        layers={"layers": Stage([layer] * max(found.depth), depth=found.depth)},
        head=lambda rngs: Head(max(found.width), classes, rngs=rngs),
    )
