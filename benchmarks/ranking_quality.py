"""How well supernets rank networks whose truth is known, by recipe.

    python -m benchmarks.ranking_quality --recipes uniform fair sandwich \\
        --json benchmarks/results/ranking_quality.json

Each recipe trains a supernet, then scores every network of the truth by its loss on
held-out data by inherited weights, training examples recalibrating BatchNorm. The space
is NAS-Bench-Macro's, its truth the table's mean accuracy of three seeds of the
canonical codes, its data CIFAR-10: 10,000 images to train on, 2,000 test images to rank
by. A recipe may take 45 minutes on two cores, or 90 of processor time, training and
scoring together (`--images 50000`: 2.5 hours). `--space` names others
(`benchmarks.ranking_spaces`). Recipes are compared on networks fixed by seed 0
(`choosing`), 1,000 of NAS-Bench-Macro's, and reported on the others and on all.

A run that is stopped goes on where it was: checkpoints are kept under `--directory`,
scores of finished recipes under `--scores`, by default beside them. The table is of all
recipes with scores there; scores of a recipe that has been changed since are refused.
`--short 0.2` trains a fifth as long and scores the networks to choose by only, on a
fifth of the examples, to try recipes; what it finds is kept apart and not written.

The best recipe and rule of scoring (`benchmarks.scoring_rules`) are chosen by the mean
over supernet seeds on the networks to choose by; `best_reporting_tau` is of networks
that nothing was chosen by, `best_tau` of all. Of a recipe that ran with several seeds
taus, shares and minutes are means over them, beside the least and the greatest tau;
where all of them fit the budget, they may be one recipe, by their mean scores
(`best_supernets`; `best_alone_tau` is then the mean of each alone).

The images that rank NAS-Bench-Macro and NAS-Bench-201 are of the test set that their
truth was measured on, so its noise is partly shared; subnets trained with other images
would be told apart a little less well. Our own truths are measured on other examples
than supernets are scored on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console

from benchmarks import results
from benchmarks.network_truth import NetworkTruth
from benchmarks.ranking_baselines import free
from benchmarks.ranking_best import best_of
from benchmarks.ranking_recipes import RECIPES
from benchmarks.ranking_run import Run, scored
from benchmarks.ranking_spaces import SPACES
from benchmarks.ranking_table import collect, over_uniform, show
from oneshot.data import Data, Split

SMALL, LARGE = 10_000, 50_000
MINUTES = {SMALL: 90, LARGE: 300}  # of processor time, for a recipe


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", choices=SPACES, default="nb_macro")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES)
    parser.add_argument("--images", type=int, choices=(SMALL, LARGE), default=SMALL)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--short", type=float, default=1.0)
    parser.add_argument("--data", type=Path, help="folder of data files")
    parser.add_argument("--directory", type=Path, default=Path("runs/ranking_quality"))
    parser.add_argument("--scores", type=Path, help="folder of finished scores")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    if not 0 < args.short <= 1 or (args.short < 1 and args.json):
        raise SystemExit(
            "--short is a share above 0 and at most 1, for recipes that are being "
            f"tried: their results are printed and not written, but got {args.short}"
            f"{' and --json' if args.json else ''}."
        )
    if args.images == LARGE and not SPACES[args.space].settings.steps_large:
        raise SystemExit(
            f"--images {LARGE} is for spaces with a budget for so many, but "
            f"{args.space} has none. Leave it out."
        )
    wrong = [name for name in args.recipes or () if RECIPES[name].of_large < 1]
    if wrong and args.images != LARGE:
        raise SystemExit(
            f"The recipe {wrong[0]!r} is for --images {LARGE}, but got {args.images}. "
            "With so many it trains as `combined` does; name that."
        )
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Train, score, print, write."""
    args, console = arguments(argv), Console()
    console = console if console.is_terminal else Console(width=120)
    if args.data is not None:
        os.environ["ONESHOT_DATA"] = str(args.data)
    space, large = SPACES[args.space], args.images == LARGE
    try:
        truth = space.truth(args.data)
    except ValueError as error:  # a file is missing, or not whole
        raise SystemExit(str(error)) from error
    data = _data(args, args.images)
    if args.short < 1:
        truth, data = _fewer(truth, data)
    default = space.recipes_large if large else space.recipes
    for name in default if args.recipes is None else args.recipes:
        for seed in args.seeds:
            scored(_run(args, name, seed, args.images, truth, data), console)
            jax.clear_caches()
    flat = {"space": args.space, **free(truth, space.searched)}
    for images in (SMALL, LARGE) if args.short == 1 else (args.images,):
        kept = _kept(_run(args, "", 0, images, truth, data).scores)
        used = data
        if kept and images != args.images:  # scores know what they were trained on
            used = _data(args, images)
        runs = [_run(args, name, seed, images, truth, used) for name, seed in kept]
        found = collect(runs, truth)
        label = "50k_" if images == LARGE else ""
        for own in found:
            words = own.rankings[0]["all"].words()
            first = ", its first seed" if len(own.kept) > 1 else ""
            console.print(f"{label}{own.name}{first}: {words}\n", soft_wrap=True)
            flat |= {label + k: v for k, v in own.row(truth).items()}
        more = over_uniform(found, truth)
        flat |= {label + key: value for key, value in more.items()}
        if found:
            console.print(show(found, truth, flat))
            end = "_50k" if images == LARGE else ""
            flat |= best_of(found, truth, end, MINUTES[images])
    results.write(args.json, flat)


def _data(args: argparse.Namespace, images: int) -> Data:
    try:
        return SPACES[args.space].data(args.data, images)
    except ValueError as error:  # a file is missing, or not whole
        raise SystemExit(str(error)) from error


def _fewer(truth: NetworkTruth, data: Data) -> tuple[NetworkTruth, Data]:
    """Return the networks to choose by, and a fifth of the examples to score on."""
    x, y = data.validate
    n = len(x) // 5
    few = dataclasses.replace(data, validate=Split(x[:n], y[:n]), _on_device={})
    return truth.only(truth.choosing), few


def _run(
    args: argparse.Namespace,
    name: str,
    seed: int,
    images: int,
    truth: NetworkTruth,
    data: Data,
) -> Run:
    length = f"short{args.short:g}" if args.short < 1 else "full"
    place = Path(args.space) / length / str(images) / f"{name}-{seed}"
    return Run(
        name,
        RECIPES.get(name, RECIPES["uniform"]),
        SPACES[args.space],
        args.short,
        # A copy of its own, or images of every recipe would stay on the device.
        dataclasses.replace(data, _on_device={}),
        truth.archs,
        seed,
        args.directory / place,
        (args.scores or args.directory / "scores") / place.with_suffix(".npz"),
    )


def _kept(example: Path) -> list[tuple[str, int]]:
    """Return recipe and seed of all scores in the folder of a file."""
    if not example.parent.is_dir():
        return []
    names = "|".join(RECIPES)
    found = [
        re.fullmatch(rf"({names})-(\d+)\.npz", p.name) for p in example.parent.iterdir()
    ]
    return sorted((m[1], int(m[2])) for m in found if m)


if __name__ == "__main__":
    main()
