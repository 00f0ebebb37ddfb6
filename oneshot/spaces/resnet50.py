"""Once-for-All's ResNet-50: depth, expansion ratio and width of a ResNet-50D.

Cai et al., Once-for-All: Train One Network and Specialize it for Efficient Deployment,
ICLR 2020, arXiv:1908.09791; this space came later, with the authors' code,
github.com/mit-han-lab/once-for-all (MIT licence), `OFAResNets`, whose channels it has.
The stem of three 3x3 convolutions and the pooled shortcut are ResNet-D's (He et al.,
arXiv:1812.01187).

Largest is depth 2 above the fewest everywhere, the stem's middle convolution, ratio
0.35 and width 1.0; smallest is depth 0, without it, 0.2 and 0.65. With 1,000 classes,
at 224x224, parameters and multiply-adds: 48,105,992 and 7,491.6 M; 6,539,280 and 962.2
M. They equal those of a definition in PyTorch written from the papers' tables (in the
tests); no publication that states them was found. Width 1.0, ratio 0.25 and blocks 3,
4, 6, 3 are ResNet-50D but for the shortcut around the stem's middle convolution, which
has no parameters or multiply-adds. It has 25,576,264 parameters; timm's index of models
lists a file of weights of 102,567,109 bytes for its resnet50d, and 5,591 M operations
at 256x256, where these are 5,653 M multiply-adds: 1.1 % more. We do not know what its
counter leaves out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from oneshot.layers import Elastic, Stage
from oneshot.nn import BottleneckForm, ElasticBottleneck, ElasticConvBN
from oneshot.nn.divisible import make_divisible
from oneshot.nn.elastic_norm import Norms
from oneshot.nn.offers import offered
from oneshot.space import Choice
from oneshot.supernet import Supernet


@dataclasses.dataclass(frozen=True)
class Size:
    """What a supernet consists of.

    Attributes:
      stem: Channels at the stem's end; half as many before.
      stem_stride: Of the stem's first convolution.
      pool: Whether the stem ends in max pooling, which halves the image.
      channels: Of each stage; all but the first halve the image.
      blocks: Fewest blocks of each stage.
      depth: Options for how many blocks a stage has above its fewest.
      expand: Options of each block.
      width: Factors of channels to choose from, for the stem and for each stage.
      classes: Outputs, unless said otherwise.
      divisor: What channels are multiples of.
    """

    stem: int
    stem_stride: int
    pool: bool
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    depth: tuple[int, ...]
    expand: tuple[float, ...]
    width: tuple[float, ...]
    classes: int
    divisor: int = 8

    def widths(self, channels: int) -> tuple[int, ...]:
        """Return the numbers of channels to choose from."""
        return offered([make_divisible(channels * w, self.divisor) for w in self.width])


SIZES = {
    "tiny": Size(
        stem=32,
        stem_stride=1,
        pool=False,
        channels=(64, 128, 192),
        blocks=(1, 1, 1),
        depth=(0, 1),
        expand=(0.25, 0.5),
        width=(0.65, 1.0),
        classes=10,
    ),
    "published": Size(
        stem=64,
        stem_stride=2,
        pool=True,
        channels=(256, 512, 1024, 2048),
        blocks=(2, 2, 4, 2),
        depth=(0, 1, 2),
        expand=(0.2, 0.25, 0.35),
        width=(0.65, 0.8, 1.0),
        classes=1000,
    ),
}


class StemResidual(nnx.Module):
    """The stem's middle convolution, 3x3 with norm and ReLU, plus its input."""

    def __init__(
        self,
        features: tuple[int, ...],
        norms: Norms = "shared",
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        self.conv = ElasticConvBN(
            features, features, 3, norms=norms, rngs=rngs, impl=impl
        )

    def __call__(self, x: Array) -> Array:
        """[n, height, width, features] to the same, whatever of them come."""
        return x + self.conv(x, width=x.shape[-1])


class StemEnd(nnx.Module):
    """The stem's last convolution, 3x3 with norm and ReLU, and max pooling."""

    def __init__(
        self,
        in_features: tuple[int, ...],
        out_features: tuple[int, ...],
        pool: bool,
        norms: Norms = "shared",
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        self.conv = ElasticConvBN(
            in_features, out_features, 3, norms=norms, rngs=rngs, impl=impl
        )
        self.pool = pool

    def __call__(self, x: Array, *, width: int) -> Array:
        """[n, height, width, in] to [n, ceil(height / 2), ..., out] with pooling."""
        y = self.conv(x, width=width)
        if not self.pool:
            return y
        around: Any = ((1, 1), (1, 1))  # its annotation says str
        return nnx.max_pool(y, window_shape=(3, 3), strides=(2, 2), padding=around)


class Head(nnx.Module):
    """Global average pool, and a linear layer of as many inputs as come."""

    def __init__(self, features: int, classes: int, *, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """[n, height, width, features] to [n, classes]."""
        whole, classes = self.linear.kernel[...], self.linear.out_features
        rows = lax.slice(whole, (0, 0), (x.shape[-1], classes))
        bias = self.linear.bias
        assert bias is not None
        return jnp.mean(x, axis=(1, 2)) @ rows + bias[...][None]


def resnet50(
    size: str | Size = "published",
    *,
    classes: int | None = None,
    norms: Norms = "shared",
    impl: str = "auto",
) -> Supernet:
    """Build Once-for-All's elastic ResNet-50 for images [n, height, width, 3].

    Choices: `stem.width` and `end.width`, channels of the stem's first part and of its
    end; `residual.depth`, 1 with the stem's middle convolution and 0 without; for each
    stage its `width`, shared by its blocks, and its `depth` in blocks (the paper counts
    from the fewest: its 0, 1, 2 are 2, 3, 4 blocks, in the third stage 4, 5, 6); for
    each block `expand`, its hidden channels as a share of its output's.

    Args:
      size: "published", for 224x224; "tiny", three stages for 32x32; or a `Size`.
      classes: Outputs; by default 1000, and 10 for tiny.
      norms: "shared", or "per_width" for one norm for each number of channels.
      impl: Operations, see `oneshot.nn.resolve`.

    Returns:
      The supernet.

    Raises:
      ValueError: If there is no such size.

    Example:
      >>> resnet50().space.num_paths
      1639276531308
    """
    form = _size(size)
    end = form.widths(form.stem)
    middle = offered([make_divisible(c // 2, form.divisor) for c in end])

    def make_stem(rngs):
        stride = form.stem_stride
        return ElasticConvBN(3, middle, 3, stride, norms=norms, rngs=rngs, impl=impl)

    def make_residual(rngs):
        return StemResidual(middle, norms, rngs=rngs, impl=impl)

    def make_end(rngs):
        return StemEnd(middle, end, form.pool, norms, rngs=rngs, impl=impl)

    layers: dict[str, Stage | Elastic] = {
        "residual": Stage([make_residual], depth=(0, 1)),
        "end": Elastic(make_end, width=end),
    }
    before = end
    for number, channels in enumerate(form.channels, 1):
        name, after = f"stage{number}", form.widths(channels)
        strides = [1 if number == 1 else 2] + [1] * (_blocks(form, number) - 1)
        width = Choice(f"{name}.width", after)
        blocks = []
        for stride in strides:
            kind = BottleneckForm(form.expand, stride, norms, form.divisor)
            blocks.append(_block(before, width, kind, impl))
            before = after
        fewest = form.blocks[number - 1]
        layers[name] = Stage(blocks, depth=tuple(fewest + d for d in form.depth))
    outputs = form.classes if classes is None else classes
    return Supernet(
        stem=Elastic(make_stem, width=middle),
        layers=layers,
        head=lambda rngs: Head(before[-1], outputs, rngs=rngs),
    )


def _blocks(form: Size, number: int) -> int:
    return form.blocks[number - 1] + max(form.depth)


def _size(size: str | Size) -> Size:
    if isinstance(size, Size):
        return size
    if size not in SIZES:
        raise ValueError(
            f"There are sizes {', '.join(SIZES)}, but got {size!r}. For another, pass "
            "a `Size`."
        )
    return SIZES[size]


def _block(
    before: tuple[int, ...], width: Choice, form: BottleneckForm, impl: str
) -> Elastic:
    def make(rngs):
        return ElasticBottleneck(before, width.options, form, rngs=rngs, impl=impl)

    return Elastic(make, expand=form.expand, width=width)
