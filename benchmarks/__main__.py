"""Runs the benchmarks and rewrites the README's tables from what they wrote.

Rankings and their truths take hours each, so they are run by themselves
(`benchmarks.ranking_quality`, `benchmarks.truth`); their tables are rewritten here.

python -m benchmarks            # all of it, then the tables; four hours on two cores
python -m benchmarks --tables   # the tables, from the results that are there
python -m benchmarks --quick    # tries each out, and writes nothing
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

from benchmarks import quickstart, ranking_readme, spaces
from benchmarks.readme_rows import ROWS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BENCHMARKS = (
    "path_cost",
    "versus_pytorch",
    "rank_population",
    "scaling",
    "quickstart",
    "spaces",
)


def main() -> None:
    """Run what was asked for."""
    quick = "--quick" in sys.argv
    if "--tables" not in sys.argv:
        for name in BENCHMARKS:
            _run(name, quick)
    if not quick:
        _rewrite(ROOT / "README.md")
    for table in (*_tables().values(), _measured()):
        print(f"{table}\n")


def _run(name: str, quick: bool) -> None:
    if name == "versus_pytorch" and importlib.util.find_spec("torch") is None:
        print("versus_pytorch is left out: pip install -e '.[bench]'")
        return
    if name == "quickstart" and quick:
        return  # it knows only its whole length
    options = ["--quick"] if quick else ["--json", str(RESULTS / f"{name}.json")]
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    subprocess.run(command, cwd=ROOT, check=True)


def _rewrite(readme: Path) -> None:
    text = _replace(readme.read_text(), "benchmarks", _measured())
    for name, table in _tables().items():
        text = _replace(text, name, table)
    readme.write_text(text)


def _tables() -> dict[str, str]:
    """Return the tables of the benchmarks that make one of their own, by name."""
    out = {}
    for name, table in (("quickstart", quickstart.table), ("spaces", spaces.table)):
        file = RESULTS / f"{name}.json"
        if file.is_file():
            out[name] = table(json.loads(file.read_text()))
    rankings = [
        ranking_readme.table(json.loads(file.read_text()))
        for file in sorted(RESULTS.glob("ranking_quality*.json"))
    ]
    return out | ({"rankings": "\n\n".join(rankings)} if rankings else {})


def _measured() -> str:
    lines = ["| measured | | by |", "|---|---:|---|"]
    devices: dict[str, list[str]] = {}
    for benchmark, rows in ROWS.items():
        file = RESULTS / f"{benchmark}.json"
        if not file.is_file():
            continue
        found = json.loads(file.read_text())
        devices.setdefault(found["device"], []).append(benchmark)
        for key, what, form in rows:
            # None: not known for this device.
            if (value := found.get(key)) is not None:
                by = f"`python -m benchmarks.{benchmark}`"
                lines.append(f"| {what} | {form.format(value)} | {by} |")
    return "\n".join([*lines, "", _where(devices)]).rstrip()


def _where(devices: dict[str, list[str]]) -> str:
    if len(devices) > 1:
        each = (f"{kind} ({', '.join(names)})" for kind, names in devices.items())
        return f"Devices: {'; '.join(each)}."
    return f"Device: {next(iter(devices))}." if devices else ""


def _replace(text: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name} -->).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, flags=re.S):
        raise ValueError(f"The README has no place for the table {name!r}: {pattern}")
    return re.sub(pattern, lambda m: f"{m[1]}\n\n{content}\n\n{m[2]}", text, flags=re.S)


if __name__ == "__main__":
    main()
