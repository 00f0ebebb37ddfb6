"""Which recipe, and which way to score its supernets, ranks networks best."""

from __future__ import annotations

from typing import Any

from benchmarks.network_truth import NetworkTruth
from benchmarks.ranking_table import Found, means, numbers, ranked


def best_of(
    found: list[Found], truth: NetworkTruth, label: str, minutes: float
) -> dict[str, Any]:
    """Return the results of the unguided recipe and rule that rank best.

    They are chosen by the networks to choose by. Results of several seeds are means;
    what their supernets say together has keys of its own. It takes the place of the
    means where all of them fit the budget and rank the networks to choose by better;
    how each ranks alone then has keys of its own.

    Args:
      found: All recipes.
      truth: What is known of the networks.
      label: What keys end in.
      minutes: The budget, of processor time.
    """
    unguided = [own for own in found if not own.guided]
    if not unguided:
        return {}
    best = max(unguided, key=lambda own: own.choosing(own.rule))
    each = [ranked(scores, truth) for scores in best.scores[best.rule]]
    alone = means(map(numbers, each)) | best.spread(best.rule)
    together = best.together(best.rule)
    own = _in_budget(alone, together, minutes) or alone | {"supernets": 1}
    own |= together | {"rule": best.rule}
    out = {f"best_{key}{label}": value for key, value in own.items()}
    out |= {f"best{label}": best.name, f"n{label}": own["n"]}
    return out | {f"top_half_tau{label}": own["top_half_tau"]}


def _in_budget(
    alone: dict[str, Any], together: dict[str, Any], minutes: float
) -> dict[str, Any]:
    """Return what several supernets say if they are the better use of the budget."""
    if not together or together["together_cpu_minutes"] > minutes:
        return {}
    if together["together_choosing_tau"] <= alone["choosing_tau"]:
        return {}
    kept = {f"alone_{key}": value for key, value in alone.items() if "tau" in key}
    own = {key.removeprefix("together_"): value for key, value in together.items()}
    return kept | own | {"supernets": alone["seeds"], "seeds": 1}
