"""What a search leaves in result.json: the key of its trials, and how it raced.

A run's store holds the trials of every search of the run, also of those by other
weights and with another race, whose scores are not to be mixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from oneshot.bound import Bound
from oneshot.evaluate import Evaluator
from oneshot.racing import Race
from oneshot.score_keys import settings_digest
from oneshot.settings import SearchSettings
from oneshot.trials import Trial


def race_of(settings: SearchSettings) -> Race | None:
    """Return the race that a search asks for, or None."""
    if settings.race_top is None:
        return None
    return Race(settings.race_top, settings.race_confidence)


def ranking_score(result: Mapping[str, Any]) -> str:
    """Return the score that the last search minimised, by what result.json holds."""
    return (result.get("search") or {}).get("ranked_by", "loss")


def record(
    bound: Bound, asked: SearchSettings, trials: Sequence[Trial] = ()
) -> dict[str, Any]:
    """Return entries of result.json about a search.

    Args:
      bound: What scored.
      asked: What was asked for.
      trials: What it scored so far.

    Returns:
      `search`, the digests that key its trials, the score that it minimised and what
      else was asked for; `race`, None where there was none.
    """
    race, n = bound.evaluator.race, bound.evaluator.n
    weights, settings = _key(bound)
    key = {
        "weights": weights,
        "settings": settings,
        "ranked_by": asked.rank_by,
        "asked": dataclasses.asdict(asked),
    }
    if race is None:
        return {"search": key, "race": None}
    images = [int(t.scores["n"]) for t in trials if "n" in t.scores]
    described = {
        "top": race.top,
        "confidence": race.confidence,
        "parts": race.parts,
        "images": {"least": min(images, default=n), "all": n},
    }
    return {"search": key, "race": described}


def last_trials(stored: Sequence[Trial], result: Mapping[str, Any]) -> list[Trial]:
    """Return those of the stored trials that are the last search's.

    Args:
      stored: The store, in order.
      result: What result.json holds; without a search, that of the last trial counts.
    """
    named = result.get("search")
    key = (named["weights"], named["settings"]) if named else _last_key(stored)
    return [trial for trial in stored if _key(trial) == key]


def is_current(
    trial: Trial, result: Mapping[str, Any], evaluator: Evaluator, weights: str
) -> bool:
    """Return whether scoring by the weights and data as they are now is still the same.

    Args:
      trial: Of the last search.
      result: What result.json holds.
      evaluator: What the last search scored by, without a race.
      weights: Digest of the weights as they are now.
    """
    settings = dict(evaluator.settings)
    if raced := result.get("race"):
        race = Race(raced["top"], raced["confidence"], raced["parts"])
        settings["race"] = dataclasses.asdict(race)
    return _key(trial) == (weights, settings_digest(settings))


def _key(scored: Trial | Bound) -> tuple[str, str]:
    return scored.weights_digest, scored.settings_digest


def _last_key(stored: Sequence[Trial]) -> tuple[str, str]:
    return _key(stored[-1]) if stored else ("", "")
