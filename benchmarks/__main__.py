"""Runs every benchmark and rewrites the README's tables from what they wrote.

python -m benchmarks            # all of it, then the tables
python -m benchmarks --tables   # the tables, from the results that are there
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from benchmarks import quickstart

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BENCHMARKS = ("path_cost", "quickstart")
# (benchmark, key, what it says, format)
ROWS = (
    (
        "path_cost",
        "median_ratio",
        "training step, chain of blocks over the faster single jit: median",
        "{:.2f}",
    ),
    ("path_cost", "worst_ratio", "the same, worst case", "{:.2f}"),
    ("path_cost", "memory_ratio", "the same, memory of the step", "{:.2f}"),
    (
        "path_cost",
        "programs_nb_macro",
        "programs compiled for all of NAS-Bench-Macro's 6,561 archs",
        "{:.0f}",
    ),
    ("path_cost", "warmup_seconds_nb_macro", "seconds to compile them", "{:.0f}"),
    ("path_cost", "compiled_after_warmup", "programs compiled after that", "{:.0f}"),
)


def main() -> None:
    """Run what was asked for."""
    if "--tables" not in sys.argv:
        for name in BENCHMARKS:
            file = RESULTS / f"{name}.json"
            command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)]
            subprocess.run(command, cwd=ROOT, check=True)
    readme = ROOT / "README.md"
    text = _replace(readme.read_text(), "benchmarks", _measured())
    file = RESULTS / "quickstart.json"
    if file.is_file():
        text = _replace(
            text, "quickstart", quickstart.table(json.loads(file.read_text()))
        )
    readme.write_text(text)
    print(_measured())


def _measured() -> str:
    lines = ["| measured | | by |", "|---|---:|---|"]
    device = ""
    for benchmark, key, what, form in ROWS:
        file = RESULTS / f"{benchmark}.json"
        if file.is_file():
            found = json.loads(file.read_text())
            device = found.get("device", device)
            value = form.format(found[key])
            lines.append(f"| {what} | {value} | `python -m benchmarks.{benchmark}` |")
    return "\n".join([*lines, "", f"Device: {device}." if device else ""]).rstrip()


def _replace(text: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name} -->).*?(<!-- /{name} -->)"
    return re.sub(pattern, lambda m: f"{m[1]}\n\n{content}\n\n{m[2]}", text, flags=re.S)


if __name__ == "__main__":
    main()
