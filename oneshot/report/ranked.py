"""Which score a search ranked subnets by, and its name in print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from oneshot.report.text import mapping

_WORDS = {
    "loss": "validation loss",
    "alignment": "minus alignment of features",
    "refitted": "refitted head's error",
}


class Ranked(NamedTuple):
    """A score, less of which is better.

    Args:
        score: Its name among a trial's scores; a row's is `inherited_<score>`.
        words: Its name in print.
    """

    score: str = "loss"
    words: str = _WORDS["loss"]

    @staticmethod
    def of(score: str) -> Ranked:
        """The score of a name."""
        return Ranked(score, _WORDS.get(score, score))

    @property
    def title(self) -> str:
        """The words with a capital."""
        return self.words[:1].upper() + self.words[1:]


BY_LOSS = Ranked()


def ranked(result: Mapping[str, Any]) -> Ranked:
    """What the last search minimised, beside multiply-adds perhaps.

    Args:
        result: What `result.json` holds.

    Returns:
        The score; the loss, where nothing is said.

    Example:
        >>> ranked({"search": {"ranked_by": "refitted"}}).title
        "Refitted head's error"
    """
    name = mapping(result.get("search")).get("ranked_by")
    if not isinstance(name, str) or not name:
        return BY_LOSS
    return Ranked.of(name)
