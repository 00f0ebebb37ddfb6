"""Channels of a module that may change places without a change of its function."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

Axis = tuple[str, int]  # dotted path of an array in the module, and an axis of it


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Hidden channels that may be put in another order, all these arrays alike.

    Attributes:
      reader: The weights of the layer that reads the channels, and the axis of them:
        the L1 norm of what reads a channel is the channel's importance.
      axes: Every axis along which the channels lie, the reader's included.
      copies: (narrow, wide) paths: an array for the first of the channels only, which
        is to start from the first of the wide one.
    """

    reader: Axis
    axes: tuple[Axis, ...]
    copies: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class Permutable(Protocol):
    """A module that says which of its channels may change places."""

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Return the groups; they are sorted one after the other, in this order."""
        ...
