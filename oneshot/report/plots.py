"""The report's figures: the front, the ranking, the training curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from oneshot.report import svg
from oneshot.report.race import on_fewer
from oneshot.report.ranked import BY_LOSS, Ranked
from oneshot.report.scales import Scale, x_scale, y_scale
from oneshot.report.svg import Point
from oneshot.report.text import count, count_ticks, fixed, mapping, number, plain_ticks

Row = Mapping[str, Any]
MAX_BINS = 160
# With more points than this, error bars hide what they belong to.
MAX_BARS = 150


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other point beats in both coordinates.

    Args:
        points: Finite coordinates, both smaller the better.

    Returns:
        The front, the first coordinate ascending.

    Example:
        >>> front([(1.0, 3.0), (2.0, 4.0), (3.0, 1.0)])
        [(1.0, 3.0), (3.0, 1.0)]
    """
    kept: list[Point] = []
    for point in sorted(set(points)):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept


def front_figure(
    trials: Sequence[Row],
    rows: Sequence[Row],
    images: float | None = None,
    ranked: Ranked = BY_LOSS,
) -> str:
    """What ranked every scored subnet, over its multiply-adds.

    Args:
        trials: Rows of the trial store; those without a finite score are left out.
        rows: Rows of the result table, marked by their roles.
        images: How many images there were to score; trials on fewer are drawn hollow.
            None draws all alike.
        ranked: Which score ranks them.

    Returns:
        The chart and its legend; empty if there is nothing to draw.
    """
    points = [p for t in trials if (p := _scored(t, images, ranked)) is not None]
    marked = [(p, row) for row in rows if (p := _of_row(row, ranked)) is not None]
    every = [p.at for p in points] + [p.at for p, _ in marked]
    if not every:
        return ""
    values = [value for _, value in every]
    x = x_scale([macs for macs, _ in every], log=True)
    y = y_scale(values + _ends(points), log=0 < 8 * min(values) < max(values))
    chosen = [(p, row) for p, row in marked if row.get("chosen")]
    others = [(p, row) for p, row in marked if not row.get("chosen")]
    names = [(x(p.at[0]), y(p.at[1]), _role(row)) for p, row in [*chosen, *others]]
    marks = [
        *_front_marks(x, y, points),
        _dots(x, y, [p for p, _ in others], "other", radius=6.0),
        _dots(x, y, [p for p, _ in chosen], "chosen", radius=6.0),
        svg.labels(names),
    ]
    chart = svg.chart(
        x,
        y,
        marks,
        title=f"{ranked.title} over multiply-adds of {len(points)} subnets",
        names=(
            _named("multiply-adds", x),
            _named(ranked.words, y),
        ),
        formats=(count_ticks, plain_ticks),
    )
    hollow = any(p.fewer for p in points)
    return chart + _front_legend(hollow, bool(chosen), bool(others))


def _front_legend(hollow: bool, chosen: bool, others: bool) -> str:
    entries = [
        ("dot", "trial", "scored subnet"),
        *[("dot", "trial fewer", "scored on fewer images")] * hollow,
        ("line", "front", "front, with standard errors"),
    ]
    entries += [("dot", "chosen", "chosen")] * chosen
    entries += [("dot", "other", "compared with")] * others
    return svg.legend(entries)


def _named(name: str, scale: Scale) -> str:
    return f"{name} (log)" if scale.log else name


def _ends(points: Sequence[Mark]) -> list[float]:
    return [p.at[1] + sign * (p.error or 0.0) for p in points for sign in (-1, 1)]


def _front_marks(x: Scale, y: Scale, points: Sequence[Mark]) -> list[str]:
    best = front([p.at for p in points])
    on_front, bars = [p for p in points if p.at in set(best)], len(points) <= MAX_BARS
    return [
        *_whole_and_fewer(x, y, points, "trial", bars=bars),
        svg.step_line(x, y, best, css="front"),
        *_whole_and_fewer(x, y, on_front, "front", bars=True),
    ]


def _whole_and_fewer(
    x: Scale, y: Scale, points: Sequence[Mark], css: str, *, bars: bool
) -> list[str]:
    kinds = ((css, False), (f"{css} fewer", True))
    return [
        _dots(x, y, [p for p in points if p.fewer == fewer], kind, bars=bars)
        for kind, fewer in kinds
    ]


class Mark(NamedTuple):
    """A point of a figure.

    Args:
        at: Its coordinates.
        error: Standard error of the second, or None.
        text: What is shown on hovering.
        fewer: Whether it was scored on fewer images than others.
    """

    at: Point
    error: float | None
    text: str
    fewer: bool = False


def _scored(trial: Row, images: float | None, ranked: Ranked) -> Mark | None:
    scores, costs = mapping(trial.get("scores")), mapping(trial.get("costs"))
    macs, value = number(costs.get("macs")), number(scores.get(ranked.score))
    if macs is None or value is None or trial.get("status") == "failed":
        return None
    text = f"{trial.get('arch') or 'subnet'}: {ranked.words} {fixed(value)}, "
    text += count(macs)
    fewer = on_fewer(trial, images)
    if fewer:
        text += f", on {number(scores.get('n')):,.0f} of {images:,.0f} images"
    return Mark((macs, value), number(scores.get(f"{ranked.score}_se")), text, fewer)


def _of_row(row: Row, ranked: Ranked) -> Mark | None:
    key = f"inherited_{ranked.score}"
    macs, value = number(row.get("macs")), number(row.get(key))
    if macs is None or value is None:
        return None
    text = f"{_role(row)}: {ranked.words} {fixed(value)}, {count(macs)}"
    return Mark((macs, value), number(row.get(f"{key}_se")), text)


def _role(row: Row) -> str:
    return str(row.get("role") or "")


def _dots(
    x: Scale,
    y: Scale,
    points: Sequence[Mark],
    css: str,
    *,
    radius: float = 3.5,
    bars: bool = False,
) -> str:
    return svg.scatter(
        x,
        y,
        [p.at for p in points],
        css=css,
        radius=radius,
        errors=[p.error for p in points] if bars else (),
        titles=[p.text for p in points],
    )


def ranking_figure(pairs: Sequence[Row]) -> str:
    """Validation loss after tuning over validation loss with inherited weights.

    Args:
        pairs: Rows with `inherited_loss`, `tuned_loss` and `macs`.

    Returns:
        The chart and its legend; empty for fewer than two finite pairs.
    """
    keys = ("inherited_loss", "tuned_loss", "macs")
    found = [[number(pair.get(key)) for key in keys] for pair in pairs]
    points = [(a, b, c) for a, b, c in found if a is not None and b is not None]
    if len(points) < 2:
        return ""
    x, y = x_scale([p[0] for p in points]), y_scale([p[1] for p in points])
    # Thirds by size show whether the ranking says more than "larger is better".
    sizes = sorted(c for _, _, c in points if c is not None)
    sized = len(sizes) == len(points) and sizes[0] < sizes[-1]
    groups: list[list[Mark]] = [[], [], []]
    for a, b, c in points:
        third = 1
        if sized and c is not None:
            third = sum(c > sizes[len(sizes) * i // 3] for i in (1, 2))
        text = f"inherited {fixed(a)}, tuned {fixed(b)}, {count(c)} multiply-adds"
        groups[third].append(Mark((a, b), None, text))
    marks = [_dots(x, y, g, f"third-{i}", radius=5.0) for i, g in enumerate(groups)]
    chart = svg.chart(
        x,
        y,
        marks,
        title=f"Tuned over inherited validation loss of {len(points)} subnets",
        names=("validation loss, inherited weights", "validation loss, tuned"),
        formats=(plain_ticks, plain_ticks),
    )
    words = ("fewest multiply-adds", "middle third", "most multiply-adds")
    entries = [("dot", f"third-{i}", text) for i, text in enumerate(words)]
    return chart + (svg.legend(entries) if sized else "")


def training_figure(metrics: Sequence[Row]) -> str:
    """The loss by training step, averaged in bins, and the learning rate below it.

    Args:
        metrics: Rows with `step`, `loss` and perhaps `learning_rate`; steps whose
            loss is not finite are left out.

    Returns:
        The charts and their legend; empty for fewer than two finite losses.
    """
    losses = _series(metrics, "loss")
    if len(losses) < 2:
        return ""
    bins = _bins(losses)
    marks, y = _loss_marks(x_scale([a for a, _ in losses]), bins)
    chart = svg.chart(
        x_scale([a for a, _ in losses]),
        y,
        marks,
        title=f"Training loss over {len(losses)} logged steps",
        names=("step", _named("training loss", y)),
        formats=(count_ticks, plain_ticks),
    )
    size = len(bins[0])
    entries = [
        ("line", "loss", f"mean of {size} logged steps"),
        ("band", "loss", "without their lowest and highest tenth"),
    ]
    return chart + (svg.legend(entries) if size > 1 else "") + _rates(metrics)


def _loss_marks(x: Scale, bins: Sequence[Sequence[Point]]) -> tuple[list[str], Scale]:
    steps = [_mean(step for step, _ in points) for points in bins]
    ordered = [sorted(loss for _, loss in points) for points in bins]
    means = list(map(_mean, ordered))
    low = [losses[len(losses) // 10] for losses in ordered]
    high = [losses[-1 - len(losses) // 10] for losses in ordered]
    shown = means + low + high
    y = y_scale(shown, log=0 < 20 * min(shown) < max(shown))
    lines = [list(zip(steps, values, strict=True)) for values in (low, high, means)]
    area = svg.band(x, y, lines[0], lines[1], css="loss") if low != high else ""
    return [area, svg.line(x, y, lines[2], css="loss")], y


def _rates(metrics: Sequence[Row]) -> str:
    rates = _series(metrics, "learning_rate")
    if len({value for _, value in rates}) < 2:
        return ""
    points = [b[0] for b in _bins(rates)] + rates[-1:]
    x = x_scale([a for a, _ in points])
    y = y_scale([0.0, *(v for _, v in points)], height=190)
    mark = svg.line(x, y, points, css="rate")
    return svg.chart(
        x,
        y,
        [mark],
        title="Learning rate by step",
        names=("step", "learning rate"),
        formats=(count_ticks, plain_ticks),
    )


def _series(metrics: Sequence[Row], key: str) -> list[Point]:
    found = [(number(row.get("step")), number(row.get(key))) for row in metrics]
    return sorted((a, b) for a, b in found if a is not None and b is not None)


def _bins(points: Sequence[Point]) -> list[Sequence[Point]]:
    # Single paths differ in loss, so that even a short run is averaged a little.
    size = max(-(-len(points) // MAX_BINS), min(10, len(points) // 30), 1)
    return [points[i : i + size] for i in range(0, len(points), size)]


def _mean(values) -> float:
    found = list(values)
    return sum(found) / len(found)
