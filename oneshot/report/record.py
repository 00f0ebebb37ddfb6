"""The report's second half: what ran, on what, with which settings and failures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from oneshot.report.blocks import folded, section, table
from oneshot.report.text import (
    DASH,
    count,
    escape,
    flatten,
    mapping,
    mappings,
    number,
    seconds,
)

Row = Mapping[str, Any]
MAX_CHOICES, MAX_FAILURES = 40, 12


def space(described: Row) -> str:
    """The choices of the space.

    Args:
        described: The result's space.

    Returns:
        HTML; empty if nothing is known of it.
    """
    choices = mappings(described.get("choices"))
    facts = [
        f"{count(described.get(key))} {words}"
        for key, words in (("size", "architectures"), ("distinct", "distinct networks"))
        if number(described.get(key)) is not None
    ]
    if described.get("fingerprint"):
        facts.append(f"fingerprint {described['fingerprint']}")
    if not choices and not facts:
        return ""
    rows = [
        (
            f"<code>{escape(choice.get('name', DASH))}</code>",
            " ".join(_chip(x) for x in choice.get("options") or ()),
        )
        for choice in choices
    ]
    body = table(("Choice", "Options"), rows[:MAX_CHOICES]) if rows else ""
    if len(rows) > MAX_CHOICES:
        body += f'<p class="note">and {len(rows) - MAX_CHOICES} more choices.</p>'
    return section("Space", folded(f"{len(rows)} choices", body), "; ".join(facts))


def _chip(option: Any) -> str:
    text = option if isinstance(option, str) else json.dumps(option, default=str)
    return f'<span class="chip">{escape(text)}</span>'


def what_ran(result: Row) -> str:
    """The seconds of each phase, the accesses to the test split, the command.

    Args:
        result: The whole result.

    Returns:
        HTML.
    """
    spent = mapping(result.get("seconds"))
    body = ""
    if spent:
        rows = [(escape(name), seconds(value)) for name, value in spent.items()]
        if "total" not in spent and len(rows) > 1:
            times = [number(value) or 0.0 for value in spent.values()]
            rows.append(("total", seconds(sum(times))))
        body += table(("Phase", "Time"), rows)
    if "test_opened" in result:
        opened = mappings(result["test_opened"])
        times = len(opened)
        often = {0: "was not opened", 1: "was opened once"}
        said = often.get(times, f"was opened {times} times")
        items = "".join(
            f"<li>{escape(x.get('time', DASH))}: {escape(x.get('reason', DASH))}</li>"
            for x in opened
        )
        body += f"<p>The test split {said}.</p>" + (
            f"<ul>{items}</ul>" if items else ""
        )
    if result.get("command"):
        body += (
            "<p>The same again, from nothing:</p>"
            f"<pre><code>{escape(result['command'])}</code></pre>"
        )
    return section("What ran", body) if body else ""


def failures(trials: Sequence[Row]) -> str:
    """The trials that failed, by reason.

    Args:
        trials: Rows of the trial store.

    Returns:
        HTML; empty if none failed.
    """
    failed = [trial for trial in trials if trial.get("status") == "failed"]
    if not failed:
        return ""
    reasons = Counter(str(t.get("reason") or "no reason recorded") for t in failed)
    example = {str(t.get("reason") or "no reason recorded"): t for t in failed}
    rows = [
        (
            escape(reason),
            f"{times:,}",
            f"<code>{escape(example[reason].get('arch', DASH))}</code>",
        )
        for reason, times in reasons.most_common(MAX_FAILURES)
    ]
    note = f"{len(failed):,} of {len(trials):,} trials gave no score, and cannot win."
    return section("Failures", table(("Reason", "Trials", "For example"), rows), note)


def settings(config: Row, environment: Row) -> str:
    """What was set, and where it ran.

    Args:
        config: The run's configuration, nested as it is.
        environment: Versions, devices and the like.

    Returns:
        HTML; empty if both are.
    """
    parts = ""
    for name, tree in (("Settings", config), ("Environment", environment)):
        rows = [
            (f"<code>{escape(key)}</code>", escape(value))
            for key, value in flatten(tree)
        ]
        parts += folded(name, table(("Name", "Value"), rows) if tree else "")
    return section("Settings and environment", parts) if parts else ""
