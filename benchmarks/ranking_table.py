"""What a supernet's scores say of its ranking: results of recipes, and their table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import macro_truth
from benchmarks.ranking_recipes import RECIPES
from oneshot.diagnostics import Ranking


def report(file: Path, truth: macro_truth.MacroTruth) -> dict[str, Ranking]:
    """Return the rankings of one recipe's scores over each part of the networks."""
    score = -np.load(file)["loss"]
    parts = {
        "choosing": (truth.choosing, "1,000 fixed by seed 0, to choose recipes by"),
        "reporting": (truth.reporting, "the other 2,969"),
        "all": (np.arange(len(score)), "all distinct networks"),
    }
    return {
        part: truth.rank(score[where], where, words)
        for part, (where, words) in parts.items()
    }


def row(name: str, found: dict[str, Ranking], file: Path) -> dict[str, Any]:
    """Return flat results of one recipe."""
    everything, rest, few = found["all"], found["reporting"], found["choosing"]
    arrays = np.load(file)
    (low, high), half = everything.interval, everything.top_half.inherited
    out = {
        "tau": everything.tau,
        "tau_low": low,
        "tau_high": high,
        "n": everything.overall.n,
        "top_half_tau": half.value,
        "top_half_low": half.low,
        "top_half_high": half.high,
        "tenth_tau": everything.top_tenth.inherited.value,
        "spearman": everything.spearman.value,
        "partial_tau": everything.partial.value,
        "partial_low": everything.partial.low,
        "choosing_tau": few.tau,
        "reporting_tau": rest.tau,
        "reporting_low": rest.interval[0],
        "reporting_high": rest.interval[1],
        "guided": RECIPES[name].guided,
        "steps": int(arrays["steps"]),
        "minutes": float(arrays["wall"]) / 60,
        "cpu_minutes": float(arrays["cpu"]) / 60,
    }
    if everything.within is not None:
        out |= {
            "within_tau": everything.within.value,
            "within_low": everything.within.low,
        }
    out |= {f"precision_{k}": v.value for k, v in everything.precision.items()}
    out |= {f"regret_{k}": v.value for k, v in everything.regret.items()}
    return {f"{name}_{key}": value for key, value in out.items()}


def best_of(
    rows: dict[str, dict[str, Any]], spread: dict[str, Any], images: int
) -> dict[str, Any]:
    """Return the results of the unguided recipe that ranks the 1,000 best.

    It is chosen by the mean over seeds, and reported of the first one.
    """
    free = [name for name in rows if not RECIPES[name].guided]
    if not free:
        return {}
    best = max(free, key=lambda name: spread[f"{name}_choosing_mean"])
    own = {k.removeprefix(f"{best}_"): v for k, v in rows[best].items()}
    if images > 10_000:
        return {"best_50k": best, "best_tau_50k": own["tau"]}
    return {
        "best": best,
        "best_tau": own["tau"],
        "best_tau_low": own["tau_low"],
        "best_tau_high": own["tau_high"],
        "best_reporting_tau": own["reporting_tau"],
        "top_half_tau": own["top_half_tau"],
        "n": own["n"],
    }


def show(rows: dict[str, dict[str, Any]], truth: macro_truth.MacroTruth) -> Table:
    """Return the table of all recipes, what ranks for free below them."""
    columns = ("recipe", "tau", "on 1,000", "top half", "partial | macs", "minutes")
    table = Table(*columns, title="Kendall's tau with NAS-Bench-Macro's truth")
    for name, found in rows.items():
        own = {k.removeprefix(f"{name}_"): v for k, v in found.items()}
        guided = " (guided)" if RECIPES[name].guided else ""
        table.add_row(
            RECIPES[name].words + guided,
            f"{own['tau']:.3f} [{own['tau_low']:.3f}, {own['tau_high']:.3f}]",
            f"{own['choosing_tau']:.3f}",
            f"{own['top_half_tau']:.3f}",
            f"{own['partial_tau']:.3f}",
            f"{own['minutes']:.1f}",
        )
    where = np.arange(len(truth.archs))
    free = truth.rank(truth.macs, where, "all")
    for field, words in (("params", "parameters"), ("macs", "multiply-adds")):
        _trivial(table, words, free, field)
    _trivial(table, "blocks that are not the identity", free, "depth")
    ceiling = free.overall.ceiling
    table.add_row("ceiling, seed against seeds", f"{ceiling:.3f}", "", "", "", "")
    return table


def _trivial(table: Table, words: str, found: Ranking, field: str) -> None:
    everything, half = (getattr(t, field) for t in (found.overall, found.top_half))
    interval = f"[{everything.low:.3f}, {everything.high:.3f}]"
    table.add_row(words, f"{everything.value:.3f} {interval}", "", f"{half.value:.3f}")
