"""What a race did to the trials: which got fewer images, and the sentence about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oneshot.report.text import DASH, count, mapping, number

Row = Mapping[str, Any]


def all_images(race: Row) -> float | None:
    """How many images there were to score.

    Args:
        race: The result's race; empty where there was none.

    Returns:
        The number, or None if there was no race.
    """
    return number(mapping(race.get("images")).get("all"))


def on_fewer(trial: Row, images: float | None) -> bool:
    """Whether a trial was scored on fewer images than there were.

    Args:
        trial: A row of the trial store.
        images: How many there were; None where there was no race.

    Returns:
        The answer; no, where the trial does not say.

    Example:
        >>> on_fewer({"scores": {"n": 25}}, 100)
        True
    """
    n = number(mapping(trial.get("scores")).get("n"))
    return images is not None and n is not None and n < images


def described(race: Row, trials: Sequence[Row]) -> str:
    """What the race was, and how many trials it stopped early.

    Args:
        race: The result's race, not empty.
        trials: Rows of the trial store.

    Returns:
        Text.
    """
    every, confidence = all_images(race), number(race.get("confidence"))
    sure = DASH if confidence is None else f"{100 * confidence:g} %"
    text = (
        "Racing was on: of the subnets scored together, one that could no more be "
        f"among the best {count(race.get('top'))}, at a confidence of {sure}, got no "
        "more images. "
    )
    fewer = sum(on_fewer(trial, every) for trial in trials)
    if not fewer or every is None:
        return text + "Every subnet kept up, and was scored on all images."
    text += f"{fewer:,} of {len(trials):,} were scored on fewer than the {every:,.0f} "
    least = number(mapping(race.get("images")).get("least"))
    text += "images" if least is None else f"images, on {least:,.0f} at least"
    return text + (
        ". They are drawn hollow: their losses are less certain, and small ones may be "
        "on the front all the same."
    )
