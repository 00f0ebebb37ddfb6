"""Which cells of NAS-Bench-201 are one network when trained alone.

The published count of unique cells, 6,466 (its authors, github.com/d-x-y/nats-bench,
issue 43), is that of texts: each node is written as the sum of its edges, with a sign
for zero. That takes a convolution used twice for two convolutions of one kind, and what
a norm adds after a convolution of nothing for nothing; and it tells apart sums that
differ by a zero or by the order of what an identity passes on. Here it is the other way
round, so that cells are equal exactly where what they compute from their parameters is:
5,224 of them.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

from oneshot.choices import Arch

OPERATIONS = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (source, target)

_INPUT = -1
Terms = tuple[tuple[int, int], ...]  # (times pooled, edge of a convolution or _INPUT)


def canonical_cell(space: Any, arch: Arch) -> Arch:
    """Return the first of all cells that are one network with `arch`.

    Edges whose result does not reach the output are `none` in it, sums are in any
    order, an identity passes on a sum's terms, pooling a sum is the sum of the pooled,
    and convolutions of equal kind may change places.

    Args:
      space: Not needed; taken as `SearchSpace` passes it.
      arch: Option indices of the six edges.

    Example:
      >>> canonical_cell(None, (3, 0, 0, 1, 0, 0))  # the convolution reaches nothing
      (0, 0, 0, 1, 0, 0)
    """
    del space
    return _representatives()[tuple(arch)]


@functools.cache
def _representatives() -> dict[Arch, Arch]:
    first: dict[Any, Arch] = {}
    archs = itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))
    return {arch: first.setdefault(network(arch), arch) for arch in archs}


def network(arch: Arch) -> Any:
    """Return what a cell computes: equal for cells that are one network.

    It is the output's terms and the terms of each convolution that reaches it, with the
    convolutions numbered so that the result is the least.
    """
    output, inputs = _terms(arch)
    kinds = {e: OPERATIONS[arch[e]] if t else "constant" for e, t in inputs.items()}
    live: set[int] = set()
    waiting = [e for _, e in output]
    while waiting:
        edge = waiting.pop()
        if edge != _INPUT and edge not in live:
            live.add(edge)
            waiting += [e for _, e in inputs[edge]]
    unrolled = {_INPUT: "x"}
    for edge in sorted(live):  # sources come before what they feed
        terms = sorted((pools, unrolled[e]) for pools, e in inputs[edge])
        unrolled[edge] = f"{kinds[edge]}{terms}"
    # Only convolutions that unroll alike can change places.
    groups = [
        [edge for edge in sorted(live) if unrolled[edge] == text]
        for text in sorted({unrolled[edge] for edge in live})
    ]

    def numbered(order: tuple[int, ...]) -> Any:
        number = {_INPUT: _INPUT} | {edge: i for i, edge in enumerate(order)}

        def rename(terms: Terms) -> Terms:
            return tuple(sorted((pools, number[e]) for pools, e in terms))

        return rename(output), tuple((kinds[e], rename(inputs[e])) for e in order)

    orders = itertools.product(*map(itertools.permutations, groups))
    return min(numbered(tuple(itertools.chain(*parts))) for parts in orders)


def _terms(arch: Arch) -> tuple[Terms, dict[int, Terms]]:
    """Return the terms of the output, and of the input of each convolution."""
    nodes: list[Terms] = [((0, _INPUT),), (), (), ()]
    inputs: dict[int, Terms] = {}

    def constant(edge: int) -> bool:
        # A norm of nothing is its offset, at every pixel. The average of it is itself,
        # as what lies outside is not counted, and a 1x1 convolution of it is constant,
        # of which the norm leaves its own offset; a 3x3 one sees the zeros around.
        return edge != _INPUT and not inputs[edge]

    for edge, (source, target) in enumerate(EDGES):
        operation, terms = OPERATIONS[arch[edge]], nodes[source]
        if operation == "skip_connect":
            nodes[target] += terms
        elif operation == "avg_pool_3x3":
            nodes[target] += tuple((p + (not constant(e)), e) for p, e in terms)
        elif operation != "none":
            if operation == "nor_conv_1x1" and all(constant(e) for _, e in terms):
                terms = ()
            inputs[edge] = terms
            nodes[target] += ((0, edge),)
    return nodes[-1], inputs
