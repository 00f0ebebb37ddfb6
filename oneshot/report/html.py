"""The report of a run as one page: no script, no request, readable in any browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from oneshot.report import record, sections
from oneshot.report.headline import Headline, headline
from oneshot.report.ranked import Ranked, ranked
from oneshot.report.text import (
    count,
    escape,
    fixed,
    mapping,
    mappings,
    number,
)

Row = Mapping[str, Any]
# The page asks the browser to refuse whatever it would have to fetch or execute.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(
    result: Mapping[str, Any],
    *,
    metrics: Sequence[Row],
    trials: Sequence[Row],
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> str:
    """The report of a run, as one self-contained HTML page.

    Whatever is missing, None or NaN is left out or shown as a dash; a section
    without its numbers says which command adds them.

    Args:
        result: What `result.json` holds.
        metrics: One row a logged training step, as in `metrics.jsonl`.
        trials: One row a trial, with `arch`, `scores`, `costs`, `status`, `reason`.
        config: The run's settings.
        environment: Versions, devices and the like.

    Returns:
        The page, to be written as UTF-8.

    Example:
        >>> page = render({}, metrics=[], trials=[], config={}, environment={})
        >>> page.startswith("<!DOCTYPE html>")
        True
    """
    result, trials, metrics = mapping(result), mappings(trials), mappings(metrics)
    rows = _marked(mappings(result.get("rows")), mapping(result.get("search")))
    parts = [
        _header(result, rows, metrics, trials),
        sections.results(rows, headline(result), ranked(result)),
        sections.found_front(trials, rows, mapping(result.get("race")), ranked(result)),
        sections.trust(mapping(result.get("ranking")), ranked(result)),
        sections.training(metrics),
        record.failures(trials),
        record.what_ran(result),
        record.space(mapping(result.get("space"))),
        record.settings(mapping(config), mapping(environment)),
    ]
    return _page(f"oneshot: {result.get('name') or 'report'}", "\n".join(parts))


def _page(title: str, body: str) -> str:
    style = resources.files("oneshot.report").joinpath("style.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _header(
    result: Row, rows: Sequence[Row], metrics: Sequence[Row], trials: Sequence[Row]
) -> str:
    space = mapping(result.get("space"))
    facts = [
        f"space {space['name']}" if space.get("name") else "",
        f"seed {result['seed']}" if result.get("seed") is not None else "",
        f"{len(trials):,} trials" if trials else "",
    ]
    by = ranked(result)
    winner = _winner(rows, by)
    if winner is not None:
        judged = headline(result)
        lead = _winner_sentence(winner, judged, by) + _comparison(winner, rows, judged)
    elif trials:
        lead = "<p>Searched; no subnet that this search chose is extracted yet.</p>"
    elif metrics:
        lead = "<p>Trained; nothing is searched yet.</p>"
    else:
        lead = "<p>Nothing has run yet.</p>"
    return (
        f"<header><h1>{escape(result.get('name') or 'Report')}</h1>"
        f'<div class="lead">{lead}</div>'
        f'<p class="muted">{escape(" · ".join(filter(None, facts)))}</p></header>'
    )


def _marked(rows: Sequence[Row], search: Row) -> list[Row]:
    """Rows, of which none counts as chosen that another search chose than the last.

    Rows of versions that did not say which are the last's where it does not say either.
    """

    def own(row: Row) -> bool:
        if "search" not in row:
            return "ranked_by" not in search
        return mapping(row["search"]) == search

    return [{**row, "chosen": bool(row.get("chosen")) and own(row)} for row in rows]


def _winner(rows: Sequence[Row], by: Ranked) -> Row | None:
    # As the search ranked: choosing by the test column would spoil the test column.
    key, chosen = f"inherited_{by.score}", [row for row in rows if row.get("chosen")]
    scored = [row for row in chosen if number(row.get(key)) is not None]
    if scored:
        return min(scored, key=lambda row: number(row[key]) or 0.0)
    return chosen[0] if chosen else None


def _winner_sentence(row: Row, judged: Headline, by: Ranked) -> str:
    name, words = row.get("network") or row.get("arch") or "a subnet", escape(by.words)
    text = f"Of the subnets that were extracted, the search's best by {words} is "
    text += f"<strong>{escape(name)}</strong>"
    text += f" ({escape(row['role'])})" if row.get("role") else ""
    sizes = [
        f"{count(row.get(key))} {words}"
        for key, words in (("params", "parameters"), ("macs", "multiply-adds"))
        if number(row.get(key)) is not None
    ]
    text += f", with {' and '.join(sizes)}" if sizes else ""
    if judged.is_tested(row):
        text += f": <strong>{judged.tuned(row)}</strong> "
        right = "of the test examples right"
        text += right if judged.proportion else _on_test(judged)
        text += f" after tuning{_between(row, judged)}."
    elif number(row.get("inherited_loss")) is not None:
        text += f": validation loss {fixed(row['inherited_loss'])} with inherited "
        text += "weights, not tuned yet."
    else:
        text += "."
    return f"<p>{text}</p>"


def _on_test(judged: Headline) -> str:
    return f"{escape(judged.words)} on the test examples"


def _between(row: Row, judged: Headline) -> str:
    bounds = row.get("tuned_low"), row.get("tuned_high")
    if None in map(number, bounds):
        return ""
    return f" (95 % interval {judged.bounds(row)})"


def _comparison(winner: Row, rows: Sequence[Row], judged: Headline) -> str:
    random = next((row for row in rows if row.get("role") == "random"), None)
    if random is None or not all(map(judged.is_tested, (winner, random))):
        return ""  # there is nothing to compare
    text = f"A random subnet, tuned alike, reaches {judged.tuned(random)}"
    text += _between(random, judged)
    if _overlap(winner, random):
        text += ": the intervals overlap, so this test alone does not tell them apart"
    return f"<p>{text}.</p>"


def _overlap(row: Row, other: Row) -> bool:
    low, high = number(row.get("tuned_low")), number(row.get("tuned_high"))
    below, above = number(other.get("tuned_low")), number(other.get("tuned_high"))
    if low is None or high is None or below is None or above is None:
        return False
    return low <= above and below <= high
