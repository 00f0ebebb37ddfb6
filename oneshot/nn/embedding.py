"""Embeddings of tokens and of patches, of elastic width."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from oneshot.nn.linear import ElasticLinear
from oneshot.nn.slices import check_offer, first_of


class TokenEmbedding(nnx.Module):
    """A row of a table for each token; narrower ones are the row's first features.

    Args:
      vocabulary: number of tokens.
      width: the widths on offer.
      rngs: draws the weights.
    """

    def __init__(
        self, vocabulary: int, width: tuple[int, ...], *, rngs: nnx.Rngs
    ) -> None:
        table = jax.random.normal(rngs.params(), (vocabulary, max(width)))
        self.embedding = nnx.Param(0.02 * table)
        self.width = tuple(width)

    def __call__(self, tokens: Array, *, width: int) -> Array:
        """Integers `[batch, tokens]` to `[batch, tokens, width]`.

        Raises:
          ValueError: if the width is not on offer.
        """
        return self.table(width)[tokens]

    def table(self, width: int) -> Array:
        """The rows' first features, `[vocabulary, width]`."""
        check_offer("width", width, self.width)
        return first_of(self.embedding[...], self.embedding.shape[0], width)


class PatchEmbedding(nnx.Module):
    """Linear map of square patches, a class token before them, and their positions.

    Args:
      patch: side of a patch, in pixels.
      channels: channels of the image.
      grid: rows and columns of patches.
      width: the widths on offer.
      rngs: draws the weights.
    """

    def __init__(
        self,
        patch: int,
        channels: int,
        grid: tuple[int, int],
        width: tuple[int, ...],
        *,
        rngs: nnx.Rngs,
    ) -> None:
        most = max(width)
        self.patches = ElasticLinear(patch * patch * channels, most, rngs=rngs)
        noise = jax.random.normal(rngs.params(), (1 + grid[0] * grid[1], most))
        self.position = nnx.Param(0.02 * noise)
        self.class_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, most)))
        self.patch, self.grid, self.width = patch, grid, tuple(width)

    def __call__(self, x: Array, *, width: int) -> Array:
        """`[n, height, width, channels]` to `[n, 1 + patches, width]`.

        Raises:
          ValueError: if the width is not on offer, or the image has another size.
        """
        check_offer("width", width, self.width)
        (rows, columns), p = self.grid, self.patch
        n, channels = len(x), x.shape[-1]
        if x.shape[1:3] != (rows * p, columns * p):
            raise ValueError(
                f"A grid of {self.grid} patches of {p} pixels covers images of "
                f"{rows * p} by {columns * p}, but got {list(x.shape[1:3])}. Build the "
                "module for the size of the images."
            )
        x = x.reshape(n, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
        y = self.patches(x.reshape(n, rows * columns, p * p * channels), width)
        first = first_of(self.class_token[...], 1, width)[None]
        y = jnp.concatenate([jnp.broadcast_to(first, (n, 1, width)), y], 1)
        position = first_of(self.position[...], self.position.shape[0], width)
        return y + position[None]
