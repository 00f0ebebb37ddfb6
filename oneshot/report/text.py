"""Numbers and values as the report prints them.

Whatever a run could not measure is None or NaN; both read as a dash, never as a
number.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

DASH = "–"
# Keeps a number and its unit on one line.
NBSP = "\xa0"
# What neither XML nor HTML can hold, escaped or not.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(value: object) -> str:
    """Text that is safe as content and inside a quoted attribute.

    Args:
        value: Anything; its `str` is taken.

    Returns:
        The escaped text; characters that HTML cannot hold become U+FFFD.

    Example:
        >>> escape("<b>")
        '&lt;b&gt;'
    """
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True)


def number(value: Any) -> float | None:
    """The value as a finite float.

    Args:
        value: Anything.

    Returns:
        The float; None for what is missing, not a number, NaN or infinite.

    Example:
        >>> number(float("nan")) is None
        True
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and not isinstance(value, str) else None


def fixed(value: Any, digits: int = 3) -> str:
    """A number with so many decimals, or a dash.

    Args:
        value: Anything.
        digits: Decimals.

    Returns:
        The text, with a true minus sign.

    Example:
        >>> fixed(0.25, 2)
        '0.25'
    """
    found = number(value)
    return DASH if found is None else f"{found:.{digits}f}".replace("-", "−")


def percent(value: Any, digits: int = 1) -> str:
    r"""A share as a percentage, or a dash.

    Args:
        value: A share of one.
        digits: Decimals.

    Returns:
        The text, with its sign.

    Example:
        >>> percent(0.973)
        '97.3\xa0%'
    """
    found = number(value)
    return DASH if found is None else f"{100 * found:.{digits}f}{NBSP}%"


def interval(low: Any, high: Any, *, scale: float = 1.0, digits: int = 3) -> str:
    """Two bounds, or a dash if either is missing.

    Args:
        low: Lower bound.
        high: Upper bound.
        scale: Factor on both, 100 for percentages.
        digits: Decimals.

    Returns:
        The text.

    Example:
        >>> interval(0.951, 0.986, scale=100, digits=1)
        '95.1 to 98.6'
    """
    bounds = number(low), number(high)
    if bounds[0] is None or bounds[1] is None:
        return DASH
    return f"{fixed(scale * bounds[0], digits)} to {fixed(scale * bounds[1], digits)}"


def count(value: Any) -> str:
    r"""A count with three digits and the suffix k, M, G or T, or a dash.

    Args:
        value: A number.

    Returns:
        The text.

    Example:
        >>> count(312_456)
        '312\xa0k'
    """
    found = number(value)
    if found is None:
        return DASH
    power = 0
    while abs(found) >= 999.5 and power < 4:
        found, power = found / 1000, power + 1
    whole = abs(found) >= 99.95 or found == int(found)
    shown = f"{found:.0f}" if whole else f"{found:#.3g}"
    return (shown + NBSP * bool(power) + ["", "k", "M", "G", "T"][power]).replace(
        "-", "−"
    )


def plain_ticks(values: Sequence[float]) -> list[str]:
    """The values of an axis, all with as many decimals as the finest needs.

    Args:
        values: The ticks.

    Returns:
        One text a tick.

    Example:
        >>> plain_ticks([0.4, 0.45])
        ['0.40', '0.45']
    """
    shown = [f"{value:g}" for value in values]
    if any("e" in text for text in shown):
        return [text.replace("-", "−") for text in shown]
    digits = max((len(text.partition(".")[2]) for text in shown), default=0)
    return [fixed(value, digits) for value in values]


def count_ticks(values: Sequence[float]) -> list[str]:
    r"""The counts of an axis, without trailing zeros.

    Args:
        values: The ticks.

    Returns:
        One text a tick.

    Example:
        >>> count_ticks([800.0, 1200.0])
        ['800', '1.2\xa0k']
    """
    # Zeros are trailing only behind a point: "1.20 k", not "120 k".
    zeros = re.compile(r"\.0+(?=\D|$)|(?<=\.\d)0+(?=\D|$)")
    return [zeros.sub("", count(value)) for value in values]


def seconds(value: Any) -> str:
    r"""A duration in the largest fitting units, or a dash.

    Args:
        value: Seconds.

    Returns:
        The text.

    Example:
        >>> seconds(75)
        '1\xa0min 15\xa0s'
    """
    found = number(value)
    if found is None:
        return DASH
    if abs(found) < 59.95:
        return f"{found:.1f}{NBSP}s"
    minutes, rest = divmod(round(found), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60}{NBSP}min"


def flatten(tree: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of a dotted name and a value.

    Args:
        tree: Mappings of anything.
        prefix: Put before each name.

    Returns:
        Rows in the order of the mappings; lists in one row, as JSON.

    Example:
        >>> flatten({"train": {"steps": 10}})
        [('train.steps', '10')]
    """
    if isinstance(tree, Mapping) and tree:
        return [
            row
            for name, value in tree.items()
            for row in flatten(value, f"{prefix}.{name}" if prefix else str(name))
        ]
    if isinstance(tree, str):
        return [(prefix, tree)]
    if tree is None:
        return [(prefix, DASH)]
    return [(prefix, json.dumps(tree, default=str, ensure_ascii=False))]


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list, the rest left out.

    Args:
        value: A list of rows, or None.

    Returns:
        The rows that are mappings.

    Example:
        >>> mappings([{"step": 1}, None])
        [{'step': 1}]
    """
    rows = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return [row for row in rows if isinstance(row, Mapping)]


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one.

    Args:
        value: A mapping, or None.

    Returns:
        A mapping.

    Example:
        >>> mapping(None)
        {}
    """
    return value if isinstance(value, Mapping) else {}
