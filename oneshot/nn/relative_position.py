"""Attention among the patches of an image, with two-dimensional relative position.

Shaw et al., Self-Attention with Relative Position Representations, arXiv:1803.02155:
embeddings of clipped distances, added to keys and values; in two dimensions in Chen et
al., AutoFormer, arXiv:2107.00651.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from oneshot.nn.attention import attention
from oneshot.nn.heads import HeadMerge, HeadProjection
from oneshot.nn.slices import check_offer, first_of


class RelativePosition(nnx.Module):
    """An embedding for each pair of tokens, by their vertical and horizontal distance.

    The first token, the class, is at no place: its pairs have an entry of their own.

    Args:
      size: the largest number of features.
      distance: larger distances count as this one, in patches.
      rngs: draws the weights.
    """

    def __init__(self, size: int, distance: int = 14, *, rngs: nnx.Rngs) -> None:
        def table():
            return nnx.Param(
                0.02 * jax.random.normal(rngs.params(), (2 * distance + 2, size))
            )

        self.vertical, self.horizontal = table(), table()
        self.distance = distance

    def __call__(self, grid: tuple[int, int], size: int) -> Array:
        """The embeddings `[1 + patches, 1 + patches, size]` of a grid of patches."""
        (rows, columns), tables = grid, (self.vertical[...], self.horizontal[...])
        own = [first_of(table, len(table), size) for table in tables]
        down, across = (
            _distances(table, length, self.distance)
            for table, length in zip(own, grid, strict=True)
        )
        pairs = down[:, None, :, None] + across[None, :, None, :]
        pairs = pairs.reshape(rows * columns, rows * columns, size)
        lone = (first_of(own[0], 1, size) + first_of(own[1], 1, size))[None]
        side = jnp.broadcast_to(lone, (rows * columns, 1, size))
        top = jnp.broadcast_to(lone, (1, 1 + rows * columns, size))
        return jnp.concatenate([top, jnp.concatenate([side, pairs], 1)], 0)


def _distances(table: Array, length: int, most: int) -> Array:
    """The entry for each distance between two of `length` places in a line."""
    places = np.arange(length)
    apart = np.clip(places[None] - places[:, None], -most, most)
    # A product, since the gradient of a lookup is slow on CPU and adds up in any order
    # on GPU. The table's first row is the class token's.
    which = jax.nn.one_hot(apart.reshape(-1) + most + 1, len(table), dtype=table.dtype)
    return (which @ table).reshape(length, length, -1)


def relative_attention(
    q: Array, k: Array, v: Array, on_keys: Array, on_values: Array
) -> Array:
    """Softmax attention among all tokens, with embeddings of pairs.

    Args:
      q: queries, `[batch, tokens, heads, head_size]`; likewise keys and values.
      k: keys.
      v: values.
      on_keys: added to the key that a query meets, `[tokens, tokens, head_size]`.
      on_values: added to the value that it takes, in the same shape.

    Returns:
      `[batch, tokens, heads, head_size]`.
    """
    q = q * q.shape[-1] ** -0.5
    logits = jnp.einsum("blhd,bmhd->bhlm", q, k)
    logits = logits + jnp.einsum("blhd,lmd->bhlm", q, on_keys)
    probs = jax.nn.softmax(logits.astype(jnp.float32)).astype(q.dtype)
    y = jnp.einsum("bhlm,bmhd->blhd", probs, v)
    return y + jnp.einsum("bhlm,lmd->blhd", probs, on_values)


class ImageAttention(nnx.Module):
    """Self-attention among a class token and the patches of an image.

    One set of weights at the largest sizes; fewer heads, or smaller ones, are the
    first.

    Args:
      width: the largest number of features of the input and the output.
      heads: the numbers of heads on offer.
      head_size: the sizes of a head on offer.
      grid: rows and columns of patches.
      distance: the largest distance that is told apart; None for no relative position.
      rngs: draws the weights.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: tuple[int, ...],
        head_size: tuple[int, ...] = (64,),
        grid: tuple[int, int],
        distance: int | None = 14,
        rngs: nnx.Rngs,
    ) -> None:
        most, size = max(heads), max(head_size)
        self.q_proj, self.k_proj, self.v_proj = (
            HeadProjection(width, most, size, bias=True, rngs=rngs) for _ in range(3)
        )
        self.o_proj = HeadMerge(most, size, width, bias=True, rngs=rngs)

        def relative():
            if distance is None:
                return None
            return RelativePosition(size, distance, rngs=rngs)

        self.on_keys, self.on_values = relative(), relative()
        self.heads, self.head_size = tuple(heads), tuple(head_size)
        self.grid = grid

    def __call__(self, x: Array, *, heads: int, head_size: int | None = None) -> Array:
        """`[batch, 1 + patches, width]` to the same.

        Raises:
          ValueError: if an option is not on offer.
        """
        size = self.head_size[0] if head_size is None else head_size
        check_offer("heads", heads, self.heads)
        check_offer("head_size", size, self.head_size)
        q, k, v = (p(x, heads, size) for p in (self.q_proj, self.k_proj, self.v_proj))
        if self.on_keys is None or self.on_values is None:
            y = attention(q, k, v, causal=False)
        else:
            pairs = (t(self.grid, size) for t in (self.on_keys, self.on_values))
            y = relative_attention(q, k, v, *pairs)
        return self.o_proj(y, x.shape[-1])
