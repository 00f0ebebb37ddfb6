"""The codes of a space in parts, and which of each part are timed one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from benchmarks.slices import by_first_choices
from benchmarks.work import Work
from oneshot.space import Arch, SearchSpace

_OTHERS = 17  # codes equal to another network that are timed, of each part


@dataclasses.dataclass(frozen=True)
class Part:
    """Codes that agree in their first choices.

    Attributes:
      codes: All of them.
      distinct: Those that are their own canonical arch.
      alone: Those of `distinct` that are timed one at a time.
      sample: Some of the others, timed so as well.
    """

    codes: list[Arch]
    distinct: list[Arch]
    alone: list[Arch]
    sample: list[Arch]

    @staticmethod
    def make(
        space: SearchSpace,
        codes: list[Arch],
        seed: int,
        num_others: int = _OTHERS,
        num_alone: int | None = None,
    ) -> Part:
        """Sort out which codes are distinct, and draw which are timed alone.

        Args:
          space: Theirs.
          codes: Of one part.
          seed: Decides what is drawn.
          num_others: How many codes that equal another are timed alone.
          num_alone: How many distinct ones are; None for all of them.
        """
        distinct = [code for code in codes if space.canonical(code) == code]
        others = sorted(set(codes) - set(distinct))
        rng = np.random.default_rng([seed, 6, *codes[0]])
        sample = _some(rng, others, num_others)
        alone = distinct if num_alone is None else _some(rng, distinct, num_alone)
        return Part(codes, distinct, alone, sample)

    def factors(self, work: Work) -> list[float]:
        """Return what makes the times of three thirds and of the sample that of all."""
        others = set(self.codes) - set(self.distinct)
        ours = work.alone(self.distinct).macs / work.alone(self.alone).macs
        return [ours] * 3 + [work.alone(others).macs / work.alone(self.sample).macs]


def space_parts(
    space: SearchSpace, seed: int, quick: bool, num_alone: int | None
) -> list[Part]:
    """Return all codes of the space in nine parts; in a quick run some of two."""
    parts: Iterable[list[Arch]] = by_first_choices(space.enumerate("archs"), 2)
    if quick:
        parts = [[a for a in list(parts)[i] if a[2] == 1] for i in (1, 8)]
    others = 3 if quick else _OTHERS
    return [Part.make(space, part, seed, others, num_alone) for part in parts]


def _some(rng: np.random.Generator, archs: list[Arch], n: int) -> list[Arch]:
    return [archs[i] for i in rng.permutation(len(archs))[:n]]
