"""Which blocks the archs of a supernet run, on inputs of which shapes."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from oneshot.functional import Tree
from oneshot.nn.backend import plain_operations
from oneshot.paths import Step
from oneshot.shapes import freeze, shapes, thaw
from oneshot.slots import Slot
from oneshot.space import Choice

if TYPE_CHECKING:
    from oneshot.supernet import Supernet


class Reached(NamedTuple):
    """A block that some path runs: its step, and what it gets and returns."""

    step: Step
    carry: Tree  # abstract input
    out: Tree  # abstract output


def walk(supernet: Supernet, x: Tree, known: dict[Any, Tree]) -> Iterator[Reached]:
    """Give each (step, carry shape) that some arch reaches, once, in layer order.

    Choices that several layers read are followed consistently, so that a width tied
    through the whole network costs as many walks as it has options, not their product.

    Args:
      supernet: Its slots, choices and modules.
      x: An abstract batch.
      known: What blocks return, found earlier; what is found is added.

    Raises:
      ValueError: If a block fails on a carry that an arch can bring to it.
    """
    choices = supernet.space.choices
    last = {c: slot.layer for slot in supernet.slots for c in slot.choices}
    fronts = {((), freeze(x)): None}  # (tied choices still to be read, carry)
    for slot in supernet.slots:
        new_fronts, yielded = {}, set()
        for pending, frozen in fronts:
            carry = thaw(frozen)
            for assignment, step in slot.cases(choices, dict(pending)):
                out = frozen
                if step is not None:
                    out = freeze(_out_shape(supernet, slot, step, carry, known))
                    if (step, frozen) not in yielded:
                        yielded.add((step, frozen))
                        yield Reached(step, carry, thaw(out))
                settled = {**dict(pending), **assignment}
                rest = ((c, v) for c, v in settled.items() if last[c] > slot.layer)
                new_fronts[tuple(sorted(rest)), out] = None
        fronts = _without_idle(new_fronts, choices)


def _without_idle(
    fronts: dict[Any, None], choices: Sequence[Choice]
) -> dict[Any, None]:
    """Leave out pending choices that no carry depends on: any option may follow.

    Without that, operations tied over many layers would multiply.
    """
    for choice in {c for pending, _ in fronts for c, _ in pending}:
        options = collections.Counter(
            (tuple(p for p in pending if p[0] != choice), carry)
            for pending, carry in fronts
        )
        if set(options.values()) == {len(choices[choice].options)}:
            fronts = dict.fromkeys(options)
    return fronts


def _out_shape(
    supernet: Supernet, slot: Slot, step: Step, carry: Tree, known: dict[Any, Tree]
) -> Tree:
    module = supernet.modules[step.module]
    signature = supernet.structures[step.module], step.options, freeze(carry)
    if signature not in known:
        run = functools.partial(module.apply, options=step.options, mode="train")
        key = jax.eval_shape(lambda: jax.random.key(0))
        try:
            with plain_operations():  # quicker to trace, and of the same shapes
                out, _ = jax.eval_shape(
                    lambda p, s, c, k: run(p, s, c, key=k),
                    module.params,
                    module.state,
                    carry,
                    key,
                )
        except Exception as error:
            raise ValueError(_misfit(slot, step, carry, error)) from error
        known[signature] = out
    return known[signature]


def _misfit(slot: Slot, step: Step, carry: Tree, error: Exception) -> str:
    options = f" with {dict(step.options)}" if step.options else ""
    which = f"Module {step.module!r} of layer {slot.name!r}{options}"
    reason = f"{str(error).strip().rstrip('.')}."
    if not slot.layer:  # nothing of the network comes before
        return (
            f"{which} does not accept the examples {shapes(carry)}: {reason} Give "
            "examples of the shape and the type of numbers that the supernet is built "
            "for, or build it for these."
        )
    return (
        f"{which} does not accept its input {shapes(carry)}, which some arch brings to "
        f"it: {reason} Either let every option of the earlier layers return what this "
        "one needs, or tie the two by passing one Choice to both."
    )
