"""What a measured ranking says, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oneshot.diagnostics import Ranking, Taus


def words(found: Ranking) -> str:
    """Return a ranking's finding as prose, with every number that belongs beside it.

    Args:
      found: What was measured.

    Returns:
      A paragraph: the numbers, then what they allow to say.
    """
    parts = [_taus(found), _beside(found), _chosen(found), _ceilings(found)]
    parts.append(_guided(found))
    return " ".join([*(part for part in parts if part), verdict(found)])


def verdict(found: Ranking) -> str:
    """Return whether the scores beat what is free, and how much of the ceiling."""
    if math.isnan(found.tau):
        return "The inherited scores are all equal and so rank nothing."
    sentences = [
        _comparison("On all networks", found.overall),
        _comparison("On the better half", found.top_half),
        _share(found),
    ]
    return " ".join(s for s in sentences if s)


def _taus(found: Ranking) -> str:
    return (
        "Kendall's tau of inherited scores with the truth is "
        f"{found.overall.inherited} over {found.overall.n:,} networks ({found.drawn}); "
        f"{_free(found.overall)}. On the better half it is "
        f"{found.top_half.inherited}; {_free(found.top_half)}. On the best tenth, of "
        f"{found.top_tenth.n}, it is {found.top_tenth.inherited}."
    )


def _free(taus: Taus) -> str:
    return (
        f"parameters alone reach {taus.params}, multiply-adds {taus.macs}, depth "
        f"{taus.depth}"
    )


def _beside(found: Ranking) -> str:
    given = "undefined" if math.isnan(found.partial.value) else found.partial
    text = (
        f"Spearman's rho is {found.spearman}; Kendall's tau given the multiply-adds is "
        f"{given}"
    )
    if found.within is not None:
        if math.isnan(found.within.value):
            return f"{text}; no pair has equal covariates and unequal truths."
        pairs = f"the {found.pairs_within:,} pairs with equal covariates"
        text += f", and over {pairs} {found.within}"
    return f"{text}."


def _chosen(found: Ranking) -> str:
    return " ".join(
        f"Of the {k} best by score, the share among the {k} best by truth is "
        f"{found.precision[k]}, and the best of them is {found.regret[k]} worse than "
        "the best of all."
        for k in found.precision
    )


def _ceilings(found: Ranking) -> str:
    if found.overall.ceiling is None:
        return "The ceiling, seed against seed, is not known."
    text = f"The ceiling, seed against seed, is {found.overall.ceiling:.3f}"
    parts = (("better half", found.top_half), ("best tenth", found.top_tenth))
    known = [f"{t.ceiling:.3f} on the {k}" for k, t in parts if t.ceiling is not None]
    return ", ".join([text, *known]) + "."


def _guided(found: Ranking) -> str:
    if found.guided is None:
        return ""
    return (
        f"The supernet was guided ({found.guided}): part of this ranking was told "
        "rather than learnt."
    )


def _comparison(where: str, taus: Taus) -> str:
    name, value = taus.baseline
    baseline = f"the best trivial baseline, {name} ({value:.3f})"
    if math.isnan(taus.inherited.value):
        return f"{where} the scores or the truths are all equal."
    if taus.beats_baseline is None:
        return (
            f"{where} its lead over {baseline} is {taus.lead}: these networks do not "
            "show that the supernet ranks better."
        )
    better = "better" if taus.beats_baseline else "worse"
    return (
        f"{where} the supernet ranks {better} than {baseline}, a lead of {taus.lead}."
    )


def _share(found: Ranking) -> str:
    share, half = found.overall.ceiling_share, found.top_half.ceiling_share
    if share is None:
        return ""
    text = f"It reaches {share:.0%} of the ceiling"
    return f"{text}, {half:.0%} on the better half." if half is not None else f"{text}."
