"""What a supernet's scores say of its ranking: results of recipes, and their table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.network_truth import NetworkTruth
from benchmarks.ranking_recipes import RECIPES
from oneshot.diagnostics import Ranking


def report(file: Path, truth: NetworkTruth) -> dict[str, Ranking]:
    """Return the rankings of one recipe's scores over each part of the networks.

    There is no "reporting" where all networks are to choose by.
    """
    score, few = -np.load(file)["loss"], truth.choosing
    parts = {
        "choosing": (few, f"{len(few):,} fixed by seed 0, to choose recipes by"),
        "reporting": (truth.reporting, f"the other {len(truth.reporting):,}"),
        "all": (np.arange(len(score)), f"all {len(score):,}"),
    }
    return {
        part: truth.rank(score[where], where, words)
        for part, (where, words) in parts.items()
        if len(where)
    }


def row(
    name: str, found: dict[str, Ranking], file: Path, truth: NetworkTruth
) -> dict[str, Any]:
    """Return flat results of one recipe."""
    everything, few, rest = found["all"], found["choosing"], found.get("reporting")
    arrays = np.load(file)
    overall, half = everything.overall, everything.top_half.inherited
    out = {
        "tau": everything.tau,
        "tau_low": overall.inherited.low,
        "tau_high": overall.inherited.high,
        "n": overall.n,
        "baseline": overall.baseline[1],
        "lead": overall.lead.value,
        "lead_low": overall.lead.low,
        "ceiling": overall.ceiling,
        "ceiling_share": overall.ceiling_share,
        "top_half_tau": half.value,
        "top_half_low": half.low,
        "top_half_high": half.high,
        "tenth_tau": everything.top_tenth.inherited.value,
        "spearman": everything.spearman.value,
        "partial_tau": everything.partial.value,
        "partial_low": everything.partial.low,
        "choosing_tau": few.tau,
        "guided": RECIPES[name].guided,
        "steps": int(arrays["steps"]),
        "minutes": float(arrays["wall"]) / 60,
        "cpu_minutes": float(arrays["cpu"]) / 60,
    }
    if rest is not None:
        out["reporting_tau"] = rest.tau
        out["reporting_low"], out["reporting_high"] = rest.interval
    if everything.within is not None:
        out["within_tau"] = everything.within.value
        out["within_low"] = everything.within.low
    if "chosen" in arrays:
        out |= _chosen(arrays["chosen"], truth)
    out |= {f"precision_{k}": v.value for k, v in everything.precision.items()}
    out |= {f"regret_{k}": v.value for k, v in everything.regret.items()}
    return {f"{name}_{key}": value for key, value in out.items()}


def _chosen(arch: np.ndarray, truth: NetworkTruth) -> dict[str, Any]:
    """Return how good the arch is that a relaxed supernet chose, if that is known."""
    places = np.flatnonzero((truth.archs == arch).all(axis=1))
    out: dict[str, Any] = {"chosen": "".join(map(str, arch))}
    if len(places):
        own = truth.truth[places[0]]
        out["chosen_truth"] = float(own)
        out["chosen_rank"] = int((truth.truth > own).sum()) + 1
    return out


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
        "best_reporting_tau": own.get("reporting_tau"),
        "top_half_tau": own["top_half_tau"],
        "n": own["n"],
    }


def show(rows: dict[str, dict[str, Any]], truth: NetworkTruth) -> Table:
    """Return the table of all recipes, what ranks for free below them."""
    few = f"on {len(truth.choosing):,}"
    columns = ("recipe", "tau", few, "top half", "partial | macs", "minutes")
    table = Table(*columns, title=f"Kendall's tau with {truth.words}")
    for name, found in rows.items():
        own = {k.removeprefix(f"{name}_"): v for k, v in found.items()}
        table.add_row(
            _words(name, own, truth),
            f"{own['tau']:.3f} [{own['tau_low']:.3f}, {own['tau_high']:.3f}]",
            f"{own['choosing_tau']:.3f}",
            f"{own['top_half_tau']:.3f}",
            f"{own['partial_tau']:.3f}",
            f"{own['minutes']:.1f}",
        )
    where = np.arange(len(truth.archs))
    free = truth.rank(truth.macs, where, "all")
    for field, words in (
        ("params", "parameters"),
        ("macs", "multiply-adds"),
        ("depth", truth.depth_words),
    ):
        _trivial(table, words, free, field)
    if (ceiling := free.overall.ceiling) is not None:
        table.add_row("ceiling, seed against seeds", f"{ceiling:.3f}", "", "", "", "")
    return table


def _words(name: str, own: dict[str, Any], truth: NetworkTruth) -> str:
    words = RECIPES[name].words + (" (guided)" if RECIPES[name].guided else "")
    if "chosen_rank" in own:
        return f"{words}; its choice ranks {own['chosen_rank']} of {len(truth.archs)}"
    return words


def _trivial(table: Table, words: str, found: Ranking, field: str) -> None:
    everything, half = (getattr(t, field) for t in (found.overall, found.top_half))
    interval = f"[{everything.low:.3f}, {everything.high:.3f}]"
    table.add_row(words, f"{everything.value:.3f} {interval}", "", f"{half.value:.3f}")
