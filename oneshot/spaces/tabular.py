"""An elastic network for tables of numbers and categories.

The blocks are the residual ones of Gorishniy et al. 2021, Revisiting Deep Learning
Models for Tabular Data, arXiv:2106.11959: norm, linear, ReLU, dropout, linear, and the
input (theirs has a second dropout before the sum); without residuals it is a chain of
the same blocks. Each category has an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from oneshot.layers import Elastic, Stage
from oneshot.nn import BatchNorm
from oneshot.supernet import Supernet

_ADULT = (6, (9, 16, 7, 15, 6, 5, 2, 42, *[32] * 6))
_init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class ElasticColumns(nnx.Module):
    """Embeddings of the categories beside the numbers, and a linear layer over all.

    One table holds the rows of all columns' categories; a narrower embedding uses the
    first numbers of each.

    Args:
      numeric: number of numeric columns, which come first.
      categories: how many codes each further column has.
      features: width of the output.
      embed: the widths of the embeddings on offer.
      rngs: draws the weights.
    """

    def __init__(
        self,
        numeric: int,
        categories: tuple[int, ...],
        features: int,
        *,
        embed: tuple[int, ...],
        rngs: nnx.Rngs,
    ) -> None:
        rows, width, columns = sum(categories), max(embed), len(categories)
        inputs = numeric + columns * width
        draw = jax.random.normal
        self.numbers = nnx.Param(draw(rngs.params(), (numeric, features)) / inputs**0.5)
        self.table = nnx.Param(draw(rngs.params(), (rows, width)))
        self.linear = nnx.Param(
            draw(rngs.params(), (columns, width, features)) / inputs**0.5
        )
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.numeric, self.categories = numeric, tuple(categories)
        self.embeds = tuple(embed)

    def __call__(self, x: Array, *, embed: int) -> Array:
        """`[n, columns]` to `[n, features]`.

        Args:
          x: numbers, then codes in 0 to categories - 1, in floating point; a code that
            is out of range turns the row to NaN, since it would be another column's.
          embed: one of the widths on offer, a plain int.

        Raises:
          ValueError: if the width is not on offer, or there are other columns.
        """
        columns, features = self.numeric + len(self.categories), self.bias.shape[0]
        if embed not in self.embeds or x.ndim != 2 or x.shape[1] != columns:
            raise ValueError(
                f"This layer offers embed in {self.embeds} and takes [n, {columns}], "
                f"{self.numeric} numbers and {len(self.categories)} codes a row, but "
                f"was called with embed={embed!r} and {list(x.shape)}."
            )
        y = x[:, : self.numeric] @ self.numbers[...] + self.bias[...][None]
        if not self.categories:
            return y
        table = lax.slice(self.table[...], (0, 0), (self.table.shape[0], embed))
        embedded = table[self._rows(x)].reshape(len(x), -1)
        linear = lax.slice(
            self.linear[...], (0, 0, 0), (len(self.categories), embed, features)
        )
        y = y + embedded @ linear.reshape(-1, features)
        return jnp.where(self._known(x), y, jnp.nan)

    def _codes(self, x: Array) -> Array:
        return x[:, self.numeric :].astype(jnp.int32)

    def _rows(self, x: Array) -> Array:
        first = np.cumsum([0, *self.categories[:-1]]).astype(np.int32)
        return self._codes(x) + first[None]

    def _known(self, x: Array) -> Array:
        codes, limits = self._codes(x), np.array(self.categories, np.int32)[None]
        return jnp.all((codes >= 0) & (codes < limits), axis=1, keepdims=True)


class ElasticTableBlock(nnx.Module):
    """Norm, linear, ReLU, dropout, linear, and perhaps the input.

    Args:
      features: width of the input and the output.
      hidden: the hidden widths on offer; the first units are used.
      residual: whether the input is added: the answers on offer.
      dropout: probability of zeroing a hidden unit in training, 0 to 1.
      rngs: `params` draws the weights, `dropout` the masks.
    """

    def __init__(
        self,
        features: int,
        *,
        hidden: tuple[int, ...],
        residual: tuple[bool, ...] = (True,),
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.norm = BatchNorm(features)
        self.up = nnx.Param(_init(rngs.params(), (features, max(hidden))))
        self.up_bias = nnx.Param(jnp.zeros((max(hidden),)))
        self.down = nnx.Param(_init(rngs.params(), (max(hidden), features)))
        self.down_bias = nnx.Param(jnp.zeros((features,)))
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout > 0 else None
        self.hiddens, self.residuals = tuple(hidden), tuple(residual)

    def __call__(self, x: Array, *, hidden: int, residual: bool) -> Array:
        """`[n, features]` to the same.

        Raises:
          ValueError: if the hidden width or `residual` is not on offer.
        """
        if hidden not in self.hiddens or residual not in self.residuals:
            raise ValueError(
                f"This block offers hidden in {self.hiddens} and residual in "
                f"{self.residuals}, but was called with hidden={hidden!r} and "
                f"residual={residual!r}."
            )
        features = x.shape[-1]
        up = lax.slice(self.up[...], (0, 0), (features, hidden))
        down = lax.slice(self.down[...], (0, 0), (hidden, features))
        up_bias = lax.slice(self.up_bias[...], (0,), (hidden,))
        y = jax.nn.relu(self.norm(x) @ up + up_bias[None])
        y = y if self.dropout is None else self.dropout(y)
        y = y @ down + self.down_bias[...][None]
        return x + y if residual else y


class TableHead(nnx.Module):
    """Norm, ReLU, linear."""

    def __init__(self, features: int, classes: int, *, rngs: nnx.Rngs) -> None:
        self.norm = BatchNorm(features, relu=True)
        self.linear = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """`[n, features]` to `[n, classes]`."""
        return self.linear(self.norm(x))


def tabular(
    *,
    columns: tuple[int, Sequence[int]] = _ADULT,
    classes: int = 2,
    features: int = 64,
    embed: Sequence[int] = (2, 4, 8),
    hidden: Sequence[int] = (32, 64, 128),
    depth: Sequence[int] = (1, 2, 3),
    residual: Sequence[bool] = (True,),
    dropout: float = 0.1,
) -> Supernet:
    """Build a supernet for rows [n, columns] in floating point.

    Args:
      columns: How many numbers a row begins with (standardise them), and how many codes
        each of the categorical columns after them has, which hold 0 to that less 1. The
        default is UCI Adult's, whose numbers come again as codes of 32 quantiles each.
      classes: Outputs of the head.
      features: Width between blocks.
      embed: Widths of embeddings on offer, one for all columns.
      hidden: Hidden widths on offer, for each block.
      depth: Numbers of blocks on offer.
      residual: (True,), (False,), or both as a choice for each block.
      dropout: Probability of zeroing a hidden unit in training.

    Example:
      >>> tabular(columns=(4, ()), classes=3, embed=(1,)).space.num_paths
      39
    """
    numeric, categories = columns
    embed, hidden = tuple(embed), tuple(hidden)
    residual = tuple(bool(r) for r in residual)

    def stem(rngs: nnx.Rngs) -> nnx.Module:
        return ElasticColumns(
            numeric, tuple(categories), features, embed=embed, rngs=rngs
        )

    def block(rngs: nnx.Rngs) -> nnx.Module:
        return ElasticTableBlock(
            features, hidden=hidden, residual=residual, dropout=dropout, rngs=rngs
        )

    blocks = [Elastic(block, hidden=hidden, residual=residual)] * max(depth)
    return Supernet(
        stem=Elastic(stem, embed=embed),
        layers={"blocks": Stage(blocks, depth=tuple(depth))},
        head=lambda rngs: TableHead(features, classes, rngs=rngs),
    )
