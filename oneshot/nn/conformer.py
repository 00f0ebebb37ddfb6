"""The Conformer's block with elastic heads, hidden width and kernel.

Gulati et al. 2020, Conformer, arXiv:2005.08100: half a feed-forward network, attention,
a convolution over time, the other half, and a LayerNorm.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from oneshot.nn.dense import layer_norm
from oneshot.nn.norm import BatchNorm
from oneshot.nn.temporal import depthwise_conv1d

_init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class Affine(nnx.Module):
    """Scale and bias of a LayerNorm over rows."""

    def __init__(self, features: int, *, rngs: nnx.Rngs) -> None:
        del rngs
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))

    def __call__(self, rows: Array) -> Array:
        """`[rows, features]` to the same."""
        return layer_norm(rows, self.scale[...], self.bias[...])


class FeedForward(nnx.Module):
    """LayerNorm, linear, swish, linear; the hidden layer's first units are used."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.norm = Affine(width, rngs=rngs)
        self.up = nnx.Param(_init(rngs.params(), (width, hidden)))
        self.up_bias = nnx.Param(jnp.zeros((hidden,)))
        self.down = nnx.Param(_init(rngs.params(), (hidden, width)))
        self.down_bias = nnx.Param(jnp.zeros((width,)))

    def __call__(self, rows: Array, hidden: int) -> Array:
        """`[rows, width]` to the same, by `hidden` units."""
        y = self.norm(rows) @ _columns(self.up, hidden)
        y = jax.nn.silu(y + _first(self.up_bias, hidden)[None])
        return y @ _rows(self.down, hidden) + self.down_bias[...][None]


class RelativeAttention(nnx.Module):
    """LayerNorm and self-attention with a learnt bias for each head and distance.

    The paper's encoding of distances is Transformer-XL's (Dai et al. 2019,
    arXiv:1901.02860), a function of sinusoids; a table of biases, as T5 has (Raffel et
    al. 2020, arXiv:1910.10683), costs no products and is as free of absolute positions.

    Args:
      width: features of the input and the output.
      heads: the largest number of heads.
      head_size: features of one head.
      reach: distances from this on share a bias.
      rngs: draws the weights.
    """

    def __init__(
        self, width: int, heads: int, head_size: int, reach: int, *, rngs: nnx.Rngs
    ) -> None:
        inner = heads * head_size
        self.norm = Affine(width, rngs=rngs)
        self.query = nnx.Param(_init(rngs.params(), (width, inner)))
        self.key = nnx.Param(_init(rngs.params(), (width, inner)))
        self.value = nnx.Param(_init(rngs.params(), (width, inner)))
        self.out = nnx.Param(_init(rngs.params(), (inner, width)))
        self.distance_bias = nnx.Param(jnp.zeros((heads, 2 * reach + 1)))
        self.head_size, self.reach = head_size, reach

    def __call__(self, rows: Array, n: int, heads: int) -> Array:
        """`[n * time, width]` to the same, by `heads` heads."""
        inner, time = heads * self.head_size, len(rows) // n
        y = self.norm(rows)
        q, k, v = (
            (y @ _columns(w, inner)).reshape(n, time, heads, self.head_size)
            for w in (self.query, self.key, self.value)
        )
        logits_NxHxLxM = jnp.einsum("nlhd,nmhd->nhlm", q * self.head_size**-0.5, k)
        logits_NxHxLxM = logits_NxHxLxM + self._bias(heads, time)[None]
        probs = jax.nn.softmax(logits_NxHxLxM.astype(jnp.float32)).astype(v.dtype)
        y = jnp.einsum("nhlm,nmhd->nlhd", probs, v).reshape(-1, inner)
        return y @ _rows(self.out, inner)

    def _bias(self, heads: int, time: int) -> Array:
        places = np.arange(time)
        distance = np.clip(places[None] - places[:, None], -self.reach, self.reach)
        table = _rows(self.distance_bias, heads)
        return jnp.take(table, jnp.asarray(distance + self.reach), axis=1)


class ConvModule(nnx.Module):
    """LayerNorm, gated linear unit, depthwise over time, BatchNorm, swish, linear."""

    def __init__(self, width: int, kernel: int, *, rngs: nnx.Rngs, impl: str) -> None:
        self.norm = Affine(width, rngs=rngs)
        self.gated = nnx.Param(_init(rngs.params(), (width, 2 * width)))
        self.depthwise = nnx.Param(
            jax.random.normal(rngs.params(), (kernel, width)) / kernel**0.5
        )
        self.batch_norm = BatchNorm(width)
        self.out = nnx.Param(_init(rngs.params(), (width, width)))
        self.impl = impl

    def __call__(self, rows: Array, n: int, kernel: int) -> Array:
        """`[n * time, width]` to the same, by the middle `kernel` taps."""
        width = rows.shape[-1]
        value, gate = jnp.split(self.norm(rows) @ self.gated[...], 2, axis=-1)
        y = (value * jax.nn.sigmoid(gate)).reshape(n, -1, width)
        first = (self.depthwise.shape[0] - kernel) // 2
        taps = lax.slice(self.depthwise[...], (first, 0), (first + kernel, width))
        y = depthwise_conv1d(y, taps, self.impl).reshape(-1, width)
        return jax.nn.silu(self.batch_norm(y)) @ self.out[...]


class ElasticConformerBlock(nnx.Module):
    """One block of a Conformer; its parts are chosen at each call.

    One set of weights at the largest sizes; fewer heads or hidden units are the first
    of them, a smaller kernel is the middle of the largest.

    Args:
      width: features of the input and the output.
      expand: the hidden widths of either feed-forward network on offer, as multiples of
        `width`.
      heads: the numbers of heads on offer.
      kernel: the odd kernel sizes of the convolution on offer.
      head_size: features of one head.
      reach: distances from this on share a bias in attention, in steps.
      rngs: draws the weights.
      impl: see `oneshot.nn.backend.resolve`.
    """

    def __init__(
        self,
        width: int,
        *,
        expand: tuple[int, ...],
        heads: tuple[int, ...],
        kernel: tuple[int, ...],
        head_size: int,
        reach: int = 32,
        rngs: nnx.Rngs,
        impl: str = "auto",
    ) -> None:
        if any(k % 2 == 0 for k in kernel):
            raise ValueError(f"Kernels over time have odd sizes, but got {kernel}.")
        hidden = width * max(expand)
        self.before = FeedForward(width, hidden, rngs=rngs)
        self.attention = RelativeAttention(
            width, max(heads), head_size, reach, rngs=rngs
        )
        self.conv = ConvModule(width, max(kernel), rngs=rngs, impl=impl)
        self.after = FeedForward(width, hidden, rngs=rngs)
        self.norm = Affine(width, rngs=rngs)
        self.expands, self.heads = tuple(expand), tuple(heads)
        self.kernels = tuple(kernel)

    def __call__(self, x: Array, *, expand: int, heads: int, kernel: int) -> Array:
        """`[n, time, width]` to the same.

        Args:
          x: sequences of features.
          expand: one of the multiples on offer, a plain int.
          heads: one of the numbers of heads on offer, a plain int.
          kernel: one of the kernel sizes on offer, a plain int.

        Raises:
          ValueError: if any is not on offer.
        """
        offered = (
            ("expand", expand, self.expands),
            ("heads", heads, self.heads),
            ("kernel", kernel, self.kernels),
        )
        for name, value, options in offered:
            if value not in options:
                raise ValueError(
                    f"This block offers {name} in {options}, but was called with "
                    f"{name}={value!r}."
                )
        n, width = len(x), x.shape[-1]
        rows = x.reshape(-1, width)  # XLA:CPU is fastest at two-axis products
        rows = rows + 0.5 * self.before(rows, width * expand)
        rows = rows + self.attention(rows, n, heads)
        rows = rows + self.conv(rows, n, kernel)
        rows = rows + 0.5 * self.after(rows, width * expand)
        return self.norm(rows).reshape(x.shape)


def _columns(w: nnx.Param, count: int) -> Array:
    return lax.slice(w[...], (0, 0), (w.shape[0], count))


def _rows(w: nnx.Param, count: int) -> Array:
    return lax.slice(w[...], (0, 0), (count, w.shape[1]))


def _first(w: nnx.Param, count: int) -> Array:
    return lax.slice(w[...], (0,), (count,))
