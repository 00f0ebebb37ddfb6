"""The number that a run's networks are judged by, as its report prints it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from oneshot.report.text import fixed, interval, mapping, number, percent

Row = Mapping[str, Any]


class Headline(NamedTuple):
    """A metric of the result's rows.

    Attributes:
        metric: Its key, behind `inherited_` and `tuned_`.
        words: Its name in print.
        share: Whether it is a share of one, printed as a percentage.
        proportion: Whether it is the share of the examples that are right.
    """

    metric: str = "accuracy"
    words: str = "accuracy"
    share: bool = True
    proportion: bool = True

    def inherited(self, row: Row) -> str:
        """The value on the validation split, with inherited weights."""
        return self._text(row.get(f"inherited_{self.metric}"))

    def tuned(self, row: Row) -> str:
        """The value on the test split, tuned."""
        return self._text(row.get(f"tuned_{self.metric}"))

    def is_tested(self, row: Row) -> bool:
        """Whether the row has a value on the test split."""
        return number(row.get(f"tuned_{self.metric}")) is not None

    def bounds(self, row: Row) -> str:
        """Its 95 % interval, in percent for a share."""
        ends = row.get("tuned_low"), row.get("tuned_high")
        if self.share:
            return interval(*ends, scale=100, digits=1)
        return interval(*ends, digits=4)

    def _text(self, value: Any) -> str:
        return percent(value) if self.share else fixed(value, 4)


def headline(result: Row) -> Headline:
    """The headline of a run.

    Args:
        result: The run's result; one without a headline is judged by accuracy.
    """
    named = mapping(result.get("headline"))
    if not named.get("metric"):
        return Headline()
    words = str(named.get("words") or named["metric"])
    return Headline(
        str(named["metric"]),
        words,
        "%" in str(named.get("form")),
        bool(named.get("proportion")),
    )
