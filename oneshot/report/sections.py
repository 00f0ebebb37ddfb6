"""The report's first half: results, front, trust in the ranking, training.

A section whose numbers are not there says which command adds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oneshot.report import plots, svg
from oneshot.report.blocks import missing, section, table
from oneshot.report.headline import Headline
from oneshot.report.race import all_images, described
from oneshot.report.ranked import BY_LOSS, Ranked
from oneshot.report.text import (
    DASH,
    count,
    escape,
    fixed,
    interval,
    mappings,
    number,
)

Row = Mapping[str, Any]
# The steps over a run directory, by what they add.
COMMANDS = {
    "train": "oneshot train",
    "search": "oneshot search",
    "tune": "oneshot extract",
    "all": "oneshot quickstart",
}


def results(rows: Sequence[Row], headline: Headline, ranked: Ranked = BY_LOSS) -> str:
    """The table of chosen subnets and of those they are compared with.

    Args:
        rows: The result's rows.
        headline: The metric that they are judged by.
        ranked: What the last search ranked by; a column, if not the loss.

    Returns:
        HTML.
    """
    if not rows:
        return section("Results", missing("No subnet is extracted", COMMANDS["tune"]))
    more = [] if ranked == BY_LOSS else [ranked.score]
    cells = [
        (
            f'<span class="role">{escape(row.get("role") or DASH)}</span>',
            f'<span class="network">{escape(_network(row))}</span>',
            _count_cell(row.get("params")),
            _count_cell(row.get("macs")),
            _with_error(row, "inherited_loss"),
            *(_with_error(row, f"inherited_{name}") for name in more),
            headline.inherited(row),
            f"<strong>{headline.tuned(row)}</strong>",
            headline.bounds(row),
        )
        for row in rows
    ]
    marked = [i for i, row in enumerate(rows) if row.get("chosen")]
    sizes = sorted({int(n) for row in rows if (n := number(row.get("test_n")))})
    note = (
        "Validation columns: with weights inherited from the supernet. The last "
        "search chose the marked rows; the others are there to compare with."
    )
    if sizes:
        tested = ", ".join(f"{n:,}" for n in sizes)
        note += f" Test {headline.words}: on {tested} examples the search never saw."
    return section(
        "Results", table(_head(headline, ranked), cells, marked=marked), note
    )


def _head(headline: Headline, ranked: Ranked) -> Sequence[str]:
    return (
        "Role",
        "Subnet",
        "Parameters",
        "Multiply-adds",
        "Validation loss",
        *([] if ranked == BY_LOSS else [ranked.title]),
        f"Validation {headline.words}",
        f"Test {headline.words}, tuned",
        "95 % interval" + ", %" * headline.share,
    )


def _network(row: Row) -> str:
    return str(row.get("network") or row.get("arch") or DASH)


def _count_cell(value: Any) -> str:
    found = number(value)
    exact = "" if found is None else f' title="{found:,.0f}"'
    return f"<span{exact}>{count(value)}</span>"


def _with_error(row: Row, key: str) -> str:
    value, error = row.get(key), row.get(f"{key}_se")
    if number(error) is None:
        return fixed(value)
    return f'{fixed(value)} <small class="muted">± {fixed(error)}</small>'


def found_front(
    trials: Sequence[Row], rows: Sequence[Row], race: Row, ranked: Ranked
) -> str:
    """The front of the search.

    Args:
        trials: Rows of the trial store.
        rows: The result's rows.
        race: The result's race; empty where there was none.
        ranked: What ranked them.

    Returns:
        HTML.
    """
    title = "What the search found"
    images = all_images(race)
    figure = plots.front_figure(trials, rows, images, ranked) if trials else ""
    if not figure:
        return section(title, missing("Nothing is scored", COMMANDS["search"]))
    done = sum(trial.get("status") != "failed" for trial in trials)
    note = (
        f"{done:,} subnets scored with inherited weights: lower and further left is "
        "better. Point at a dot for its architecture."
    )
    raced = f'<p class="words">{escape(described(race, trials))}</p>' if race else ""
    return section(title, f"{raced}<figure>{figure}</figure>", note)


def trust(ranking: Row, ranked: Ranked = BY_LOSS) -> str:
    """How well inherited weights rank subnets, beside rankings that cost nothing.

    Args:
        ranking: The result's ranking.
        ranked: What the last search ranked by.

    Returns:
        HTML.
    """
    title = "How far to trust this ranking"
    if number(ranking.get("tau")) is None:
        return section(title, missing("The ranking is not measured", COMMANDS["all"]))
    words, body = ranking.get("words"), ""
    if ranked != BY_LOSS:
        body = (
            f"<p>The last search ranked by {escape(ranked.words)}; what follows is of "
            "validation losses, and says nothing of that.</p>"
        )
    body += f'<p class="words">{escape(words)}</p>' if words else ""
    rows = [
        _tau_row("Inherited validation loss", ranking),
        *(
            _tau_row(name, _tau_of(ranking[key]))
            for key, name in (
                ("macs", "Multiply-adds alone"),
                ("params", "Parameters alone"),
                ("depth", "Depth alone"),
                ("partial_given_macs", "Inherited loss, given the multiply-adds"),
                ("tau_within", "Inherited loss, equal covariates only"),
                ("top_half", "Inherited loss, better half only"),
                ("top_tenth", "Inherited loss, best tenth only"),
                ("ceiling", "Ceiling: seed against seed"),
            )
            if ranking.get(key) is not None
        ),
    ]
    head = ("Ranked by", "Kendall's τ", "95 % interval", "−1 to 1")
    n, drawn = number(ranking.get("n")), ranking.get("drawn")
    note = "Kendall's τ against validation loss after tuning"
    note += f", over {n:,.0f} subnets" if n is not None else ""
    note += f" ({drawn})" if drawn else ""
    figure = plots.ranking_figure(mappings(ranking.get("pairs")))
    if figure:
        figure = f"<figure>{figure}</figure>"
    return section(title, body + table(head, rows, marked=[0]) + figure, f"{note}.")


def _tau_of(value: Any) -> Row:
    return value if isinstance(value, Mapping) else {"tau": value}


def _tau_row(name: str, tau: Row) -> tuple[str, ...]:
    value, low, high = tau.get("tau"), tau.get("low"), tau.get("high")
    return (
        escape(name),
        fixed(value, 2),
        interval(low, high, digits=2),
        svg.span(value, low, high),
    )


def training(metrics: Sequence[Row]) -> str:
    """The training curve of the supernet.

    Args:
        metrics: One row a logged step.

    Returns:
        HTML.
    """
    title = "Training the supernet"
    figure = plots.training_figure(metrics)
    if not figure:
        return section(title, missing("No training is logged", COMMANDS["train"]))
    return section(title, f"<figure>{figure}</figure>")
