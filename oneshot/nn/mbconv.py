"""Once-for-All's mobile block: an inverted residual, elastic in all its dimensions.

Conv 1x1, norm, activation, depthwise convolution, norm, activation, perhaps
squeeze-and-excitation, conv 1x1, norm; plus the input where stride is 1 and the widths
on offer are equal. Howard et al., MobileNetV3, arXiv:1905.02244; Cai et al.,
Once-for-All, ICLR 2020, arXiv:1908.09791.
"""

from __future__ import annotations

import dataclasses

from flax import nnx
from jax import Array, lax

from oneshot.nn.activations import Activation, activate
from oneshot.nn.blocks import inverted_residual
from oneshot.nn.channels import ChannelGroup
from oneshot.nn.conv import he_normal
from oneshot.nn.depthwise import depthwise_conv
from oneshot.nn.divisible import make_divisible
from oneshot.nn.elastic_conv import Sizes
from oneshot.nn.elastic_kernel import ElasticKernel
from oneshot.nn.elastic_norm import ElasticNorm, Norms
from oneshot.nn.fused import norm_conv
from oneshot.nn.norm import BatchNorm
from oneshot.nn.offers import offered, pick
from oneshot.nn.pointwise import pointwise_conv
from oneshot.nn.squeeze import SqueezeExcite


@dataclasses.dataclass(frozen=True)
class MBConvForm:
    """What a mobile block is, but for its channels.

    Attributes:
      kernel: The odd sizes of the depthwise kernel on offer.
      expand: The expansions on offer; hidden channels are `in * expand`, rounded by
        `make_divisible`.
      stride: Of the depthwise convolution.
      activation: "relu" or "hard_swish", after the first two norms.
      squeeze: Whether squeeze-and-excitation follows the second.
      transforms: Whether kernel sizes are joined by learned matrices, see
        `ElasticKernel`.
      norms: "shared", or "per_width" for one norm for each number of channels.
      divisor: What hidden channels are multiples of.
    """

    kernel: tuple[int, ...] = (3, 5, 7)
    expand: tuple[float, ...] = (3, 4, 6)
    stride: int = 1
    activation: Activation = "relu"
    squeeze: bool = False
    transforms: bool = False
    norms: Norms = "shared"
    divisor: int = 8


class ElasticMBConv(nnx.Module):
    """Mobile block whose kernel, expansion and output width a call chooses.

    One set of weights at the largest sizes: a narrower block uses the first channels, a
    smaller kernel the centre of the largest. The input may have any number of channels
    on offer.

    Args:
      in_features: the numbers of input channels on offer.
      out_features: the numbers of output channels on offer.
      form: all else.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.

    Example:
      >>> block = ElasticMBConv(24, 24, MBConvForm(squeeze=True), rngs=nnx.Rngs(0))
      >>> block(jnp.ones((1, 8, 8, 24)), kernel=5, expand=4).shape
      (1, 8, 8, 24)
    """

    def __init__(
        self,
        in_features: Sizes,
        out_features: Sizes,
        form: MBConvForm,
        *,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        inputs, self.widths = offered(in_features), offered(out_features)
        self.form, self.impl = form, impl
        self.kernels, self.expands = offered(form.kernel), offered(form.expand)
        self.shortcut = form.stride == 1 and inputs == self.widths
        hidden = offered([self.hidden(c, e) for c in inputs for e in self.expands])
        relu, norms = form.activation == "relu", form.norms
        self.expand_kernel = nnx.Param(
            he_normal(rngs.params(), (inputs[-1], hidden[-1]))
        )
        self.expand_norm = ElasticNorm(hidden, norms=norms, relu=relu)
        self.depthwise_kernel = ElasticKernel(
            self.kernels,
            (hidden[-1],),
            transforms=form.transforms,
            fan_out=self.kernels[-1] ** 2,
            rngs=rngs,
        )
        self.depthwise_norm = ElasticNorm(hidden, norms=norms, relu=relu)
        self.squeeze = (
            SqueezeExcite(hidden[-1], form.divisor, rngs=rngs) if form.squeeze else None
        )
        self.project_kernel = nnx.Param(
            he_normal(rngs.params(), (hidden[-1], self.widths[-1]))
        )
        self.project_norm = ElasticNorm(self.widths, norms=norms)

    def hidden(self, channels: int, expand: float) -> int:
        """Return the hidden channels for an input of `channels`."""
        return make_divisible(round(channels * expand), self.form.divisor)

    def __call__(
        self, x: Array, *, kernel: int, expand: float, width: int | None = None
    ) -> Array:
        """`[n, height, width, in]` to `[n, ceil(height / stride), ..., out]`.

        Args:
          x: images.
          kernel: one of the kernel sizes on offer.
          expand: one of the expansions on offer.
          width: number of output channels; may be left out where one is on offer.

        Raises:
          ValueError: if one of them is not on offer, or a block with a shortcut is
            asked for another width than its input's.
        """
        expand = pick("expand", expand, self.expands)
        width = pick("width", width, self.widths)
        if self.shortcut and width != x.shape[-1]:
            raise ValueError(
                f"This block adds its input, which has {x.shape[-1]} channels, to its "
                f"output, for which width={width} was asked. Tie the two widths."
            )
        hidden = self.hidden(x.shape[-1], expand)
        taps = self.depthwise_kernel(kernel, (hidden,))
        kernels = (
            lax.slice(self.expand_kernel[...], (0, 0), (x.shape[-1], hidden)),
            taps[None, None] if taps.ndim == 1 else taps,  # of kernel 1
            lax.slice(self.project_kernel[...], (0, 0), (hidden, width)),
        )
        norms = (
            self.expand_norm.at(hidden),
            self.depthwise_norm.at(hidden),
            self.project_norm.at(width),
        )
        if self._is_plain(x, width):
            return inverted_residual(norms, x, kernels, self.form.stride, self.impl)
        y = self._chain(norms, x, kernels)
        return y + x if self.shortcut else y

    def _is_plain(self, x: Array, width: int) -> bool:
        # Of relu alone: there are operations for the whole block.
        size = [-(-s // self.form.stride) for s in x.shape[1:3]]
        adds = (x.shape[0], *size, width) == x.shape
        relu = self.form.activation == "relu"
        return relu and self.squeeze is None and adds == self.shortcut

    def _chain(
        self,
        norms: tuple[BatchNorm, BatchNorm, BatchNorm],
        x: Array,
        kernels: tuple[Array, Array, Array],
    ) -> Array:
        form, impl = self.form, self.impl
        y = pointwise_conv(x, kernels[0], impl=impl)
        if form.activation == "relu":
            y = norms[1](norm_conv(norms[0], y, kernels[1], form.stride, impl))
        else:
            y = activate(form.activation, norms[0](y))
            y = depthwise_conv(y, kernels[1], form.stride, impl)
            y = activate(form.activation, norms[1](y))
        if self.squeeze is not None:
            y = self.squeeze(y)
        return norms[2](pointwise_conv(y, kernels[2], impl=impl))

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Return the hidden channels, and those of squeeze-and-excitation."""
        axes = [
            ("expand_kernel", 1),
            *self.expand_norm.arrays("expand_norm"),
            ("depthwise_kernel.largest", 2 if self.kernels[-1] > 1 else 0),
            *self.depthwise_norm.arrays("depthwise_norm"),
            ("project_kernel", 0),
        ]
        copies = (
            *self.expand_norm.copies("expand_norm"),
            *self.depthwise_norm.copies("depthwise_norm"),
        )
        if self.squeeze is None:
            return (ChannelGroup(("project_kernel", 0), tuple(axes), copies),)
        axes += self.squeeze.outer("squeeze")
        outer = ChannelGroup(("project_kernel", 0), tuple(axes), copies)
        return outer, self.squeeze.inner("squeeze")
