"""The building blocks of the page: sections, tables, folded parts."""

from __future__ import annotations

from collections.abc import Sequence

from oneshot.report.text import escape


def section(title: str, body: str, note: str = "") -> str:
    """One titled section.

    Args:
        title: The heading.
        body: HTML.
        note: A sentence above the body.

    Returns:
        HTML.
    """
    lead = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{body}</section>"


def missing(what: str, command: str) -> str:
    """The line in place of a section whose numbers are not there.

    Args:
        what: What there is none of, with a capital.
        command: The command that adds it.

    Returns:
        HTML.
    """
    hint = f"<code>{escape(command)}</code>"
    return f'<p class="missing">{escape(what)} yet: {hint} adds it.</p>'


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, marked: Sequence[int] = ()
) -> str:
    """A table that scrolls sideways where the page is narrow.

    Args:
        head: Titles of the columns, escaped here.
        rows: Cells of HTML, the first of each row its heading.
        marked: Positions of the rows to stand out.

    Returns:
        HTML.
    """
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = ""
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{cell}</td>" for cell in row[1:])
        kind = ' class="chosen"' if i in marked else ""
        body += f'<tr{kind}><th scope="row">{row[0]}</th>{cells}</tr>'
    return (
        '<div class="scroll"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, body: str) -> str:
    """A part that opens on a click.

    Args:
        summary: What is seen of it at first.
        body: HTML.

    Returns:
        HTML; empty if the body is.
    """
    if not body:
        return ""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"
