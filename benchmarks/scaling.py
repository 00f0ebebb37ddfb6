"""How time and warm-up grow with layers, options, batch and devices.

    python -m benchmarks.scaling --json benchmarks/results/scaling.json

A chain of equal-shape inverted residuals of 8, 16 and 32 layers; of 3, 6 and 12 options
a layer; with batches of 32 to 512 images; on 1, 2 and 4 devices. Of each it prints the
time of a training step, of scoring one arch (as many images to calibrate with as in a
batch, and as many to score), and the warm-up of both. The sizes of a row are measured
in turn. The paths are the same mix of blocks everywhere, and a block's time is that of
a path less that of the path that skips all layers:

- `flat_layers`, `flat_options`, `flat_batch`: by how much the slowest step's time of a
  block, for `flat_batch` of a block and image, exceeds the fastest's (`.._score` for
  scores);
- `programs_by_layers`: by how much the programs of the longest chain exceed those of
  the shortest; `program_seconds_by_options`: the same for the time of compiling one
  program with most and fewest options;
- `imbalance`: how much more work, in multiply-adds, the dearest device has than the
  mean when a population of 200 is spread over devices. Each device compiles programs of
  its own (`devices_*_warmup_score_programs`).

Bars: flat_layers and flat_options <= 0.15, programs_by_layers = 0, imbalance <= 0.1.
About ten minutes on two cores, half of it compiling; `--quick`, to try it out, takes
narrow blocks and fewer sizes.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from benchmarks import results, scaling_devices
from benchmarks.scaling_case import Case, Chains, Size, alternate, flatness
from benchmarks.stepper import SEED

_ROWS = {
    "layers": (8, 16, 32),
    "options": (3, 6, 12),
    "batch": (32, 64, 128, 256, 512),
    "devices": (1, 2, 4),
}
_QUICK = {"layers": (8, 16), "options": (3, 6), "batch": (32, 128), "devices": (1, 2)}
_COLUMNS = (
    "step_ms",
    "block_step_ms",
    "score_ms",
    "block_score_ms",
    "warmup_train_programs",
    "warmup_train_seconds",
    "warmup_score_programs",
    "warmup_score_seconds",
)


def axis(
    name: str, sizes: dict[int, Size], chains: Chains, repeats: int
) -> dict[str, Any]:
    """Measure the sizes of one row; return flat numbers."""
    cases = alternate(sizes, chains, repeats)
    out: dict[str, Any] = {}
    for value, case in cases.items():
        out |= {f"{name}{value}_{key}": v for key, v in case.flat().items()}
    for kind, suffix in (("steps", ""), ("scores", "_score")):
        for clock, ending in (("wall", ""), ("cpu", "_cpu")):
            each = [_block_ms(case, kind, clock, name) for case in cases.values()]
            out[f"flat_{name}{suffix}{ending}"] = flatness(each)
    return out


def _block_ms(case: Case, kind: str, clock: str, name: str) -> float:
    images = case.size.batch if name == "batch" else 1
    return case.block_ms(kind, clock) / images


def programs(out: dict[str, Any], rows: dict[str, Sequence[int]]) -> dict[str, Any]:
    """Return how warm-up grows with layers and options."""
    key = "warmup_train_programs"
    first, last = (out[f"layers{n}_{key}"] for n in _ends(rows["layers"]))
    each = [
        out[f"options{n}_warmup_train_seconds"] / out[f"options{n}_{key}"]
        for n in _ends(rows["options"])
    ]
    return {
        "programs_by_layers": last / first - 1,
        "program_seconds_by_options": each[1] / each[0] - 1,
    }


def devices(numbers: Sequence[int], quick: bool) -> dict[str, Any]:
    """Measure on several devices, each number of them in a process of its own."""
    out: dict[str, Any] = {}
    for num in numbers:
        found = scaling_devices.in_process(num, quick=quick)
        out |= {f"devices{num}_{key}": value for key, value in found.items()}
    unequal = [v for key, v in out.items() if key.endswith("_imbalance")]
    return out | {"imbalance": max(unequal, default=0.0)}


def _ends(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[-1]


def table(out: dict[str, Any], rows: dict[str, Sequence[int]]) -> Table:
    """Return the numbers to print, a row for each size."""
    shown = Table("", *(c.replace("_", " ") for c in _COLUMNS))
    for name, values in rows.items():
        for value in values:
            cells = [out.get(f"{name}{value}_{column}") for column in _COLUMNS]
            texts = ("" if v is None else f"{v:.3g}" for v in cells)
            shown.add_row(f"{name} {value}", *texts)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--repeats", type=int, default=7, help="of each timing")
    parser.add_argument("--quick", action="store_true", help="small, to try it out")
    args = parser.parse_args(arguments)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    rows = _QUICK if args.quick else _ROWS
    # First, while an accelerator's memory is still free.
    out = devices(rows["devices"], args.quick)
    base = Size(channels=16) if args.quick else Size()
    repeats, chains = 2 if args.quick else args.repeats, Chains()
    for name in ("layers", "options", "batch"):
        sizes = {v: dataclasses.replace(base, **{name: v}) for v in rows[name]}
        out |= axis(name, sizes, chains, repeats)
        console.print(f"flat_{name}: {out[f'flat_{name}']:.3f}")
    out |= programs(out, rows) | {"seed": SEED, "repeats": repeats, "quick": args.quick}
    console.print(table(out, rows))
    for key in (k for k in out if k.startswith(("flat_", "program", "imbalance"))):
        console.print(f"{key}: {out[key]:.3f}")
    results.write(args.json, out)


if __name__ == "__main__":
    main()
