"""Once-for-All's MobileNetV3: kernel, expansion and depth in five stages.

Cai et al., Once-for-All: Train One Network and Specialize it for Efficient Deployment,
ICLR 2020, arXiv:1908.09791; the channels, and where squeeze-and-excitation and the hard
swish stand, are those of the authors' code, github.com/mit-han-lab/once-for-all (MIT
licence), `OFAMobileNetV3`.

Largest is kernel 7, expansion 6 and depth 4 everywhere, smallest 3, 3 and 2. With 1,000
classes, at 224x224, parameters and multiply-adds:

- width 1.0: 7,664,760 and 566.2 M; 3,410,792 and 121.3 M
- width 1.2: 10,701,632 and 843.1 M; 4,602,456 and 193.1 M

They equal those of a definition in PyTorch written from the papers' tables (in the
tests). We found them in neither paper nor code. Of the smallest at 192x192, 89,421,520
multiply-adds by another counter are reported in github.com/zhijian-liu/torchprofile,
issue 10, which does not say the width; of width 1.0 these are 89,841,344, 0.5 % more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from oneshot.layers import Elastic, Stage
from oneshot.nn import BatchNorm, ElasticMBConv, MBConvForm
from oneshot.nn.activations import Activation, hard_swish
from oneshot.nn.blocks import ConvBN
from oneshot.nn.conv import he_normal
from oneshot.nn.divisible import make_divisible
from oneshot.nn.elastic_conv import ElasticDepthwise
from oneshot.nn.elastic_norm import Norms
from oneshot.nn.fused import norm_conv
from oneshot.nn.offers import offered, pick
from oneshot.nn.resize import resize_bilinear
from oneshot.supernet import Supernet


@dataclasses.dataclass(frozen=True)
class StageForm:
    """One stage: its channels, the stride of its first block, and all blocks' kind."""

    channels: int
    stride: int
    activation: Activation
    squeeze: bool


@dataclasses.dataclass(frozen=True)
class Size:
    """What a supernet consists of, before the width multiplier.

    Attributes:
      stem: Channels of the first convolution and of the fixed block after it.
      stem_stride: Of the first convolution.
      stages: The elastic ones.
      head: Channels of the last convolution and of the hidden linear layer.
      kernel, expand: Options of each block.
      depth: Options of each stage; its number of blocks is the largest.
      classes: Outputs, unless said otherwise.
      dropout: Before the last linear layer.
      divisor: What channels are multiples of.
    """

    stem: int
    stem_stride: int
    stages: tuple[StageForm, ...]
    head: tuple[int, int]
    kernel: tuple[int, ...]
    expand: tuple[float, ...]
    depth: tuple[int, ...]
    classes: int
    dropout: float = 0.0
    divisor: int = 8


SIZES = {
    "tiny": Size(
        stem=16,
        stem_stride=1,
        stages=(
            StageForm(24, 2, "relu", False),
            StageForm(40, 2, "relu", True),
            StageForm(64, 2, "hard_swish", True),
        ),
        head=(192, 256),
        kernel=(3, 5),
        expand=(2, 4),
        depth=(1, 2),
        classes=10,
    ),
    "published": Size(
        stem=16,
        stem_stride=2,
        stages=(
            StageForm(24, 2, "relu", False),
            StageForm(40, 2, "relu", True),
            StageForm(80, 2, "hard_swish", False),
            StageForm(112, 1, "hard_swish", True),
            StageForm(160, 2, "hard_swish", True),
        ),
        head=(960, 1280),
        kernel=(3, 5, 7),
        expand=(3, 4, 6),
        depth=(2, 3, 4),
        classes=1000,
        dropout=0.1,
    ),
}


class Stem(nnx.Module):
    """Resizing, if there are resolutions to choose from; conv 3x3, norm, hard swish."""

    def __init__(
        self,
        features: int,
        stride: int,
        resolutions: tuple[int, ...] = (),
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        self.conv = ConvBN(3, features, 3, stride, relu=False, rngs=rngs, impl=impl)
        self.resolutions = resolutions

    def __call__(self, x: Array, *, resolution: int | None = None) -> Array:
        """[n, height, width, 3] to [n, ceil(resolution / stride), ..., features]."""
        if self.resolutions:
            size = pick("resolution", resolution, self.resolutions)
            x = resize_bilinear(x, size)
        return hard_swish(self.conv(x))


class FirstBlock(nnx.Module):
    """Depthwise conv 3x3, norm, ReLU, conv 1x1, norm, plus the input."""

    def __init__(self, features: int, *, rngs: nnx.Rngs, impl: str = "auto") -> None:
        self.depthwise = ElasticDepthwise(features, 3, rngs=rngs, impl=impl)
        self.depthwise_norm = BatchNorm(features, relu=True)
        self.kernel = nnx.Param(he_normal(rngs.params(), (features, features)))
        self.norm = BatchNorm(features)
        self.impl = impl

    def __call__(self, x: Array) -> Array:
        """[n, height, width, features] to the same."""
        y = self.depthwise(x)
        y = norm_conv(self.depthwise_norm, y, self.kernel[...], impl=self.impl)
        return x + self.norm(y)


class Head(nnx.Module):
    """Conv 1x1, norm, hard swish, global average pool, linear, hard swish, linear."""

    def __init__(
        self,
        features: int,
        hidden: tuple[int, int],
        classes: int,
        dropout: float,
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        expand, mix = hidden
        self.conv = ConvBN(features, expand, 1, relu=False, rngs=rngs, impl=impl)
        self.mix = nnx.Linear(expand, mix, use_bias=False, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout > 0 else None
        self.linear = nnx.Linear(mix, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """[n, height, width, features] to [n, classes]."""
        y = jnp.mean(hard_swish(self.conv(x)), axis=(1, 2))
        y = hard_swish(self.mix(y))
        return self.linear(y if self.dropout is None else self.dropout(y))


def mobilenet_v3(
    size: str | Size = "published",
    *,
    classes: int | None = None,
    width: float = 1.0,
    resolutions: int | Sequence[int] | None = (),
    transforms: bool = False,
    norms: Norms = "shared",
    impl: str = "auto",
) -> Supernet:
    """Build Once-for-All's MobileNetV3 for images [n, height, width, 3].

    Each stage runs its first 2, 3 or 4 blocks; each block has a kernel and an
    expansion of its own. `published` spans (81 + 729 + 6561)^5 = 2.2e19 networks.

    Args:
      size: "published", for 224x224; "tiny", three stages for 32x32; or a `Size`.
      classes: Outputs; by default 1000, and 10 for tiny.
      width: Factor of all channels, 1.0 or 1.2 in the paper's two supernets.
      resolutions: Heights and widths to choose from, to which the stem resizes the
        images; the paper's are 128 to 224 in steps of 4. None: the images as they are.
        Each compiles programs of its own.
      transforms: Whether kernel sizes are joined by learned matrices (the paper does
        so); parameters and multiply-adds then include the matrices, and the published
        counts do not.
      norms: "shared", or "per_width" for one norm for each number of channels.
      impl: Operations, see `oneshot.nn.resolve`.

    Returns:
      The supernet.

    Raises:
      ValueError: If there is no such size.

    Example:
      >>> mobilenet_v3().space.num_paths
      21758655492572485851
    """
    form = _size(size)

    def scaled(channels: int) -> int:
        return make_divisible(channels * width, form.divisor)

    if isinstance(resolutions, int):
        resolutions = (resolutions,)
    stem, sizes = scaled(form.stem), tuple(resolutions or ())
    layers, before = {}, stem
    layers["first"] = lambda rngs: FirstBlock(stem, rngs=rngs, impl=impl)
    for number, stage in enumerate(form.stages, 1):
        after, blocks = scaled(stage.channels), []
        for i in range(max(form.depth)):
            block = MBConvForm(
                kernel=form.kernel,
                expand=form.expand,
                stride=1 if i else stage.stride,
                activation=stage.activation,
                squeeze=stage.squeeze,
                transforms=transforms,
                norms=norms,
                divisor=form.divisor,
            )
            blocks.append(_block(before, after, block, impl))
            before = after
        layers[f"stage{number}"] = Stage(blocks, depth=form.depth)

    def make_stem(rngs):
        return Stem(stem, form.stem_stride, offers, rngs=rngs, impl=impl)

    offers = offered(sizes) if sizes else ()
    hidden = scaled(form.head[0]), scaled(form.head[1])
    outputs = form.classes if classes is None else classes
    return Supernet(
        stem=Elastic(make_stem, resolution=sizes) if offers else make_stem,
        layers=layers,
        head=lambda rngs: Head(
            before, hidden, outputs, form.dropout, rngs=rngs, impl=impl
        ),
    )


def _size(size: str | Size) -> Size:
    if isinstance(size, Size):
        return size
    if size not in SIZES:
        raise ValueError(
            f"There are sizes {', '.join(SIZES)}, but got {size!r}. For another, pass "
            "a `Size`."
        )
    return SIZES[size]


def _block(before: int, after: int, form: MBConvForm, impl: str) -> Elastic:
    def make(rngs):
        return ElasticMBConv(before, after, form, rngs=rngs, impl=impl)

    return Elastic(make, kernel=form.kernel, expand=form.expand)
