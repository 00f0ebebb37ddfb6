"""Times this library against plain, eager PyTorch, side by side.

    pip install -e '.[bench]'
    python -m benchmarks.versus_pytorch --json benchmarks/results/versus_pytorch.json

PyTorch's side is what a user of Single Path One-Shot writes: `benchmarks.torch_*`, with
all cores and channels-last convolutions. Both sides have equal weights, inputs and
protocol (256 images recalibrate BatchNorm as one batch, 512 are scored), and their
losses are compared. Ratios are PyTorch's time over ours, in wall time and, with `_cpu`,
in processor time:

- `train_ratio`: steps of 20 random paths of NAS-Bench-Macro's space, batch 64;
- `rank_ratio`: scores of its 3,969 distinct networks; we score all of them, PyTorch
  scores 200, and its time is scaled by multiply-adds;
- `generation_ratio`: scores of one generation of 50 of Single Path One-Shot's search;
- `decoder_train_ratio`, `decoder_rank_ratio`: steps, and a generation of 50 on 64
  sequences, of a decoder Transformer with elastic heads and hidden widths;
- `forward_ratio_batch64`, `..512`: forwards alone, with `forward_gmacs_*`, 10^9
  multiply-adds a second of both sides.

PyTorch scores the 512 images at once; what it takes in batches of 64, whose arrays
stay in a CPU's cache, is told under `_batch64`. Both sides run in one process, in turn:
while one works, the threads of the other sleep (`idle_share` is the processor time that
the process takes, a second, just after either side has worked). CIFAR-10 images come
from `--data` or `ONESHOT_DATA`, without them they are noise. Asynchronous dispatch on a
CPU is off, as in the command line.

Bars: train_ratio >= 1.0, rank_ratio >= 4.5, generation_ratio >= 2, decoder_train_ratio
>= 1.25, decoder_rank_ratio >= 2, max_score_difference <= 1e-3. About an hour on two
cores, of which the decoder takes ten minutes: `--parts decoder` measures it alone and
leaves the other numbers of the file as they are. `--quick`, to try the benchmark out,
takes few archs and small batches.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import comparisons, pairs, results
from benchmarks.clock import idle_share
from benchmarks.inputs import data_folder
from benchmarks.peaks import shown
from benchmarks.slices import by_first_choices
from benchmarks.stepper import SEED
from oneshot.space import Arch

_PARTS = ("convolutional", "decoder")
_SAMPLE = 200
_QUICK = pairs.Sizes(batch=8, calibrate=16, score=32, paths=2, seeds=1, repeats=1)
_QUICK_DECODER = pairs.Sizes(batch=2, score=4, paths=2, seeds=1, repeats=1)
_ROWS = (  # (ratio, bar)
    ("train_ratio", 1.0),
    ("rank_ratio", 4.5),
    ("rank_ratio_batch64", None),
    ("generation_ratio", 2.0),
    ("generation_ratio_batch64", None),
    ("decoder_train_ratio", 1.25),
    ("decoder_rank_ratio", 2.0),
    ("forward_ratio_batch64", None),
    ("forward_ratio_batch512", None),
)


def convolutional(folder: Path | None, quick: bool, console: Console) -> dict[str, Any]:
    """Compare on NAS-Bench-Macro's space."""
    sizes = _QUICK if quick else pairs.Sizes()
    pair = pairs.convolutional(SEED, sizes, folder)
    out = comparisons.training(pair, sizes.repeats) | {"images": pair.images}
    console.print(f"training: {out['train_ratio']:.2f}")
    evaluator, weights, scorer = comparisons.scorers(pair, SEED)
    for n in sorted({min(64, sizes.score), sizes.score}):
        out |= comparisons.forward(pair, weights, scorer.model, n, sizes.repeats)

    def ours(archs):
        return evaluator(weights, archs)

    slices, sample = _population(pair, quick)
    out["idle_share"] = _idle(ours, scorer, sample[0])
    theirs = comparisons.TorchTimes(scorer)
    out |= comparisons.whole_space(pair, ours, theirs, slices, sample)
    console.print(f"ranking: {out['rank_ratio']:.2f}")
    loss, words = pairs.parents_loss(pair.work, folder)
    theirs, seeds = comparisons.TorchTimes(scorer), range(sizes.seeds)
    out |= comparisons.generations(pair, ours, theirs, seeds, loss)
    return out | {"generation_parents_by": words}


def _population(pair: pairs.Pair, quick: bool) -> tuple[list[list[Arch]], list[Arch]]:
    """Return all distinct networks, in slices, and those that PyTorch scores."""
    slices = by_first_choices(pair.network.net.space.enumerate("canonical"), 2)
    if quick:
        slices = [slices[1][:20], slices[5][:20]]
    archs = [arch for part in slices for arch in part]
    order = np.random.default_rng([SEED, 5]).permutation(len(archs))
    return slices, [archs[i] for i in order[: 4 if quick else _SAMPLE]]


def _idle(ours: Callable, scorer: Callable, arch: Arch) -> float:
    """Run each side once, untimed; return how busy the process is after it."""
    ours([arch])
    after_ours = idle_share()
    scorer(arch)
    return max(after_ours, idle_share())


def decoder(quick: bool) -> dict[str, Any]:
    """Compare on the decoder Transformer."""
    sizes = _QUICK_DECODER if quick else pairs.Sizes(batch=16, score=64, paths=10)
    pair = pairs.decoder(SEED, sizes)
    out = comparisons.training(pair, sizes.repeats)
    evaluator, weights, scorer = comparisons.scorers(pair, SEED)
    theirs, seeds = comparisons.TorchTimes(scorer), range(sizes.seeds)
    loss, words = pairs.parents_loss(pair.work, None)
    ranked = comparisons.generations(
        pair, lambda archs: evaluator(weights, archs), theirs, seeds, loss
    )
    out |= {k.replace("generation", "rank", 1): v for k, v in ranked.items()}
    out |= {"rank_parents_by": words}
    return {f"decoder_{key}": value for key, value in out.items()}


def table(out: dict[str, Any]) -> Table:
    """Return the ratios to print."""
    heads = "PyTorch's time over ours|wall|processor|lowest|highest|bar"
    out_table = Table(*heads.split("|"))
    for name, bar in _ROWS:
        found = [out.get(f"{name}{s}") for s in ("", "_cpu", "_low", "_high")]
        cells = ["" if v is None else f"{v:.2f}" for v in (*found, bar)]
        if found[0] is not None:
            out_table.add_row(name, *cells)
    return out_table


def _rest(file: Path | None, parts: Sequence[str]) -> dict[str, Any]:
    """Return the numbers of parts that were not measured now, from the file.

    Raises:
      ValueError: If they were measured on another processor.
    """
    if set(parts) == set(_PARTS) or file is None or not file.exists():
        return {}
    old, now = json.loads(file.read_text()), results.environment()
    if old["device"] != now["device"]:
        raise ValueError(
            f"{file} holds numbers of {old['device']}, not of {now['device']}. Measure "
            "all parts, or name another file."
        )
    return {k: v for k, v in old.items() if k not in now}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--data", type=Path, help="folder of data files")
    parser.add_argument("--quick", action="store_true", help="small, to try it out")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS)
    args = parser.parse_args(arguments)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        import torch

        from benchmarks.torch_spos import device, use_all_cores
    except ImportError as error:
        raise SystemExit(
            "This benchmark compares with PyTorch: pip install -e '.[bench]'"
        ) from error
    use_all_cores()
    console, folder = Console(), data_folder(args.data)
    console = console if console.is_terminal else Console(width=100)
    out = {}
    if "convolutional" in args.parts:
        out |= convolutional(folder, args.quick, console)
    if "decoder" in args.parts:
        out |= decoder(args.quick)
    out |= {
        "seed": SEED,
        "version_torch": torch.__version__,
        "device_torch": str(device()),
        "threads_torch": torch.get_num_threads(),
        "quick": args.quick,
    }
    console.print(table(out))
    for key in sorted(k for k in out if "difference" in k):
        console.print(f"{key}: {out[key]:.2g}")
    for key in sorted(k for k in out if "fraction" in k):
        console.print(f"{key}: {shown(out[key])}")
    results.write(args.json, _rest(args.json, args.parts) | out)


if __name__ == "__main__":
    main()
