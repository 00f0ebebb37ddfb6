"""Inline SVG plots as text: points, lines, bands, axes, legends.

A plot is `chart(x, y, marks, ...)`, where the scales map values to the units of its
view box and the marks are elements drawn with those scales. Colours come from the
page's style sheet by class names, so that one drawing serves light and dark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from oneshot.report.scales import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Scale
from oneshot.report.text import escape, number, plain_ticks

LINE_HEIGHT, CHARACTER = 14, 6.2

Point = tuple[float, float]
TickFormat = Callable[[Sequence[float]], list[str]]


def scatter(
    x: Scale,
    y: Scale,
    points: Sequence[Point],
    *,
    css: str,
    radius: float = 3.5,
    errors: Sequence[float | None] = (),
    titles: Sequence[str] = (),
) -> str:
    """Points, with vertical error bars and texts to show on hovering.

    Args:
        x: Scale of the first coordinates.
        y: Scale of the second.
        points: Finite coordinates.
        css: Class of the points.
        radius: In units of the view box.
        errors: Half the length of each bar, in values; None for no bar.
        titles: One text a point.

    Returns:
        The elements.
    """
    out = []
    for point, error in zip(points, errors, strict=bool(errors)):
        if error:
            top, bottom = y(point[1] + error), y(point[1] - error)
            out.append(f'<path class="bar {css}" d="M{x(point[0])} {top}V{bottom}"/>')
    for i, (a, b) in enumerate(points):
        title = f"<title>{escape(titles[i])}</title>" if titles else ""
        circle = f'<circle class="{css}" cx="{x(a)}" cy="{y(b)}" r="{radius}"'
        out.append(f"{circle}>{title}</circle>" if title else f"{circle}/>")
    return "".join(out)


def line(x: Scale, y: Scale, points: Sequence[Point], *, css: str) -> str:
    """A line through the points; nothing for fewer than two.

    Args:
        x: Scale of the first coordinates.
        y: Scale of the second.
        points: Finite coordinates, in the order of drawing.
        css: Class of the line.

    Returns:
        The element.
    """
    if len(points) < 2:
        return ""
    path = "L".join(f"{x(a)} {y(b)}" for a, b in points)
    return f'<path class="line {css}" d="M{path}"/>'


def step_line(x: Scale, y: Scale, points: Sequence[Point], *, css: str) -> str:
    """A staircase through the points of a front, from the left to the right edge.

    Args:
        x: Scale of the first coordinates.
        y: Scale of the second.
        points: Finite coordinates, the first coordinate ascending.
        css: Class of the line.

    Returns:
        The element.
    """
    if not points:
        return ""
    steps = "".join(f"H{x(a)}V{y(b)}" for a, b in points[1:])
    first = f"{x(points[0][0])} {y(points[0][1])}"
    return f'<path class="line {css}" d="M{first}{steps}H{x.stop}"/>'


def band(
    x: Scale, y: Scale, lower: Sequence[Point], upper: Sequence[Point], *, css: str
) -> str:
    """The area between two lines; nothing for fewer than two points.

    Args:
        x: Scale of the first coordinates.
        y: Scale of the second.
        lower: The lower line.
        upper: The upper line.
        css: Class of the area.

    Returns:
        The element.
    """
    if min(len(lower), len(upper)) < 2:
        return ""
    path = "L".join(f"{x(a)} {y(b)}" for a, b in [*lower, *reversed(upper)])
    return f'<path class="band {css}" d="M{path}Z"/>'


def labels(places: Sequence[tuple[float, float, str]]) -> str:
    """Short texts beside points, placed where they cover neither one another nor these.

    Args:
        places: Units of the view box and the text of each, the first placed first.

    Returns:
        The elements; a text with no free place is left out (its point stays).
    """
    out = []
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py, _ in places]
    for px, py, text in places:
        long = CHARACTER * len(text)
        sides = (8, -8 - long)
        for dx, dy in [(dx, dy) for dy in (-6, 18, -20, 32, 6) for dx in sides]:
            box = (px + dx, py + dy - LINE_HEIGHT, px + dx + long, py + dy)
            inside = box[0] > LEFT and box[2] < WIDTH and box[1] > 0
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                place = f'x="{px + dx:.1f}" y="{py + dy - 3:.1f}"'
                out.append(f'<text class="label" {place}>{escape(text)}</text>')
                break
    return "".join(out)


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def chart(
    x: Scale,
    y: Scale,
    marks: Sequence[str],
    *,
    title: str,
    names: tuple[str, str],
    formats: tuple[TickFormat, TickFormat] = (plain_ticks, plain_ticks),
) -> str:
    """The `<svg>` of marks over a grid with labelled axes.

    Args:
        x: Scale along the width.
        y: Scale up the height.
        marks: Elements, drawn in this order.
        title: What a screen reader says.
        names: What x and y measure.
        formats: From the ticks to their texts, for x and for y.

    Returns:
        The element.
    """
    bottom = y.start
    axis = f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>'
    under = f'<text class="name" x="{WIDTH - RIGHT}" y="{bottom + 44}">'
    body = "".join([_grid(x, y, formats), axis, *marks])
    return (
        f'<p class="y-name">{escape(names[1])}</p>'
        f'<svg viewBox="0 0 {WIDTH} {bottom + BOTTOM:g}" role="img">'
        f"<title>{escape(title)}</title>{body}"
        f"{under}{escape(names[0])}</text></svg>"
    )


def _grid(x: Scale, y: Scale, formats: tuple[TickFormat, TickFormat]) -> str:
    ticks = x.ticks(), y.ticks()
    across = [
        f'<path class="grid" d="M{LEFT} {y(t)}H{WIDTH - RIGHT}"/>'
        f'<text class="tick y" x="{LEFT - 8}" y="{y(t) + 4}">{escape(text)}</text>'
        for t, text in zip(ticks[1], formats[1](ticks[1]), strict=True)
    ]
    up = [
        f'<path class="grid" d="M{x(t)} {TOP}V{y.start}"/>'
        f'<text class="tick x" x="{x(t)}" y="{y.start + 20}">{escape(text)}</text>'
        for t, text in zip(ticks[0], formats[0](ticks[0]), strict=True)
    ]
    return "".join(across + up)


def legend(entries: Sequence[tuple[str, str, str]]) -> str:
    """A list of swatches and words, which wraps on narrow pages.

    Args:
        entries: Kind of swatch ("dot", "line" or "band"), class and words of each.

    Returns:
        The element.
    """
    shapes = {
        "dot": '<circle class="{}" cx="9" cy="6" r="4"/>',
        "line": '<path class="line {}" d="M1 6H17"/>',
        "band": '<path class="band {}" d="M1 1H17V11H1Z"/>',
    }
    items = "".join(
        '<li><svg class="swatch" viewBox="0 0 18 12" aria-hidden="true">'
        f"{shapes[kind].format(escape(css))}</svg>{escape(words)}</li>"
        for kind, css, words in entries
    )
    return f'<ul class="legend">{items}</ul>'


def span(value: Any, low: Any, high: Any) -> str:
    """A number with its interval between −1 and 1, as a picture for a table cell.

    Args:
        value: The number; nothing is drawn if it is missing.
        low: Lower end of the interval, or None.
        high: Upper end, or None.

    Returns:
        The element.
    """
    scale = Scale(-1.0, 1.0, 4.0, 136.0, False)
    found, ends = number(value), (number(low), number(high))
    if found is None:
        return ""
    bar = ""
    if ends[0] is not None and ends[1] is not None:
        bar = f'<path class="line tau" d="M{scale(ends[0])} 8H{scale(ends[1])}"/>'
    return (
        '<svg class="span" viewBox="0 0 140 16" aria-hidden="true">'
        f'<path class="axis" d="M4 8H136"/><path class="axis" d="M70 3V13"/>{bar}'
        f'<circle class="tau" cx="{scale(found)}" cy="8" r="4"/></svg>'
    )
