"""Which choices a path reads, and one arch to stand for all archs of a path."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

from oneshot.choices import Arch, Choice, Reader


@dataclasses.dataclass(frozen=True)
class PathKeys:
    """The rules that map archs of one path to one arch, its key.

    Attributes:
      choices: Of a space, or of a part of it.
      readers: The places that read them.
    """

    choices: tuple[Choice, ...]
    readers: tuple[Reader, ...]

    def read(self, arch: Sequence[int]) -> tuple[int, ...]:
        """Return the indices of the choices that the path of `arch` reads."""
        active = (r.reads for r in self.readers if r.active(arch))
        return tuple(sorted(set(itertools.chain.from_iterable(active))))

    def key(self, arch: Sequence[int]) -> Arch:
        """Return the representative of all archs of one path: equal keys, equal paths.

        Unread choices stand at index 0. Where a layer is skipped by an option and could
        be left out by a depth as well, the depth that reaches fewest layers is taken.
        """
        if self.ambiguous:
            arch = self._fewest(arch)
        read = set(self.read(arch))
        return tuple(int(v) if i in read else 0 for i, v in enumerate(arch))

    @functools.cached_property
    def ambiguous(self) -> bool:
        """Whether two assignments of read choices can make one path.

        They can where a place has two options that skip it, or one and a depth above
        it, or a depth above a depth.
        """
        return any(
            (len(r.skip) > 1 and not self._all_skip(r))
            or (r.skip and any(c in self._silent for c, _ in r.when))
            for r in self.readers
        )

    @functools.cached_property
    def _silent(self) -> frozenset[int]:
        """The choices that act through conditions only, as a stage's depth does."""
        quiet = {r.reads[0] for r in self.readers if self._all_skip(r)}
        others = (r for r in self.readers if not self._all_skip(r))
        return frozenset(quiet - {c for r in others for c in r.reads})

    def _all_skip(self, reader: Reader) -> bool:
        if len(reader.reads) != 1:
            return False
        return len(reader.skip) == len(self.choices[reader.reads[0]].options)

    def _signature(self, arch: Sequence[int]) -> list[Any]:
        """Return what the path of `arch` holds: equal signatures, equal paths."""
        return [
            (i, [arch[c] for c in reader.reads])
            for i, reader in enumerate(self.readers)
            if reader.active(arch) and not reader.skipped(arch)
        ]

    def _fewest(self, arch: Sequence[int]) -> list[int]:
        """Return an arch of the same path that reaches fewest places."""
        out, wanted = [int(v) for v in arch], self._signature(arch)
        for i in sorted(self._silent):
            others = [
                [*out[:i], value, *out[i + 1 :]]
                for value in range(len(self.choices[i].options))
            ]
            same = [a for a in others if self._signature(a) == wanted]
            out = min(same, key=lambda a: sum(r.active(a) for r in self.readers))
        for reader in self.readers:  # several options that skip are one
            if len(reader.skip) > 1 and reader.reads[0] not in self._silent:
                i = reader.reads[0]
                first = [*out[:i], min(reader.skip), *out[i + 1 :]]
                if reader.skipped(out) and self._signature(first) == wanted:
                    out = first
        return out
