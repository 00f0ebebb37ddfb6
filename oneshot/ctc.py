"""Sequences without alignment: the CTC loss, greedy decoding, the token error rate.

Graves et al. 2006, Connectionist Temporal Classification, ICML. The network returns
logits `[n, steps, classes + 1]`, of which the last is the blank's, so that tokens keep
their numbers. Targets are int32 `[n, longest]`, tokens in 0 to classes - 1, filled up
with -1 at the end. Every step of the output counts: after a short sequence the network
has to return blanks, as it learns where inputs are filled up with silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Array = jax.Array


def ctc(logits: Array, targets: Array) -> Array:
    """Return -log p(target) of each sequence, over all its alignments, in nats.

    Args:
      logits: `[n, steps, classes + 1]`, unnormalised; the last one is the blank's.
      targets: `[n, longest]`, integers in 0 to classes - 1, then -1. A sequence needs
        a step for each token, and one more between equal neighbours; where there are
        too few its loss is about 1e5.

    Returns:
      `[n]`, float32.

    Raises:
      ValueError: If the shapes are other ones.

    Example:
      >>> ctc(jnp.zeros((1, 4, 3)), jnp.array([[0, 1, -1]]))
      Array([1.6863989], dtype=float32)
    """
    if logits.ndim != 3 or targets.ndim != 2 or len(logits) != len(targets):
        raise ValueError(
            "CTC takes logits [n, steps, classes + 1] and targets [n, longest], but "
            f"got {list(logits.shape)} and {list(targets.shape)}. A speech supernet "
            "returns such logits with output='ctc'."
        )
    padded = targets < 0
    with jax.numpy_rank_promotion("allow"):  # optax relies on it
        return optax.ctc_loss(
            logits.astype(jnp.float32),
            jnp.zeros(logits.shape[:2], jnp.float32),
            jnp.where(padded, 0, targets),
            padded.astype(jnp.float32),
            blank_id=logits.shape[-1] - 1,
        )


def greedy_decode(logits: Array) -> Array:
    """Return the tokens of the likeliest alignment.

    Args:
      logits: `[n, steps, classes + 1]`, the last one the blank's.

    Returns:
      int32 `[n, steps]`: repeats merged, blanks left out, filled up with -1.

    Example:
      >>> greedy_decode(jax.nn.one_hot(jnp.array([[1, 1, 2, 1]]), 3))  # 2 is the blank
      Array([[ 1,  1, -1, -1]], dtype=int32)
    """
    best = jnp.argmax(logits, -1).astype(jnp.int32)
    before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    kept = (best != before) & (best != logits.shape[-1] - 1)
    # A stable sort moves what is kept to the front, in its order.
    order = jnp.argsort(~kept, axis=1, stable=True)
    return jnp.take_along_axis(jnp.where(kept, best, -1), order, axis=1)


def edit_distance(found: Array, targets: Array) -> Array:
    """Return the fewest insertions, deletions and substitutions between sequences.

    Args:
      found: int32 `[n, any length]`, filled up with -1 at the end.
      targets: int32 `[n, any length]`, filled up likewise.

    Returns:
      int32 `[n]` (Levenshtein 1966).
    """
    n, longest = targets.shape
    places = jnp.broadcast_to(jnp.arange(longest + 1)[None], (n, longest + 1))

    def after(row: Array, token: Array) -> tuple[Array, None]:
        # Row j: the distance between what came so far and the first j targets.
        changed = row[:, :-1] + (token[:, None] != targets)
        change_or_drop = jnp.minimum(changed, row[:, 1:] + 1)
        new = jnp.concatenate([row[:, :1] + 1, change_or_drop], axis=1)
        # A target may be inserted after any of these, each at a cost of 1.
        new = jax.lax.cummin(new - places, axis=1) + places
        return jnp.where((token < 0)[:, None], row, new), None

    last, _ = jax.lax.scan(after, places, found.T)
    lengths = jnp.sum(targets >= 0, axis=1, keepdims=True)
    return jnp.take_along_axis(last, lengths, axis=1)[:, 0]


def token_error_rate(logits: Array, targets: Array) -> Array:
    """Return the edits that greedy decoding needs, as a share of the target's length.

    Args:
      logits: `[n, steps, classes + 1]`, the last one the blank's.
      targets: int32 `[n, longest]`, filled up with -1.

    Returns:
      float32 `[n]`; more than 1 where too many tokens were found. The mean is weighted
      by sequence, not by token.
    """
    lengths = jnp.maximum(jnp.sum(targets >= 0, axis=1), 1)
    edits = edit_distance(greedy_decode(logits), targets)
    return edits.astype(jnp.float32) / lengths


def sequence_accuracy(logits: Array, targets: Array) -> Array:
    """Return 1 where greedy decoding finds exactly the target, else 0, as float32."""
    wrong = edit_distance(greedy_decode(logits), targets)
    return (wrong == 0).astype(jnp.float32)


CTC: Mapping[str, Any] = {
    "loss": ctc,
    "accuracy": sequence_accuracy,
    "token_error_rate": token_error_rate,
}


def check_sequences(outputs: Any, targets: Any) -> None:
    """Raise if targets are no sequences for the logits that a network returns.

    Args:
      outputs: Abstract output of the head, `[n, steps, classes + 1]`.
      targets: Host or device targets, `[n, longest]`.

    Raises:
      ValueError: If they are not integers in -1 to classes - 1 with all of -1 at the
        end, or a sequence has more tokens than there are steps.
    """
    targets = np.asarray(targets)
    shaped = targets.ndim == 2 and len(outputs.shape) == 3
    if not shaped or targets.dtype.kind not in "iu":
        raise ValueError(
            "CTC needs logits [n, steps, classes + 1] and integer targets [n, "
            f"longest], but the head returns {list(outputs.shape)} and the targets are "
            f"{targets.dtype}{list(targets.shape)}."
        )
    classes, padded = outputs.shape[-1] - 1, targets < 0
    low, high = int(targets.min()), int(targets.max())
    if low < -1 or high >= classes:
        raise ValueError(
            f"Tokens go from {low} to {high}, but the head returns {classes} tokens' "
            f"logits and the blank's: number tokens 0 to {classes - 1} and fill up "
            "with -1."
        )
    if (padded[:, :-1] & ~padded[:, 1:]).any():
        bad = int(np.argmax((padded[:, :-1] & ~padded[:, 1:]).any(1)))
        raise ValueError(
            f"The target of example {bad}, {targets[bad].tolist()}, has a token after "
            "-1; the filling belongs at the end."
        )
    repeats = ((targets[:, 1:] == targets[:, :-1]) & ~padded[:, 1:]).sum(1)
    needed = (~padded).sum(1) + repeats
    if needed.max() > outputs.shape[1]:
        bad = int(needed.argmax())
        raise ValueError(
            f"The target of example {bad}, {targets[bad].tolist()}, needs "
            f"{needed[bad]} steps, but the head returns {outputs.shape[1]}. Give "
            "longer inputs, or a stem that halves time less often."
        )
