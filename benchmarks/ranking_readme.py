"""The README's tables of how well recipes rank networks, from their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.ranking_recipes import RECIPES
from benchmarks.truth import LEAST_CEILING


def table(found: Mapping[str, Any]) -> str:
    """Return the table of one space, from the JSON that `ranking_quality` wrote."""
    lines = [
        f"Kendall's tau with {found['truth']}:",
        "",
        "| recipe | tau of losses (95 %) | over uniform (95 %) | of the best score | "
        "better half | best tenth | given multiply-adds | processor minutes |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    for label, words in (("", ""), ("50k_", ", 50,000 images")):
        for name, recipe in RECIPES.items():
            own = _own(found, f"{label}{name}_", "")
            if own:
                known = ", guided" if recipe.guided else ""
                lines.append(_line(f"{recipe.words}{words}{known}", own, "tau"))
        lines += _best(found, "_50k" if label else "", words)
    lines += _without(found)
    ceiling = found["free_ceiling"]
    if ceiling is not None and ceiling < LEAST_CEILING:
        lines += [
            "",
            "Its seeds agree with each other too little for recipes to be judged by it "
            f"(less than {LEAST_CEILING}): this shows that they run, no more.",
        ]
    return "\n".join(lines)


def _without(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of what ranks without a supernet, and of the truth itself."""
    lines = []
    for what in ("params", "macs", "depth"):
        tau, half = (_number(found[f"free_{what}_{k}"]) for k in ("tau", "top_half"))
        lines.append(f"| *{found[f'free_{what}']}* | {tau} | | | {half} | | | |")
    others = {found["free_count"]: found["free_count_tau"]}
    fitted = [k.removeprefix("linear_") for k in found if k.startswith("linear_")]
    for number in sorted(map(int, fitted)):
        words = f"ridge on options, {number:,} networks trained alone"
        others[words] = found[f"linear_{number}"]
    if found["free_ceiling"] is not None:
        others["seed against seeds"] = found["free_ceiling"]
    lines += [f"| *{w}* | {_number(tau)} | | | | | | |" for w, tau in others.items()]
    return lines


def _best(found: Mapping[str, Any], label: str, words: str) -> list[str]:
    """Return the line of the chosen recipe and rule, on what nothing was chosen by."""
    if f"best{label}" not in found:
        return []
    recipe, own = found[f"best{label}"], _own(found, "best_", label)
    rule = found[f"best_rule{label}"]
    for key in ("top_half_tau", "tenth_tau", "partial_tau"):
        own[key] = own[f"reporting_{key}"]
    if own["seeds"] > 1:
        own |= {k: own[f"reporting_{k}"] for k in ("tau_least", "tau_most")}
    several = own.get("supernets", 1) > 1
    if several:
        ends = (own[f"alone_reporting_tau_{end}"] for end in ("least", "most"))
        words += f", {own['supernets']} supernets together"
        words += " (each alone {:.3f} to {:.3f})".format(*ends)
    text = f"chosen: {RECIPES[recipe].words}{words}, by {rule}; the other networks"
    lines = [_line(f"**{text}**", own, "reporting")]
    together = _own(own, "together_", "")
    if together and not several:
        for key in ("top_half_tau", "tenth_tau", "partial_tau"):
            together[key] = together[f"reporting_{key}"]
        text = f"the same, {own['seeds']} supernets' scores together"
        lines.append(_line(f"**{text}**", together | {"seeds": 1}, "reporting"))
    return lines


def _own(found: Mapping[str, Any], prefix: str, label: str) -> dict[str, Any]:
    """Return the results whose keys have a prefix and end in a label, without both."""
    own = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    if label:
        return {k.removesuffix(label): v for k, v in own.items() if k.endswith(label)}
    return own if "tau" in own else {}


def _line(words: str, own: Mapping[str, Any], part: str) -> str:
    tau = own["tau" if part == "tau" else f"{part}_tau"]
    between = f"{own[f'{part}_low']:.3f} to {own[f'{part}_high']:.3f}"
    if own["seeds"] > 1:
        ends = f"{own['tau_least']:.3f} to {own['tau_most']:.3f}"
        between += f"; {own['seeds']} seeds: {ends}"
    more = ""
    if "more" in own:
        more = f"{own['more']:+.3f} ({own['more_low']:+.3f} to {own['more_high']:+.3f})"
    cells = (
        words,
        f"{tau:.3f} ({between})",
        more,
        _best_rule(own),
        *(_number(own[k]) for k in ("top_half_tau", "tenth_tau", "partial_tau")),
        f"{own['cpu_minutes']:.0f}" if "cpu_minutes" in own else "",
    )
    return f"| {' | '.join(cells)} |"


def _best_rule(own: Mapping[str, Any]) -> str:
    """Return the tau of the rule that is best on the networks to choose by."""
    start = "choosing_by_"
    by = {k.removeprefix(start): v for k, v in own.items() if k.startswith(start)}
    if not by:
        return ""
    rule = max(by, key=lambda name: by[name])
    return f"{own[f'tau_by_{rule}']:.3f}, {rule.replace('_', ', ')}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
