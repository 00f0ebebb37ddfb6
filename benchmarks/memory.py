"""What a training step holds in memory, as a chain of blocks and as one program.

Both sides count what a step adds to weights, gradients, optimizer state and the batch,
which are there either way. The single program: its temporaries, as XLA planned them.
The chain: the largest sum, over its programs in their order, of

- the residuals that forwards returned and no backward has used yet,
- the carries that are still referred to: the input of the running forward, and those
  that a backward will be passed again (each counted once),
- the cotangents that the running backward gets and returns,
- what the running program returns besides, and its own temporaries as XLA planned them.

Gradients become new weights inside the programs, so where XLA writes one to memory
first it is among the temporaries, on both sides: those of one module in a backward,
of up to the whole path in the single program. `gradients` is the latter's bound; the
ratio against temporaries less that bound is the strictest that can be claimed.

The sum agrees with `jax.live_arrays()` after each program of a real step, plus that
program's temporaries, to a tenth of a percent (they count BatchNorm's new averages).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from oneshot.chain import Block, Chain
from oneshot.paths import Path
from oneshot.residuals import split_carry
from oneshot.supernet import Tree


class Peak(NamedTuple):
    """The largest sum over a step, and the program that was running then."""

    bytes: int
    program: str


def nbytes(tree: Tree) -> int:
    """Return the bytes of a pytree of arrays or their shapes."""
    return sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def temporaries(compiled: Any) -> int:
    """Return the bytes of a program's temporaries."""
    return compiled.memory_analysis().temp_size_in_bytes


def chain_peak(chain: Chain, path: Path, batch: tuple[Tree, Tree]) -> Peak:
    """Return the peak of a step that updates its modules as it goes back."""
    blocks, carry_ids = _forwards(chain, path, batch[0])
    carries = [chain.engine.carry(i) for i in carry_ids]
    floats = [nbytes(split_carry(c)[0]) for c in carries]
    call = chain.head(path[-1], carry_ids[-1], batch[1], "update")
    sums = {}
    for i, block in enumerate(blocks):
        name = f"{path[i].module} forward"
        # The input may be among what is kept, so the carries are counted as a set.
        own = _kept(blocks[: i + 1], carries, (i, i + 1))
        sums[name] = own + temporaries(block.forward)
        backward = chain.backward(block, path[i].module, "update")
        name = f"{path[i].module} backward"
        flows = floats[i + 1] + (floats[i] if block.input_gradient else 0)
        sums[name] = _kept(blocks[: i + 1], carries) + flows + temporaries(backward)
    last = _kept(blocks, carries, (len(blocks),))
    sums["head"] = last + floats[-1] + temporaries(call)
    where = max(sums, key=lambda name: sums[name])
    return Peak(sums[where], where)


def _forwards(chain: Chain, path: Path, x: Tree) -> tuple[list[Block], list[int]]:
    blocks, carry_ids = [], [chain.engine.carry_id(x)]
    for step in path[:-1]:
        blocks.append(chain.block(step, carry_ids[-1]))
        carry_ids.append(blocks[-1].out_id)
    return blocks, carry_ids


def _kept(
    blocks: Sequence[Block], carries: Sequence[Tree], whole: Sequence[int] = ()
) -> int:
    """Return the bytes of residuals, and of carries that blocks or `whole` refer to."""
    places = {(i, leaf) for i in whole for leaf in range(_num_leaves(carries[i]))}
    for i, block in enumerate(blocks):
        places |= {(i, leaf) for leaf in block.plan.needs("carry")}
        places |= {(i + 1, leaf) for leaf in block.plan.needs("out")}
    # Carry 0 is the batch.
    leaves = [jax.tree.leaves(carries[i])[leaf] for i, leaf in places if i > 0]
    return sum(nbytes(block.saved) for block in blocks) + nbytes(leaves)


def _num_leaves(tree: Tree) -> int:
    return len(jax.tree.leaves(tree))
