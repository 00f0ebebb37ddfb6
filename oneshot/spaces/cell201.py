"""NAS-Bench-201's space: one cell of six edges, repeated, 15,625 archs.

A cell has four nodes, node 0 its input and node 3 its output; each node is the sum of
one operation on each earlier node. All cells of a network are equal; their weights are
not. Parameters and multiply-adds of every arch equal the published table's: those of
the stem, the head, the two reduction blocks and each edge of each cell, also of edges
that do not reach the output.

Dong and Yang, NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
Search, ICLR 2020, arXiv:2001.00326.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from oneshot.layers import Identity, OneOf
from oneshot.nn import BatchNorm, Conv, ConvBN
from oneshot.spaces.cell201_symmetry import EDGES, OPERATIONS, canonical_cell
from oneshot.supernet import Supernet

Nodes = tuple[jax.Array, ...]  # four of one shape
Function = Callable[[jax.Array], jax.Array]

SIZES = {  # channels of the first stage, cells in a stage
    "tiny": (8, 1),
    "published": (16, 5),
}


def cell201(
    *,
    size: str = "published",
    classes: int = 10,
    channels: int | None = None,
    cells: int | None = None,
    stages: int = 3,
    impl: str = "auto",
) -> Supernet:
    """Build NAS-Bench-201's supernet for images [n, height, width, 3] of even sizes.

    Options of each edge are, in the table's order, 0 `none`, 1 `skip_connect`, 2
    `nor_conv_1x1`, 3 `nor_conv_3x3` and 4 `avg_pool_3x3`; an arch has those of the
    edges 0->1, 0->2, 1->2, 0->3, 1->3 and 2->3, as the table's rows do. What travels
    between blocks are the four nodes, so that each edge is a layer, `none` skips it,
    and cells that begin alike share what they have computed. The canonical form is
    `canonical_cell`.

    Args:
      size: "published" for the benchmark's (16 channels, 5 cells a stage, images of
        32x32); "tiny" for 8 channels and 1 cell.
      classes: Outputs of the head.
      channels: Channels of the first stage instead of the size's; later stages double.
      cells: Cells in each stage instead of the size's, at least 1.
      stages: Stages; the benchmark's is 3, fewer are for trials.
      impl: Operations, see `oneshot.nn.resolve`.

    Raises:
      ValueError: If there is no such size, or a number is out of range.

    Example:
      >>> net = cell201()
      >>> net.space.size, net.space.describe((3, 0, 0, 1, 0, 0))["0->1"]
      (15625, 'nor_conv_3x3')
    """
    if size not in SIZES:
        raise ValueError(
            f"`size` of cell201 is one of {', '.join(map(repr, SIZES))}, but got "
            f"{size!r}."
        )
    width = SIZES[size][0] if channels is None else channels
    repeats = SIZES[size][1] if cells is None else cells
    if min(width, repeats, stages) < 1:
        raise ValueError(
            "cell201 needs at least 1 channel, 1 cell in a stage and 1 stage, but got "
            f"channels={width}, cells={repeats} and stages={stages}."
        )
    first, layers = width, {}
    for stage in range(1, stages + 1):
        if stage > 1:
            layers[f"reduce{stage - 1}"] = _reduction(width, impl)
            width *= 2
        edges = {f"{s}->{t}": _edge(s, t, width, impl) for s, t in EDGES}
        for cell in range(repeats):
            name = f"stage{stage}.{cell}"
            if cell:
                layers[f"{name}.open"] = NextCell
            layers |= {f"{name}.{edge}": layer for edge, layer in edges.items()}
    return Supernet(
        stem=lambda rngs: Stem(first, rngs=rngs, impl=impl),
        layers=layers,
        head=lambda rngs: Head(width, classes, rngs=rngs),
        symmetry=canonical_cell,
    )


def _reduction(width: int, impl: str):
    return lambda rngs: Reduction(width, 2 * width, rngs=rngs, impl=impl)


def _edge(source: int, target: int, width: int, impl: str) -> OneOf:
    def conv(kernel: int):
        return lambda rngs: ConvEdge(
            source, target, width, kernel, rngs=rngs, impl=impl
        )

    def plain(function: Function):
        return lambda rngs: PlainEdge(source, target, function, rngs=rngs)

    makers = {
        "none": Identity,
        "skip_connect": plain(identity),
        "nor_conv_1x1": conv(1),
        "nor_conv_3x3": conv(3),
        "avg_pool_3x3": plain(average_pool),
    }
    # One name in every cell ties the cells' choices.
    return OneOf(f"{source}->{target}", **{op: makers[op] for op in OPERATIONS})


def opened(x: jax.Array) -> Nodes:
    """Return a cell's nodes before its edges: its input, and sums without a term."""
    zeros = jnp.zeros_like(x)
    return x, zeros, zeros, zeros


def with_term(nodes: Nodes, target: int, term: jax.Array) -> Nodes:
    """Return the nodes with `term` added to one of them."""
    return (*nodes[:target], nodes[target] + term, *nodes[target + 1 :])


class PlainEdge(nnx.Module):
    """Adds a function of one node, without weights, to a later one.

    Args:
      source, target: The nodes' numbers.
      function: `identity` or `average_pool`; a named function, so that equal edges are
        built alike and compiled once.
    """

    def __init__(self, source: int, target: int, function: Function, *, rngs):
        del rngs
        self.source, self.target, self.function = source, target, function

    def __call__(self, nodes: Nodes) -> Nodes:
        """Nodes [n, height, width, channels] to the same with one term more."""
        return with_term(nodes, self.target, self.function(nodes[self.source]))


class ConvEdge(nnx.Module):
    """Adds ReLU, convolution and norm of one node to a later one."""

    def __init__(
        self, source: int, target: int, width: int, kernel: int, *, rngs, impl="auto"
    ):
        self.source, self.target = source, target
        self.conv = ConvBN(width, width, kernel, relu=False, rngs=rngs, impl=impl)

    def __call__(self, nodes: Nodes) -> Nodes:
        """Nodes [n, height, width, channels] to the same with one term more."""
        term = self.conv(nnx.relu(nodes[self.source]))
        return with_term(nodes, self.target, term)


class NextCell(nnx.Module):
    """Makes the output of one cell the input of the next."""

    def __init__(self, *, rngs):
        del rngs

    def __call__(self, nodes: Nodes) -> Nodes:
        """Nodes [n, height, width, channels] to those of the next cell."""
        return opened(nodes[-1])


class Stem(nnx.Module):
    """Convolution 3x3 and norm."""

    def __init__(self, width: int, *, rngs, impl="auto"):
        self.conv = ConvBN(3, width, 3, relu=False, rngs=rngs, impl=impl)

    def __call__(self, x: jax.Array) -> Nodes:
        """[n, height, width, 3] to the first cell's nodes."""
        return opened(self.conv(x))


class Reduction(nnx.Module):
    """The residual block between stages: half the size, other channels.

    Twice ReLU, convolution 3x3 and norm, the first with stride 2; beside them an
    average over 2x2 pixels and a convolution 1x1.
    """

    def __init__(self, before: int, after: int, *, rngs, impl="auto"):
        self.first = ConvBN(before, after, 3, 2, relu=False, rngs=rngs, impl=impl)
        self.second = ConvBN(after, after, 3, relu=False, rngs=rngs, impl=impl)
        self.shortcut = Conv(before, after, 1, rngs=rngs, impl=impl)

    def __call__(self, nodes: Nodes) -> Nodes:
        """Nodes [n, height, width, before] to [n, height / 2, width / 2, after]."""
        x = nodes[-1]
        n, height, width, channels = x.shape
        if height % 2 or width % 2:
            raise ValueError(
                "cell201 halves its images before each stage but the first, so height "
                "and width have to be even there, but a reduction block got "
                f"{height}x{width} pixels. Crop or pad the images to multiples of 4."
            )
        small = x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        y = self.second(nnx.relu(self.first(nnx.relu(x))))
        return opened(y + self.shortcut(small))


class Head(nnx.Module):
    """Norm, ReLU, global average pool, linear."""

    def __init__(self, width: int, classes: int, *, rngs):
        self.norm = BatchNorm(width, relu=True)
        self.linear = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, nodes: Nodes) -> jax.Array:
        """Nodes [n, height, width, channels] to [n, classes]."""
        return self.linear(jnp.mean(self.norm(nodes[-1]), axis=(1, 2)))


def identity(x: jax.Array) -> jax.Array:
    """Return `x`."""
    return x


def average_pool(x: jax.Array) -> jax.Array:
    """Average 3x3 pixels around each, of those that are in the image.

    Args:
      x: Images [n, height, width, channels].

    Returns:
      The same shape.
    """
    total = _sum_of_three(_sum_of_three(x, 1), 2)
    rows, columns = (_counts(size) for size in x.shape[1:3])
    return total / jnp.asarray(np.outer(rows, columns)[None, :, :, None], x.dtype)


def _sum_of_three(x: jax.Array, axis: int) -> jax.Array:
    # Slices of one padded array, added: a single loop on a CPU, also backwards.
    pads = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
    padded, size = jnp.pad(x, pads), x.shape[axis]
    first, second, third = (
        jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3)
    )
    return first + second + third


def _counts(size: int) -> np.ndarray:
    """Return how many of the pixels before, at and after each place there are."""
    places = np.arange(size)
    return 1 + (places > 0) + (places < size - 1)
