"""Layers: where a supernet depends on the arch.

A layer is a description, not a module: `OneOf` holds constructors, each with weights of
its own; `Elastic` one constructor whose module takes plain-int options; `Stage` a list
of layers of elastic depth. Anything else that is called with `rngs` and returns an NNX
module is a layer without choices. `oneshot.flattening` turns them into a row of slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oneshot.space import Choice

Make = Callable[..., Any]  # called as make(rngs=...), returns an nnx.Module


class Identity:
    """The option that skips a layer: it has no weights and leaves no step in the path.

    Example:
      >>> OneOf(skip=Identity, conv=lambda rngs: nnx.Conv(8, 8, (3, 3), rngs=rngs))
    """


class OneOf:
    """One of several modules, each with its own weights.

    Args:
      name: Name of the choice (default `<layer>.op`); layers that name one choice are
        tied to it.
      **options: A constructor taking `rngs`, an `Elastic`, or `Identity`, by option
        name. All must accept the same input; on paths where they give different
        shapes, the next layer has to accept each.

    Raises:
      ValueError: If there are no options.

    Example:
      >>> OneOf(skip=Identity, wide=lambda rngs: nnx.Linear(8, 8, rngs=rngs))
    """

    def __init__(self, name: str | None = None, /, **options: Make | Elastic | type):
        if not options:
            raise ValueError(
                "OneOf was given no options; write for example "
                "OneOf(skip=Identity, conv=lambda rngs: nnx.Conv(..., rngs=rngs))."
            )
        self.name, self.options = name, options


class Elastic:
    """One module called with static keyword options, its weights shared by all of them.

    Args:
      make: Constructor taking `rngs`. Its module is called as `module(x, **options)`
        with plain values, so slices of weights are static and narrow options are
        really narrow.
      **choices: Options by keyword: a tuple, or a `Choice` shared with other layers.

    Raises:
      ValueError: If there are no choices.

    Example:
      >>> Elastic(lambda rngs: Mlp(64, rngs=rngs), hidden=(64, 128, 256))
    """

    def __init__(self, make: Make, **choices: Sequence[Any] | Choice):
        if not choices:
            raise ValueError(
                "Elastic was given no choices. Give at least one keyword and its "
                "options, or pass the constructor itself as a fixed layer."
            )
        self.make, self.choices = make, choices


class Stage:
    """Consecutive layers of which only the first few run.

    Args:
      layers: A list, or a dict by name.
      depth: The possible numbers of layers to run, each in 0 to len(layers), or a
        `Choice` of such numbers; None runs all of them (a plain group).

    Raises:
      ValueError: If a depth is out of range.

    Example:
      >>> Stage([block, block, block], depth=(1, 2, 3))
    """

    def __init__(
        self,
        layers: Sequence[Any] | Mapping[str, Any],
        depth: Sequence[int] | Choice | None = None,
    ):
        self.layers, self.depth = layers, depth
        options = depth.options if isinstance(depth, Choice) else depth or ()
        if bad := [d for d in options if not 0 <= d <= len(layers)]:
            raise ValueError(
                f"A stage of {len(layers)} layers runs 0 to {len(layers)} of them, but "
                f"`depth` holds {bad}."
            )


def named_layers(layers: Sequence[Any] | Mapping[str, Any], prefix: str):
    """Return (name, layer) pairs: a dict's own names, or `prefix` and the position."""
    if isinstance(layers, Mapping):
        return [*layers.items()]
    return [(f"{prefix}{i}", layer) for i, layer in enumerate(layers)]
