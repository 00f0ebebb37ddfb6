"""Keywords and digit strings from log-mel features: a small CNN and a Conformer.

The CNN is Zhang et al. 2017, Hello Edge, arXiv:1711.07128: a convolution and
depthwise-separable ones, all of one width. The Conformer is Gulati et al. 2020,
arXiv:2005.08100. Either ends in classes, one for the recording, or in logits for CTC,
one row for four frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from oneshot.layers import Elastic, Stage
from oneshot.nn import ConvBN
from oneshot.nn.conformer import ElasticConformerBlock
from oneshot.nn.separable import ElasticConvBN, ElasticSeparable
from oneshot.space import Choice
from oneshot.spaces.sizes import replaced
from oneshot.supernet import Supernet

Output = Literal["classes", "ctc"]


@dataclasses.dataclass(frozen=True)
class DsCnn:
    """Sizes of the depthwise-separable CNN.

    Attributes:
      width: Channels on offer, of all layers alike.
      kernel: Odd depthwise kernels on offer, for each block.
      depth: Numbers of blocks on offer, for each of the two stages.
    """

    width: tuple[int, ...] = (24, 36, 48)
    kernel: tuple[int, ...] = (3, 5)
    depth: tuple[int, ...] = (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Conformer:
    """Sizes of the Conformer.

    Attributes:
      width: Features of every step.
      head_size: Features of one attention head.
      expand: Multiples of the width on offer, for the feed-forward networks.
      heads: Numbers of heads on offer.
      kernel: Odd kernels over time on offer, in steps of four frames.
      depth: Numbers of blocks on offer.
    """

    width: int = 64
    head_size: int = 16
    expand: tuple[int, ...] = (1, 2)
    heads: tuple[int, ...] = (2, 4)
    kernel: tuple[int, ...] = (3, 7)
    depth: tuple[int, ...] = (1, 2, 3)


# Beyond "tiny", the largest widths, depths and heads are those of the papers' models of
# such names; kernels, strides and shortcuts are not. The CNN's are 64, 172 and 276
# channels and 4, 4 and 5 blocks (its authors' train_commands.txt,
# ARM-software/ML-KWS-for-MCU; "large" has up to 6 blocks here, to keep two equal
# stages), the Conformer's 16, 16 and 17 blocks of 144, 256 and 512 features with 4, 4
# and 8 heads (Table 1 of its paper; the kernel of 32 is 31 here, so that it has a
# middle).
SIZES: Mapping[str, Mapping[str, Any]] = {
    "dscnn": {
        "tiny": DsCnn(),
        "small": DsCnn((32, 48, 64), (3, 5), (1, 2)),
        "medium": DsCnn((88, 128, 172), (3, 5), (1, 2)),
        "large": DsCnn((140, 208, 276), (3, 5), (1, 2, 3)),
    },
    "conformer": {
        "tiny": Conformer(),
        "small": Conformer(144, 36, (2, 4), (2, 4), (15, 31), (8, 12, 16)),
        "medium": Conformer(256, 64, (2, 4), (2, 4), (15, 31), (8, 12, 16)),
        "large": Conformer(512, 64, (2, 4), (4, 8), (15, 31), (9, 13, 17)),
    },
}


class ElasticStem(nnx.Module):
    """Features as an image of one channel, and a strided convolution of it."""

    def __init__(self, width: tuple[int, ...], *, rngs: nnx.Rngs, impl: str) -> None:
        self.conv = ElasticConvBN(1, width, 3, 2, rngs=rngs, impl=impl)

    def __call__(self, x: Array, *, width: int) -> Array:
        """`[n, time, mels]` to `[n, ceil(time / 2), ceil(mels / 2), width]`."""
        return self.conv(_image(x), width=width)


class Subsampling(nnx.Module):
    """Two strided convolutions, and a linear layer over what is left of the mels."""

    def __init__(self, mels: int, width: int, *, rngs: nnx.Rngs, impl: str) -> None:
        channels = max(8, width // 4)
        self.first = ConvBN(1, channels, 3, 2, rngs=rngs, impl=impl)
        self.second = ConvBN(channels, channels, 3, 2, rngs=rngs, impl=impl)
        self.linear = nnx.Linear(-(-mels // 4) * channels, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """`[n, time, mels]` to `[n, ceil(time / 4), width]`."""
        y = self.second(self.first(_image(x)))
        if y.shape[2] * y.shape[3] != self.linear.kernel.shape[0]:
            _refuse(y.shape[2], self.linear.kernel.shape[0] // y.shape[3])
        return self.linear(y.reshape(*y.shape[:2], -1))


class SpeechHead(nnx.Module):
    """Linear over features and what is left of the mels, of each step or of their mean.

    The CNN's paper averages over mels, too; but what a sound is depends on which they
    are. A narrower input uses the first rows.

    Args:
      mels: Bands that are left, 1 if the input has no such axis.
      features: The largest width of the input.
      outputs: Logits.
      steps: Whether each step has logits of its own.
      rngs: Draws the weights.
    """

    def __init__(
        self, mels: int, features: int, outputs: int, steps: bool, *, rngs: nnx.Rngs
    ) -> None:
        draw = jax.random.normal(rngs.params(), (mels, features, outputs))
        self.kernel = nnx.Param(draw / (mels * features) ** 0.5)
        self.bias = nnx.Param(jnp.zeros((outputs,)))
        self.steps = steps

    def __call__(self, x: Array) -> Array:
        """`[n, time, (mels,) features]` to `[n, outputs]` or `[n, time, outputs]`."""
        mels, _, outputs = self.kernel.shape
        bands = x.shape[2] if x.ndim == 4 else 1
        if bands != mels:
            _refuse(bands, mels)
        if not self.steps:
            x = jnp.mean(x, axis=1, keepdims=True)
        kernel = lax.slice(self.kernel[...], (0, 0, 0), (mels, x.shape[-1], outputs))
        rows = x.reshape(x.shape[0] * x.shape[1], -1)
        y = rows @ kernel.reshape(-1, outputs) + self.bias[...][None]
        return y.reshape(*x.shape[:2], outputs) if self.steps else y


def speech(
    *,
    model: Literal["dscnn", "conformer"] = "dscnn",
    size: str | Mapping[str, Any] = "tiny",
    classes: int = 10,
    mels: int = 32,
    output: Output = "classes",
    impl: str = "auto",
) -> Supernet:
    """Build a supernet for log-mel features [n, time, mels] (or [n, time, mels, 1]).

    Time is divided by 4 in all. The CNN has a choice of one width for all layers, and
    of a kernel for each block and a depth for each of two stages. The Conformer has
    choices of expansion, heads and kernel for each block, and one depth.

    Args:
      model: "dscnn" or "conformer".
      size: "tiny", seconds on a CPU; "small", "medium" or "large", whose largest
        widths, depths and heads are those of the papers' models of such names (kernels,
        strides and shortcuts are not); or a mapping of fields of `DsCnn` or `Conformer`
        that differ from "tiny".
      classes: Outputs, or tokens of a sequence.
      mels: Features a frame.
      output: "classes" for logits [n, classes]; "ctc" for [n, ceil(time / 4),
        classes + 1], the last the blank's, as `oneshot.ctc` takes them.
      impl: Operations, see `oneshot.nn.resolve`.

    Raises:
      ValueError: If model, size or output is not one of those.

    Example:
      >>> speech(model="conformer", size={"width": 32}).space.num_paths
      584
    """
    sizes = _sizes(model, size)
    if output not in ("classes", "ctc"):
        raise ValueError(f"`output` is 'classes' or 'ctc', but got {output!r}.")
    build = _dscnn if model == "dscnn" else _conformer
    stem, layers, ends = build(sizes, mels, impl)
    outputs, steps = (classes + 1, True) if output == "ctc" else (classes, False)

    def head(rngs: nnx.Rngs) -> nnx.Module:
        return SpeechHead(*ends, outputs, steps, rngs=rngs)

    return Supernet(stem, layers, head)


def _sizes(model: str, size: str | Mapping[str, Any]) -> Any:
    if model not in SIZES:
        raise ValueError(f"`model` is one of {sorted(SIZES)}, but got {model!r}.")
    known = SIZES[model]
    if isinstance(size, str):
        if size not in known:
            raise ValueError(
                f"`size` of {model!r} is one of {sorted(known)}, or a mapping of "
                f"fields, but got {size!r}."
            )
        return known[size]
    fields = {field.name for field in dataclasses.fields(known["tiny"])}
    if unknown := sorted(set(size) - fields):
        raise ValueError(
            f"`size` of {model!r} has the fields {sorted(fields)}, but got {unknown}."
        )
    return replaced(known["tiny"], size)


_Parts = tuple[Any, dict[str, Any], tuple[int, int]]  # the last: mels left, features


def _dscnn(sizes: DsCnn, mels: int, impl: str) -> _Parts:
    width = Choice("width", tuple(sizes.width))
    widths, kernel = tuple(sizes.width), tuple(sizes.kernel)

    def stem(rngs: nnx.Rngs) -> nnx.Module:
        return ElasticStem(widths, rngs=rngs, impl=impl)

    def block(stride: int) -> Elastic:
        def make(rngs: nnx.Rngs) -> nnx.Module:
            return ElasticSeparable(
                width=widths, kernel=kernel, stride=stride, rngs=rngs, impl=impl
            )

        return Elastic(make, width=width, kernel=kernel)

    more = [block(1) for _ in range(max(sizes.depth) - 1)]
    layers = {
        "stage1": Stage([block(1), *more], depth=sizes.depth),
        "stage2": Stage([block(2), *more], depth=sizes.depth),
    }
    return Elastic(stem, width=width), layers, (-(-mels // 4), max(widths))


def _conformer(sizes: Conformer, mels: int, impl: str) -> _Parts:
    options: dict[str, Any] = {
        key: tuple(getattr(sizes, key)) for key in ("expand", "heads", "kernel")
    }

    def stem(rngs: nnx.Rngs) -> nnx.Module:
        return Subsampling(mels, sizes.width, rngs=rngs, impl=impl)

    def make(rngs: nnx.Rngs) -> nnx.Module:
        return ElasticConformerBlock(
            sizes.width, **options, head_size=sizes.head_size, rngs=rngs, impl=impl
        )

    blocks = [Elastic(make, **options)] * max(sizes.depth)
    return stem, {"blocks": Stage(blocks, depth=sizes.depth)}, (1, sizes.width)


def _refuse(bands: int, built: int) -> None:
    raise ValueError(
        f"This network was built for features of which {built} bands are left after "
        f"the strides, but got {bands}. Give `speech` the features' own `mels`."
    )


def _image(x: Array) -> Array:
    if x.ndim == 4 and x.shape[-1] == 1:
        return x
    if x.ndim != 3:
        raise ValueError(
            "A speech network takes log-mel features [n, time, mels], but got "
            f"{list(x.shape)}."
        )
    return x[..., None]
