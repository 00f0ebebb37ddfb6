"""A run directory: everything a second person needs to check or continue a run."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "oneshot-nas",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
)


class RunDirectory:
    """The files of a run; each is written whole or not at all.

    Args:
      path: The directory.

    Attributes:
      path: The directory.
      checkpoints, best, trials: Where those are kept.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints, self.best = self.path / "checkpoints", self.path / "best"
        self.trials = self.path / "trials.sqlite"

    def exists(self) -> bool:
        """Return whether there is a run here."""
        return (self.path / "config.json").is_file()

    def require(self) -> RunDirectory:
        """Return the directory itself, if it holds a run.

        Raises:
          FileNotFoundError: If it does not.
        """
        if not self.exists():
            raise FileNotFoundError(
                f"{str(self.path)!r} is not a run directory: it has no config.json. "
                "Name one that `oneshot train` or `oneshot quickstart` made."
            )
        return self

    def read(self, name: str, default: Any = None) -> Any:
        """Return the JSON value in a file, or `default` if there is no such file.

        Raises:
          ValueError: If the file is not JSON.
        """
        file = self.path / name
        if not file.is_file():
            return default
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{str(file)!r} is not JSON: {error}. Restore it, or start a new run."
            ) from error

    def write(self, name: str, value: Any) -> None:
        """Write a JSON value."""
        self.write_text(name, json.dumps(value, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, under another name first: a crash leaves the old."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.path / name)

    def update_result(self, **values: Any) -> dict[str, Any]:
        """Change entries of result.json and return it all; mappings are merged."""
        result = self.read("result.json", {})
        for key, value in values.items():
            if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
                value = {**result[key], **value}
            result[key] = value
        self.write("result.json", result)
        return result

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl, without a last one that was cut off."""
        file, rows = self.path / "metrics.jsonl", []
        if file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    break  # a crash in the middle of a line
        return rows

    def keep_metrics_before(self, step: int) -> None:
        """Drop rows that a resumed run will write again."""
        rows = [json.dumps(r) for r in self.metrics() if r["step"] < step]
        self.write_text("metrics.jsonl", "".join(f"{row}\n" for row in rows))

    def add_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def environment() -> dict[str, Any]:
    """Return versions, devices and the like, for environment.json."""
    import jax  # asks for the devices

    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": {"kind": devices[0].device_kind, "count": len(devices)},
        "backend": jax.default_backend(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
