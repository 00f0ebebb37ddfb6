"""What a supernet's scores say of its ranking: results of recipes, and their table."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.network_truth import NetworkTruth
from benchmarks.ranking_recipes import RECIPES
from benchmarks.scoring_rules import scores_by_rule
from oneshot.correlations import kendall_tau
from oneshot.diagnostics import Ranking


@dataclasses.dataclass(frozen=True)
class Found:
    """What is known of one recipe, ranked by one rule.

    Attributes:
      name: The recipe.
      files: Scores, one file a seed.
      rules: Taus of each rule over the networks to choose by, and over all, means over
        the seeds: {rule: (choosing, all)}.
      spread: Largest less smallest tau over all networks, of the seeds.
      rankings: Of the first seed, by loss: "all", "choosing", and "reporting" unless
        all networks are to choose by.
    """

    name: str
    files: tuple[Path, ...]
    rules: dict[str, tuple[float, float]]
    spread: float
    rankings: dict[str, Ranking]

    @property
    def guided(self) -> bool:
        """Whether the recipe knows what networks cost."""
        return RECIPES[self.name].guided

    def row(self, truth: NetworkTruth) -> dict[str, Any]:
        """Return flat results."""
        with np.load(self.files[0]) as arrays:
            out = numbers(self.rankings) | {
                "guided": self.guided,
                "seeds": len(self.files),
                "tau_mean": self.rules["loss"][1],
                "tau_spread": self.spread,
                "steps": int(arrays["steps"]),
                "minutes": float(arrays["wall"]) / 60,
                "cpu_minutes": float(arrays["cpu"]) / 60,
                "device": json.loads(str(arrays["environment"]))["device"],
            }
            if "chosen" in arrays:
                out |= _chosen(arrays["chosen"], truth)
        for rule, (few, everything) in self.rules.items():
            words = rule.replace(", ", "_")
            out |= {f"choosing_by_{words}": few, f"tau_by_{words}": everything}
        return {f"{self.name}_{key}": value for key, value in out.items()}


def collect(directory: Path, number: int, truth: NetworkTruth) -> list[Found]:
    """Return what is known of all recipes with scores, for a number of examples."""
    out = []
    for name in RECIPES:
        pattern = re.compile(rf"{name}-{number}-(\d+)\.npz")
        seeds = [int(m[1]) for p in directory.iterdir() if (m := pattern.match(p.name))]
        if seeds:
            files = [
                directory / f"{name}-{number}-{seed}.npz" for seed in sorted(seeds)
            ]
            out.append(_found(name, tuple(files), truth))
    return out


def _found(name: str, files: tuple[Path, ...], truth: NetworkTruth) -> Found:
    each = [scores_by_rule(file, truth.archs) for file in files]
    true, few = truth.truth, truth.choosing
    rules = {}
    for rule in each[0]:
        own = [scores[rule] for scores in each]
        choosing = np.mean([kendall_tau(s[few], true[few]) for s in own])
        everything = np.mean([kendall_tau(s, true) for s in own])
        rules[rule] = float(choosing), float(everything)
    taus = [kendall_tau(scores["loss"], true) for scores in each]
    return Found(
        name, files, rules, float(np.ptp(taus)), ranked(each[0]["loss"], truth)
    )


def ranked(scores: np.ndarray, truth: NetworkTruth) -> dict[str, Ranking]:
    """Return the rankings by scores over each part of the networks."""
    few, rest = truth.choosing, truth.reporting
    parts = {
        "choosing": (few, f"{len(few):,} fixed by seed 0, to choose recipes by"),
        "reporting": (rest, f"the other {len(rest):,}"),
        "all": (np.arange(len(scores)), f"all {len(scores):,}"),
    }
    return {
        part: truth.rank(scores[where], where, words)
        for part, (where, words) in parts.items()
        if len(where)
    }


def numbers(rankings: dict[str, Ranking]) -> dict[str, Any]:
    """Return the flat results of rankings."""
    everything, rest = rankings["all"], rankings.get("reporting")
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
        "choosing_tau": rankings["choosing"].tau,
    }
    if rest is not None:
        out["reporting_tau"] = rest.tau
        out["reporting_low"], out["reporting_high"] = rest.interval
    if everything.within is not None:
        out["within_tau"] = everything.within.value
        out["within_low"] = everything.within.low
    out |= {f"precision_{k}": v.value for k, v in everything.precision.items()}
    return out | {f"regret_{k}": v.value for k, v in everything.regret.items()}


def _chosen(arch: np.ndarray, truth: NetworkTruth) -> dict[str, Any]:
    """Return how good the arch is that a relaxed supernet chose, if that is known."""
    places = np.flatnonzero((truth.archs == arch).all(axis=1))
    out: dict[str, Any] = {"chosen": "".join(map(str, arch))}
    if len(places):
        own = truth.truth[places[0]]
        out["chosen_truth"] = float(own)
        out["chosen_rank"] = int((truth.truth > own).sum()) + 1
    return out


def best_of(found: list[Found], truth: NetworkTruth, images: int) -> dict[str, Any]:
    """Return the results of the unguided recipe and rule that rank best.

    They are chosen by the networks to choose by, as means over the seeds; intervals are
    of the first seed.
    """
    free = [(own, rule) for own in found if not own.guided for rule in own.rules]
    if not free:
        return {}
    best, rule = max(free, key=lambda pair: pair[0].rules[pair[1]][0])
    each = [scores_by_rule(file, truth.archs)[rule] for file in best.files]
    taus = [kendall_tau(scores, truth.truth) for scores in each]
    own = numbers(ranked(each[0], truth)) | {
        "tau_mean": float(np.mean(taus)),
        "tau_spread": float(np.ptp(taus)),
        "seeds": len(taus),
        "rule": rule,
    }
    if images > 10_000:
        out = {f"best_{key}_50k": value for key, value in own.items()}
        return {"best_50k": best.name, "top_half_tau_50k": own["top_half_tau"]} | out
    out = {f"best_{key}": value for key, value in own.items()}
    return {"best": best.name, "n": own["n"], "top_half_tau": own["top_half_tau"]} | out


def show(found: list[Found], truth: NetworkTruth) -> Table:
    """Return the table of all recipes, what ranks for free below them."""
    few = f"on {len(truth.choosing):,}"
    columns = ("recipe", "tau", few, "best rule", "top half", "partial | macs", "min")
    table = Table(*columns, title=f"Kendall's tau with {truth.words}")
    for one in found:
        prefix = f"{one.name}_"
        own = {k.removeprefix(prefix): v for k, v in one.row(truth).items()}
        rule = max(one.rules, key=lambda r: one.rules[r][0])
        table.add_row(
            _words(one.name, own, truth),
            f"{own['tau']:.3f} [{own['tau_low']:.3f}, {own['tau_high']:.3f}]",
            f"{own['choosing_tau']:.3f}",
            f"{rule}: {one.rules[rule][1]:.3f}",
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
        table.add_row("ceiling, seed against seeds", f"{ceiling:.3f}")
    return table


def _words(name: str, own: dict[str, Any], truth: NetworkTruth) -> str:
    words = RECIPES[name].words + (" (guided)" if RECIPES[name].guided else "")
    if "chosen_rank" in own:
        return f"{words}; its choice ranks {own['chosen_rank']} of {len(truth.archs)}"
    return words


def _trivial(table: Table, words: str, found: Ranking, field: str) -> None:
    everything, half = (getattr(t, field) for t in (found.overall, found.top_half))
    interval = f"[{everything.low:.3f}, {everything.high:.3f}]"
    table.add_row(
        words, f"{everything.value:.3f} {interval}", "", "", f"{half.value:.3f}"
    )
