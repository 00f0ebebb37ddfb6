"""Runs `oneshot quickstart`, and makes the README's picture and table from it.

    python -m benchmarks.quickstart --json benchmarks/results/quickstart.json

About a minute and a half on two CPU cores. The run's numbers do not depend on the
machine's load; its times do.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results import write
from oneshot.report.plots import front_figure
from oneshot.trials import Trials

ROOT = Path(__file__).parent.parent
_COLUMNS = ("params", "macs", "inherited_accuracy", "tuned_accuracy")


def main() -> None:
    """Run it, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out, start = Path(folder) / "run", time.perf_counter()
        command = [sys.executable, "-m", "oneshot.cli", "quickstart", "--out", str(out)]
        subprocess.run(command, check=True)
        wall = time.perf_counter() - start
        result = json.loads((out / "result.json").read_text())
        picture = _picture(out, result)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = {"wall_seconds": wall, "cpu_seconds": used.ru_utime + used.ru_stime}
    if args.json:
        write(args.json, times | _flat(result))
        (ROOT / "docs" / "quickstart.svg").write_text(picture, encoding="utf-8")


def _flat(result: dict[str, Any]) -> dict[str, Any]:
    ranking = result["ranking"]
    flat = {f"tau_{k}": ranking[k] for k in ("low", "high", "n")}
    flat |= {"tau": ranking["tau"], "tau_macs": ranking["macs"]["tau"]}
    flat |= {f"seconds_{k}": v for k, v in result["seconds"].items()}
    flat |= {"seed": result["seed"], "test_n": result["rows"][0]["test_n"]}
    for i, row in enumerate(result["rows"]):
        names = ("role", "network", "tuned_low", "tuned_high", *_COLUMNS)
        flat |= {f"row{i}_{name}": row[name] for name in names}
    return flat


def table(found: dict[str, Any]) -> str:
    """Return the README's table from the flat results."""
    head = "| | subnet | parameters | multiply-adds | inherited | tuned, test (95 %) |"
    lines = [head, "|---|---|---:|---:|---:|---:|"]
    i = 0
    while f"row{i}_role" in found:
        row = {
            k.partition("_")[2]: v for k, v in found.items() if k.startswith(f"row{i}_")
        }
        params, macs, inherited, tuned = (row[name] for name in _COLUMNS)
        interval = f"{row['tuned_low']:.1%} to {row['tuned_high']:.1%}"
        lines.append(
            f"| {row['role']} | {row['network']} | {params:,} | {macs:,} | "
            f"{inherited:.1%} | {tuned:.1%} ({interval}) |"
        )
        i += 1
    tau = f"{found['tau']:.2f} ({found['tau_low']:.2f} to {found['tau_high']:.2f})"
    note = (
        f"Kendall's tau of inherited and tuned validation loss over {found['tau_n']} "
        f"subnets: {tau}; of multiply-adds alone: {found['tau_macs']:.2f}. The truth "
        "here is a short tuning of the inherited weights, an easier one than training "
        f"alone. {found['wall_seconds']:.0f} s in all, {found['cpu_seconds']:.0f} s of "
        f"CPU time, on {found['cores']} cores ({found['device']})."
    )
    return "\n".join([*lines, "", note])


def _picture(run: Path, result: dict[str, Any]) -> str:
    """Return the report's front as a file of its own, with the report's style."""
    with Trials(run / "trials.sqlite") as trials:
        rows = [
            {"arch": t.arch, "scores": t.scores, "costs": t.costs, "status": t.status}
            for t in trials.all()
        ]
    figure = re.search(r"<svg .*?</svg>", front_figure(rows, result["rows"]), re.S)
    assert figure is not None
    style = (ROOT / "oneshot" / "report" / "style.css").read_text()
    # Only what concerns figures: a page's rules do not belong into a picture.
    kept = re.findall(r"^:root \{.*?^\}|^@media \(prefers.*?^\}", style, re.S | re.M)
    kept += re.findall(
        r"^(?:svg text|svg \.label|\.|circle)[^{]*\{.*?\}", style, re.S | re.M
    )
    text = "text { font-family: system-ui, sans-serif; }"
    page = '<rect width="720" height="340" style="fill: var(--page)"/>'
    svg = figure[0].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    start = svg.index(">") + 1
    return f"{svg[:start]}<style>{text}{''.join(kept)}</style>{page}{svg[start:]}\n"


if __name__ == "__main__":
    main()
