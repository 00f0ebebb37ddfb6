"""The command line: `oneshot quickstart | train | search | extract | report | profile`.

Nothing that loads JAX is imported before a command runs, so that help is instant.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from oneshot.settings import ProfileSettings, RunSettings, SearchSettings

Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """Train a supernet on scikit-learn's digits, search it, tune and test the best."""

    out: Path = Path("runs/quickstart")
    """The run directory; an interrupted run goes on, a finished one is shown."""
    seed: int = 0
    """Decides everything random: the same seed, the same result."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a supernet into a run directory, or go on from its last checkpoint."""

    out: Path
    """The run directory."""
    settings: Annotated[RunSettings, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=RunSettings
    )


@dataclasses.dataclass(frozen=True)
class Search:
    """Search a trained supernet by inherited weights."""

    run: Positional[Path]
    """The run directory."""
    json: bool = False
    """Print the front as JSON, with each subnet's option indices, scores and costs."""
    settings: Annotated[SearchSettings, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=SearchSettings
    )


@dataclasses.dataclass(frozen=True)
class Extract:
    """Extract a subnet as a stand-alone model into RUN/best, tuned if asked for."""

    run: Positional[Path]
    """The run directory."""
    arch: str | None = None
    """Which one, as a JSON list of option indices; None takes the best trial."""
    max_macs: int | None = None
    """Bound on multiply-adds for the best trial."""
    tune_steps: int = 0
    """Steps of tuning before it is saved."""
    tune_rate: float | None = None
    """Highest learning rate of tuning; None for 0.3 times the run's."""
    test: bool = False
    """Open the test split, for its accuracy or the like; the run remembers that."""
    json: bool = False
    """Print what was saved as JSON instead of a sentence."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html from what a run directory holds."""

    run: Positional[Path]
    """The run directory."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """Describe a space: how large it is and what its networks cost, before training."""

    settings: Annotated[ProfileSettings, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=ProfileSettings
    )


Command = Quickstart | Train | Search | Extract | Report | Profile


def main(args: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0, or 2 for bad input."""
    try:
        _run(_parse(args))
    except KeyboardInterrupt:
        print(
            "Interrupted. The same command goes on from the last checkpoint (one a "
            "minute) and the stored trials.",
            file=sys.stderr,
        )
        return 130
    except _BAD_INPUT as error:
        if os.environ.get("ONESHOT_TRACEBACK"):
            raise
        text = str(error.args[0] if len(error.args) == 1 else error)
        if isinstance(error, KeyError | TypeError):  # perhaps not meant for a user
            text += " (ONESHOT_TRACEBACK=1 shows where.)"
        print(f"oneshot: {text}", file=sys.stderr)
        return 2
    return 0


# What the library raises with a message for its user.
_BAD_INPUT = (ValueError, OSError, TypeError, KeyError, ArithmeticError, MemoryError)


def _parse(args: list[str] | None) -> Any:
    return tyro.cli(
        Command,  # type: ignore[arg-type]
        prog="oneshot",
        description="One-shot neural architecture search in JAX.",
        args=args,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _run(command: Any) -> None:
    from rich.console import Console  # not needed for help

    # Without running ahead of the device, a CPU reuses the memory of what is done:
    # a third fewer page faults a step (docs/design/0002). Accelerators do not read it.
    os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "false")
    from oneshot import commands

    console = Console(highlight=False)
    if isinstance(command, Quickstart):
        commands.quickstart(console, command.out, command.seed)
    elif isinstance(command, Train):
        commands.train(console, command.out, command.settings)
    elif isinstance(command, Search):
        commands.search(console, command.run, command.settings, command.json)
    elif isinstance(command, Extract):
        commands.extract(console, command.run, _extract_options(command))
    elif isinstance(command, Profile):
        commands.profile(console, command.settings)
    else:
        commands.report(console, command.run)


def _extract_options(command: Extract) -> dict[str, Any]:
    options = dataclasses.asdict(command)
    del options["run"]
    if command.arch is not None and command.max_macs is not None:
        raise ValueError(
            "--max-macs bounds the best trial of the search, but --arch names a subnet "
            "whatever it costs. Leave out one of the two."
        )
    if command.arch is not None:
        try:
            options["arch"] = list(json.loads(command.arch))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"--arch is a JSON list of option indices such as '[0, 1, 2]', but got "
                f"{command.arch!r}."
            ) from error
    return options


if __name__ == "__main__":
    raise SystemExit(main())
