"""What a directory already holds, against what a run is asked to be."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from oneshot.data import Data
from oneshot.rundir import RunDirectory
from oneshot.settings import RunSettings

_ADJUSTABLE = ("learning_rate", "clip_norm")  # may change while a run goes on


def settings_of(directory: RunDirectory, config: Any) -> dict[str, Any]:
    """Return the stored settings of a run, as JSON.

    Raises:
      ValueError: If the file is not of a run.
    """
    if not isinstance(config, dict) or not isinstance(config.get("run"), dict):
        raise ValueError(
            f"{str(directory.path / 'config.json')!r} is not of a run: it has no "
            "'run'. Name another directory."
        )
    return config["run"]


def check_content(path: Path, known: dict[str, str] | None, data: Data) -> None:
    """Raise ValueError if data is not what a run was trained on.

    Args:
      path: The run's directory, for the message.
      known: Fingerprints of the splits that it was trained with, if any.
      data: What its settings name now.
    """
    found = data.fingerprint
    differ = [name for name, own in (known or {}).items() if found.get(name) != own]
    if differ:
        raise ValueError(
            f"The run in {str(path)!r} was trained on other data than its settings name"
            f" now: of another content or none is {', '.join(differ)}. Bring back what "
            "it was trained on, or train into another directory: examples that it was "
            "trained on could be among those that it is tested on."
        )


def kept(stored: dict[str, Any], settings: RunSettings) -> RunSettings:
    """Return settings in which a run keeps what may change and was not named."""
    own, default = RunSettings.from_json(stored), RunSettings()
    unnamed = [k for k in _ADJUSTABLE if getattr(settings, k) == getattr(default, k)]
    return dataclasses.replace(settings, **{k: getattr(own, k) for k in unnamed})


def adjusted(stored: dict[str, Any], settings: RunSettings) -> str:
    """Return what a run that goes on does otherwise than before, in words, or ""."""
    now, own = settings.to_json(), RunSettings.from_json(stored).to_json()
    return ", ".join(
        f"{k} {now[k]} instead of {own[k]}" for k in _ADJUSTABLE if now[k] != own[k]
    )


def check_same(
    path: Path, stored: dict[str, Any], settings: RunSettings, finished: bool
) -> None:
    """Raise ValueError if a run was made with other settings, but for those that may
    change until it is finished."""
    now = settings.to_json()
    # What it was made without, it was made with at its default.
    stored = {**RunSettings().to_json(), **stored}
    differ = [
        f"{k} (there {stored.get(k)!r}, here {now[k]!r})"
        for k in now
        if stored.get(k) != now[k] and (finished or k not in _ADJUSTABLE)
    ]
    if differ:
        raise ValueError(
            f"{str(path)!r} holds a run of other settings: {', '.join(differ)}. To go "
            "on with it, give the settings it was made with; for another run, another "
            "--out."
        )
