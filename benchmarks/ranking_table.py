"""What a supernet's scores say of its ranking: results of recipes, and their table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.network_truth import NetworkTruth
from benchmarks.ranking_baselines import free_words, known
from benchmarks.ranking_recipes import RECIPES
from benchmarks.ranking_run import Run, scores_of
from benchmarks.scoring_rules import scores_by_rule, standardised
from oneshot.correlations import kendall_tau
from oneshot.diagnostics import Ranking
from oneshot.rank_statistics import estimate, resample_counts, tau

RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Found:
    """What is known of one recipe.

    Attributes:
      name: The recipe.
      kept: What is kept of its scores, by seed.
      scores: The scores [n] of each seed, by rule.
      rankings: By loss, of each seed: "all", "choosing", and "reporting" unless all
        networks are to choose by.
      truth: What is known of the networks.
    """

    name: str
    kept: tuple[dict[str, np.ndarray], ...]
    scores: dict[str, list[np.ndarray]]
    rankings: tuple[dict[str, Ranking], ...]
    truth: NetworkTruth

    @property
    def guided(self) -> bool:
        """Whether the recipe knows what networks cost."""
        return RECIPES[self.name].guided

    def taus(self, rule: str, where: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the taus by a rule over some networks, one a seed."""
        true = self.truth.truth[where]
        return np.array([kendall_tau(s[where], true) for s in self.scores[rule]])

    def choosing(self, rule: str) -> float:
        """Return the mean tau over the networks to choose by."""
        return float(self.taus(rule, self.truth.choosing).mean())

    @property
    def rule(self) -> str:
        """The rule that is best on the networks to choose by."""
        return max(self.scores, key=self.choosing)

    def spread(self, rule: str) -> dict[str, Any]:
        """Return the flat results of how far taus by a rule differ between seeds."""
        out: dict[str, Any] = {"seeds": len(self.kept)}
        parts = {"": slice(None), "reporting_": self.truth.reporting}
        for part, where in parts.items():
            if part and not len(self.truth.reporting):
                continue
            taus = self.taus(rule, where)
            out |= {f"{part}tau_least": float(taus.min())}
            out |= {f"{part}tau_most": float(taus.max())}
        return out

    def together(self, rule: str) -> dict[str, Any]:
        """Return the flat results of what supernets of several seeds say together.

        Each network's score is the mean over them, each one's over its standard
        deviation; minutes are those of all. Empty where there is one seed.
        """
        if len(self.kept) == 1:
            return {}
        scores = np.mean([standardised(s) for s in self.scores[rule]], axis=0)
        own = numbers(ranked(scores, self.truth))
        own["cpu_minutes"] = float(sum(one["cpu"] for one in self.kept)) / 60
        return {f"together_{key}": value for key, value in own.items()}

    def row(self, truth: NetworkTruth) -> dict[str, Any]:
        """Return flat results, by loss unless the key says otherwise; taus and minutes
        of several seeds are means."""
        first = self.kept[0]
        out = means(map(numbers, self.rankings)) | self.spread("loss")
        out |= {
            "guided": self.guided,
            "steps": int(first["steps"]),
            "minutes": float(np.mean([one["wall"] for one in self.kept])) / 60,
            "cpu_minutes": float(np.mean([one["cpu"] for one in self.kept])) / 60,
            "device": json.loads(str(first["environment"]))["device"],
        }
        if "chosen" in first:
            out |= _chosen(first["chosen"], truth)
        for rule in self.scores:
            words = rule.replace(", ", "_")
            out[f"choosing_by_{words}"] = self.choosing(rule)
            out[f"tau_by_{words}"] = float(self.taus(rule).mean())
        return {f"{self.name}_{key}": value for key, value in out.items()}


def collect(runs: Sequence[Run], truth: NetworkTruth) -> list[Found]:
    """Return what is known of recipes from their runs, in the order of `RECIPES`.

    Raises:
      ValueError: If the scores of a run are of another recipe, or of other networks.
    """
    out = []
    for name in RECIPES:
        kept = tuple(scores_of(run) for run in runs if run.name == name)
        if kept:
            each = [scores_by_rule(means, truth.archs) for means in kept]
            scores = {rule: [one[rule] for one in each] for rule in each[0]}
            told = RECIPES[name].words if RECIPES[name].guided else None
            rankings = tuple(
                {part: r.guided_by(told) for part, r in ranked(one, truth).items()}
                for one in scores["loss"]
            )
            out.append(Found(name, kept, scores, rankings, truth))
    return out


def means(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over seeds of flat results; None where one of them is.

    Means of the ends of intervals, too: of networks that are drawn anew, all seeds'
    taus rise and fall together.
    """
    rows = list(rows)
    out = {}
    for key, first in rows[0].items():
        values = [row[key] for row in rows]
        same = all(value == first for value in values)  # such as how many networks
        known = same or not any(value is None for value in values)
        out[key] = first if same else float(np.mean(values)) if known else None
    return out


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
        out["reporting_top_half_tau"] = rest.top_half.inherited.value
        out["reporting_tenth_tau"] = rest.top_tenth.inherited.value
        out["reporting_partial_tau"] = rest.partial.value
    if everything.within is not None:
        out["within_tau"] = everything.within.value
        out["within_low"] = everything.within.low
    out |= {f"precision_{k}": v.value for k, v in everything.precision.items()}
    out |= {f"regret_{k}": v.value for k, v in everything.regret.items()}
    return {key: known(value) for key, value in out.items()}


def _chosen(arch: np.ndarray, truth: NetworkTruth) -> dict[str, Any]:
    """Return how good the arch is that a relaxed supernet chose, if that is known."""
    places = np.flatnonzero((truth.archs == arch).all(axis=1))
    out: dict[str, Any] = {"chosen": "".join(map(str, arch))}
    if len(places):
        own = truth.truth[places[0]]
        out["chosen_truth"] = float(own)
        out["chosen_rank"] = int((truth.truth > own).sum()) + 1
    return out


def over_uniform(found: Sequence[Found], truth: NetworkTruth) -> dict[str, Any]:
    """Return flat results of how much better recipes rank than uniform sampling.

    Differences of taus of losses, means over the seeds of each; both taus are of the
    same resamples of networks, so that what these share takes no part in the interval.
    """
    losses = {own.name: own.scores["loss"] for own in found}
    if "uniform" not in losses:
        return {}
    counts = resample_counts(len(truth.archs), seed=0, resamples=RESAMPLES)
    taus = {
        name: np.mean([tau(counts, one, truth.truth) for one in scores], axis=0)
        for name, scores in losses.items()
    }
    first, out = taus.pop("uniform"), {}
    for name, resampled in taus.items():
        own = estimate(resampled - first)
        out |= {f"{name}_more": own.value, f"{name}_more_low": own.low}
        out[f"{name}_more_high"] = own.high
    return out


def show(found: list[Found], truth: NetworkTruth, without: Mapping[str, Any]) -> Table:
    """Return the table of all recipes, what ranks for free (`free`) below them.

    Its minutes are those of processor time.
    """
    few = f"on {len(truth.choosing):,}"
    columns = "recipe", "tau", few, "best rule", "top half", "given macs", "minutes"
    table = Table(*columns, title=f"Kendall's tau with {truth.words}")
    for one in found:
        prefix = f"{one.name}_"
        own = {k.removeprefix(prefix): v for k, v in one.row(truth).items()}
        table.add_row(
            _words(one.name, own, truth),
            f"{own['tau']:.3f} [{own['tau_low']:.3f}, {own['tau_high']:.3f}]",
            f"{own['choosing_tau']:.3f}",
            f"{one.rule}: {float(one.taus(one.rule).mean()):.3f}",
            _shown(own["top_half_tau"]),
            _shown(own["partial_tau"]),
            f"{own['cpu_minutes']:.1f}",
        )
    for field, words in free_words(truth).items():
        value, half = (without[f"free_{field}_{part}"] for part in ("tau", "top_half"))
        table.add_row(words, _shown(value), "", "", _shown(half))
    table.add_row(without["free_count"], _shown(without["free_count_tau"]))
    for key, value in without.items():
        if key.startswith("linear_"):
            number = key.removeprefix("linear_")
            table.add_row(f"ridge on options, {number} trained alone", _shown(value))
    if without["free_ceiling"] is not None:
        table.add_row("ceiling, seed against seeds", _shown(without["free_ceiling"]))
    return table


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _words(name: str, own: dict[str, Any], truth: NetworkTruth) -> str:
    words = RECIPES[name].words + (" (guided)" if RECIPES[name].guided else "")
    if "chosen_rank" in own:
        return f"{words}; its choice ranks {own['chosen_rank']} of {len(truth.archs)}"
    return words
