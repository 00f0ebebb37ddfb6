"""Scoring a few examples at a time inside one program.

On a CPU memory bounds a block: the hidden arrays of 512 images leave the caches, and
those above 32 MiB are mapped anew at each call. Eight to 64 images at a time stay
inside, which is 2 to 6 times as fast (docs/design/0005). The examples of a batch are
independent when statistics are frozen, so this changes no score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from oneshot.jaxprs import array_sizes
from oneshot.nn.backend import plain_operations
from oneshot.shapes import abstract
from oneshot.supernet import Supernet, Tree

Flags = tuple[bool, ...]  # of the leaves of a carry: does it have an axis of examples?


def batched_leaves(net: Supernet, x: Tree, carry_id: Callable[[Tree], int]):
    """Return which leaves of each reachable carry have an axis of examples.

    They are those whose first axis grows with the batch. A table that happens to be as
    long as the batch does not.

    Args:
      net: Whose carries.
      x: Abstract input.
      carry_id: Names the structure and shapes of a carry.

    Returns:
      {carry's number: flags}, for the inputs of all blocks and the network's output.
    """
    n = jax.tree.leaves(x)[0].shape[0]
    twice = resized(x, (True,) * len(jax.tree.leaves(x)), 2 * n)
    found: dict[int, Flags] = {}
    rows = zip(net.reachable(x), net.reachable(twice), strict=True)
    for small, large in rows:
        for one, two in ((small.carry, large.carry), (small.out, large.out)):
            found[carry_id(one)] = tuple(
                a.shape[:1] == (n,) and b.shape[:1] == (2 * n,)
                for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
            )
    return found


def bytes_of_example(run: Callable, carry: Tree, flags: Flags, *rest: Tree) -> int:
    """Return the bytes that one example adds to the largest array of a block.

    Args:
      run: `(carry, *rest) -> out`.
      carry: Abstract input.
      flags: Its leaves that have an axis of examples.
      *rest: Abstract arguments that are the same for any number of examples.
    """
    sizes = []
    for n in (2, 4):
        some = resized(carry, flags, n)
        with plain_operations():
            jaxpr = jax.make_jaxpr(lambda *a: run(*a))(some, *rest)
        sizes.append(array_sizes(jaxpr.jaxpr))
    grown = (large - small for small, large in zip(*sizes, strict=False))
    return max(1, max(grown, default=0) // 2)


def resized(carry: Tree, flags: Flags, n: int) -> Tree:
    """Return the shapes of a carry with another number of examples."""
    leaves, treedef = jax.tree.flatten(carry)
    return treedef.unflatten(
        jax.ShapeDtypeStruct((n, *a.shape[1:]), a.dtype) if flag else a
        for a, flag in zip(abstract(leaves), flags, strict=True)
    )


def group_size(n: int, example_bytes: int, target: int | None) -> int:
    """Return how many of n examples to take at a time: the largest divisor that fits.

    Args:
      n: Examples in all.
      example_bytes: Bytes of one example's largest array.
      target: Bytes that the largest array of a group may have; None for no groups.

    Example:
      >>> group_size(512, 400_000, 3_000_000), group_size(10, 1, None)
      (4, 10)
    """
    if target is None or n * example_bytes <= target:
        return n
    fits = max(1, target // example_bytes)
    return max(d for d in range(1, min(n, fits) + 1) if n % d == 0)


def in_groups(
    run: Callable, n: int, size: int, flags: Sequence[Flags], out_flags: Flags
) -> Callable:
    """Return `run(params, state, *trees)`, computed for `size` examples at a time.

    Args:
      run: The function.
      n: Examples in all, a multiple of `size`.
      size: Examples of a group.
      flags: For each tree, its leaves that have an axis of examples.
      out_flags: The same for the result; its other leaves are those of any group.
    """
    if size == n:
        return run

    def grouped(params, state, *trees):
        flat = [jax.tree.flatten(tree) for tree in trees]
        cut = [
            leaf.reshape(n // size, size, *leaf.shape[1:])
            for (leaves, _), own in zip(flat, flags, strict=True)
            for leaf, flag in zip(leaves, own, strict=True)
            if flag
        ]

        def one(parts):
            parts = iter(parts)
            rebuilt = [
                treedef.unflatten(
                    next(parts) if flag else leaf
                    for leaf, flag in zip(leaves, own, strict=True)
                )
                for (leaves, treedef), own in zip(flat, flags, strict=True)
            ]
            return run(params, state, *rebuilt)

        leaves, treedef = jax.tree.flatten(jax.lax.map(one, cut))
        return treedef.unflatten(
            jnp.reshape(a, (n, *a.shape[2:])) if flag else a[0]
            for a, flag in zip(leaves, out_flags, strict=True)
        )

    return grouped
