"""A pre-norm Transformer block with elastic heads and hidden width."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from oneshot.nn.attention import attention
from oneshot.nn.dense import gelu_dense, layer_norm

_init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class ElasticTransformerBlock(nnx.Module):
    """Attention and a GELU network of two layers, each behind a LayerNorm.

    One set of weights at the largest sizes; fewer heads or a narrower hidden layer
    use the first of them.

    Args:
      width: features of the input and the output.
      heads: the numbers of heads on offer.
      mlp: the hidden widths on offer, as multiples of `width`.
      head_size: features of one head.
      causal: whether a token sees only itself and those before.
      dropout: probability of zeroing an element of either branch's result, 0 to 1.
      rngs: `params` draws the weights, `dropout` the masks.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: tuple[int, ...],
        mlp: tuple[float, ...],
        head_size: int,
        causal: bool = True,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        inner, hidden = max(heads) * head_size, int(width * max(mlp))

        def param(rows: int, columns: int) -> nnx.Param:
            return nnx.Param(_init(rngs.params(), (rows, columns)))

        self.attention_scale = nnx.Param(jnp.ones((width,)))
        self.attention_bias = nnx.Param(jnp.zeros((width,)))
        self.query = param(width, inner)
        self.key = param(width, inner)
        self.value = param(width, inner)
        self.attention_out = param(inner, width)
        self.mlp_scale = nnx.Param(jnp.ones((width,)))
        self.mlp_bias = nnx.Param(jnp.zeros((width,)))
        self.up = param(width, hidden)
        self.up_bias = nnx.Param(jnp.zeros((hidden,)))
        self.down = param(hidden, width)
        self.down_bias = nnx.Param(jnp.zeros((width,)))
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout > 0 else None
        self.width = width
        self.heads = tuple(heads)
        self.mlps = tuple(mlp)
        self.head_size = head_size
        self.causal = causal

    def __call__(self, x: Array, *, heads: int, mlp: float) -> Array:
        """`[batch, tokens, width]` to the same.

        Args:
          x: token features.
          heads: one of the numbers of heads on offer, a plain int.
          mlp: one of the multiples on offer, a plain number.

        Raises:
          ValueError: if either is not on offer.
        """
        if heads not in self.heads or mlp not in self.mlps:
            raise ValueError(
                f"This block offers heads in {self.heads} and mlp in {self.mlps}, "
                f"but was called with heads={heads!r} and mlp={mlp!r}."
            )
        # Tokens as rows of one matrix: XLA:CPU is fastest at two-axis products.
        rows = x.reshape(-1, self.width)
        rows = rows + self._drop(self._attend(rows, x.shape, heads))
        rows = rows + self._drop(self._mlp(rows, int(self.width * mlp)))
        return rows.reshape(x.shape)

    def _attend(self, rows: Array, shape: tuple[int, ...], heads: int) -> Array:
        inner = heads * self.head_size
        y: Array = layer_norm(rows, self.attention_scale[...], self.attention_bias[...])
        q, k, v = (
            (y @ _columns(w, inner)).reshape(*shape[:2], heads, self.head_size)
            for w in (self.query, self.key, self.value)
        )
        y = attention(q, k, v, self.causal)
        return y.reshape(-1, inner) @ _rows(self.attention_out, inner)

    def _mlp(self, rows: Array, hidden: int) -> Array:
        y: Array = layer_norm(rows, self.mlp_scale[...], self.mlp_bias[...])
        up_bias = lax.slice(self.up_bias[...], (0,), (hidden,))
        y = y @ _columns(self.up, hidden) + up_bias[None]
        return gelu_dense(y, _rows(self.down, hidden)) + self.down_bias[None]

    def _drop(self, y: Array) -> Array:
        return y if self.dropout is None else self.dropout(y)


def _columns(w: nnx.Param, count: int) -> Array:
    return lax.slice(w[...], (0, 0), (w.shape[0], count))


def _rows(w: nnx.Param, count: int) -> Array:
    return lax.slice(w[...], (0, 0), (count, w.shape[1]))
