"""The symmetry of layers that do nothing: which archs are one network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from oneshot.choices import Arch, freeze_values


class Indexed(Protocol):
    """A space, as far as this needs it."""

    def index(self, name: str) -> int: ...

    def read(self, arch: Arch) -> tuple[int, ...]: ...


@dataclasses.dataclass(frozen=True)
class Commuting:
    """The canonical form where one option commutes with its neighbours.

    Within a group of choices (the layers of equal shape of one stage), where an option
    does nothing it does not matter which layer does nothing: the canonical arch moves
    those to the end of the group and keeps the order of the others.

    Args:
      groups: Groups of choice names, in the order of the layers.
      option: Index of the option that does nothing, the same in every group.

    Example:
      >>> space = SearchSpace([Choice(n, ("id", "conv")) for n in "ab"],
      ...                     canonical=Commuting((("a", "b"),)))
      >>> space.canonical((0, 1))
      (1, 0)
    """

    groups: tuple[tuple[str, ...], ...]
    option: int = 0

    def __call__(self, space: Indexed, arch: Arch) -> Arch:
        out, read = list(arch), set(space.read(arch))
        for group in self.groups:
            # What an unread choice says is of no network: it takes no part.
            places = [i for name in group if (i := space.index(name)) in read]
            kept = [arch[i] for i in places if arch[i] != self.option]
            padded = kept + [self.option] * (len(places) - len(kept))
            for place, value in zip(places, padded, strict=True):
                out[place] = value
        return tuple(out)


def symmetry_to_json(symmetry: Callable[..., Arch] | None) -> dict[str, Any] | None:
    """Return a symmetry as JSON values: of a function that is not ours, its name."""
    if symmetry is None:
        return None
    if isinstance(symmetry, Commuting):
        return {"commuting": dataclasses.asdict(symmetry)}
    return {"function": getattr(symmetry, "__qualname__", "function")}


def symmetry_from_json(data: Mapping[str, Any] | None) -> Commuting | None:
    """Return the symmetry that JSON values stand for.

    Raises:
      ValueError: If they only name a function.
    """
    if not data:
        return None
    if "commuting" not in data:
        raise ValueError(
            f"This space names the function {data['function']!r} for its "
            "canonical form, and JSON holds only its name. Pass it as `symmetry`."
        )
    return Commuting(**freeze_values(data["commuting"]))
