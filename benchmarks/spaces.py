"""Trains, searches, extracts, tunes and tests each space on real data, by `oneshot`.

    python -m benchmarks.spaces --json benchmarks/results/spaces.json
    python -m benchmarks.spaces --only vit

The data files are in the folder that `--data` or ONESHOT_DATA names. Each space takes
less than six minutes on two CPU cores. The network that is tested is the best of the
search by inherited validation loss, tuned; the test split is opened once, at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.results import environment, write
from benchmarks.space_recipes import QUICK, RECIPES, Recipe

ROOT = Path(__file__).parent.parent
_STEPS = ("train", "search", "extract")
_HEAD = ("space", "data", "test (95 %)", "baseline", "parameters", "multiply-adds")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write; what is there stays")
    parser.add_argument("--only", action="append", choices=list(RECIPES))
    parser.add_argument("--quick", action="store_true", help="a few steps, to try out")
    parser.add_argument("--data", type=Path, help="folder of data files")
    args = parser.parse_args()
    if args.data:  # the commands and their data functions read it there
        os.environ["ONESHOT_DATA"] = str(args.data.resolve())
    if not os.environ.get("ONESHOT_DATA"):
        print("The spaces are left out: ONESHOT_DATA names no folder of data files.")
        return
    results: dict[str, Any] = {}
    if args.json and args.json.is_file():  # of the spaces that are not run now
        here, before = environment(), json.loads(args.json.read_text())
        results |= {k: v for k, v in before.items() if k not in here}
    for name in args.only or RECIPES:
        recipe = RECIPES[name]
        results |= measured(name, recipe, args.quick)
        baseline = recipe.keys[1]
        if not args.quick:
            results[baseline] = recipe.baseline()
        print(json.dumps({k: results.get(k) for k in recipe.keys}), flush=True)
    write(args.json, results)
    Console().print(rich_table(results))


def measured(name: str, recipe: Recipe, quick: bool = False) -> dict[str, Any]:
    """Run one space's three commands and return what they found, by flat names.

    Args:
      name: The space's.
      recipe: Its arguments.
      quick: Whether to take a few steps only.

    Returns:
      The headline with its interval, the network, and seconds and CPU seconds in all
      and of each command.
    """
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / name
        for step in _STEPS:
            options = dict(getattr(recipe, step)) | (QUICK[step] if quick else {})
            wall, cpu = _timed(command(step, run, options), Path(folder) / "cache")
            out[f"{name}_seconds_{step}"], out[f"{name}_cpu_seconds_{step}"] = wall, cpu
        result = json.loads((run / "result.json").read_text())
    for clock in ("seconds", "cpu_seconds"):
        out[f"{name}_{clock}"] = sum(out[f"{name}_{clock}_{s}"] for s in _STEPS)
    row = result["rows"][-1]
    out[recipe.keys[0]] = row[f"tuned_{recipe.metric}"]
    out[f"{name}_inherited"] = row[f"inherited_{recipe.metric}"]
    for key in ("tuned_low", "tuned_high", "test_n", "params", "macs", "network"):
        out[f"{name}_{key.removeprefix('tuned_')}"] = row[key]
    return out | {f"{name}_space_size": float(result["space"]["size"])}


def command(step: str, run: Path, options: Mapping[str, Any]) -> list[str]:
    """Return the command line of one step over a run directory.

    Example:
      >>> command("search", Path("runs/vit"), {"budget": 8})[-3:]
      ['runs/vit', '--budget', '8']
    """
    place = ["--out", str(run)] if step == "train" else [str(run)]
    words = [sys.executable, "-m", "oneshot.cli", step, *place]
    for name, value in options.items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return [*words, "--test"] if step == "extract" else words


def _timed(words: list[str], cache: Path) -> tuple[float, float]:
    """Run a command; return its seconds and its CPU seconds.

    Programs that the command before has compiled are read from `cache`.
    """

    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    start, before = time.perf_counter(), cpu()
    environ = os.environ | {"ONESHOT_CACHE": str(cache)}
    subprocess.run(words, cwd=ROOT, check=True, env=environ)
    return time.perf_counter() - start, cpu() - before


def _row(name: str, recipe: Recipe, found: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return a space's cells, None where it was not run."""
    key, baseline = recipe.keys
    if found.get(key) is None:
        return None
    low, high = found[f"{name}_low"], found[f"{name}_high"]
    if recipe.metric == "accuracy":
        tested, form = f"{found[key]:.1%} ({low:.1%} to {high:.1%})", "{:.1%}"
    else:
        tested = f"{found[key]:.3f} {recipe.metric} ({low:.3f} to {high:.3f})"
        form = "{:.3f}"
    value = found.get(baseline)
    beside = "" if value is None else f"{form.format(value)}, {recipe.baseline_words}"
    counts = (f"{found[f'{name}_{k}']:,}" for k in ("params", "macs"))
    return (name, recipe.words, tested, beside, *counts)


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of all spaces that have results, times at the end."""
    out = []
    for name, recipe in RECIPES.items():
        if (row := _row(name, recipe, found)) is not None:
            wall, cpu = found[f"{name}_seconds"], found[f"{name}_cpu_seconds"]
            out.append((*row, f"{wall:.0f}", f"{cpu:.0f}"))
    return out


def rich_table(found: Mapping[str, Any]) -> Table:
    """Return the results for a terminal."""
    out = Table(
        title="Spaces on real data, from nothing to a test", title_justify="left"
    )
    for i, name in enumerate((*_HEAD, "seconds", "CPU seconds")):
        out.add_column(name, justify="right" if i > 3 else "left")
    for row in rows(found):
        out.add_row(*row)
    return out


def table(found: Mapping[str, Any]) -> str:
    """Return the README's table from the flat results."""
    head = (*_HEAD, "seconds", "CPU seconds")
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    note = (
        "Each is trained, searched, tuned and tested by `oneshot train`, `search` and "
        "`extract --tune-steps --test`; the seconds are of all three, compiling "
        f"included, on {found['cores']} cores. The network is the best of the search "
        "by inherited validation loss; each run opened its test split once, after "
        "tuning. The recipes of speech, decoder and tabular were changed after a test "
        "result of an earlier one had been seen, so theirs are slightly optimistic."
    )
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    main()
