"""What a training step costs, against the same network as one straight-line program.

    python -m benchmarks.path_cost --json benchmarks/results/path_cost.json

For each arch one step of the engine (a chain of compiled blocks; `Trainer.step` whole,
update by SGD with momentum included, the batch on the device) alternates with two
donated single programs of that path alone, forward, gradients and update: one with the
library's operations, one with plain ones. `ratio` is the engine's median time over that
of the faster of the two, `cpu_ratio` the same in processor time, which other work on
the machine disturbs less. The plain program is dropped after two rounds in which it
took over 1.5 times as long as the other. Memory is explained in `benchmarks.memory`;
`memory_ratio` is against the single program with the fewer temporaries, the largest
over the archs.

On a CPU neither side runs ahead of the device, as in the command line: what is done
gives its memory back sooner (docs/design/0002). `--run-ahead` measures JAX's default;
only then is `dispatch_ms` free of the arithmetic of its one example.

Bars: median_ratio <= 1.0, worst_ratio <= 1.15, memory_ratio <= 1.1. Takes about
15 minutes on two cores, most of it compiling the single programs; `--quick`, for trying
the benchmark out, takes small batches and few archs.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from benchmarks import memory, results
from benchmarks.clock import Times
from benchmarks.networks import Network, convolutional, transformer
from benchmarks.single import Single
from benchmarks.stepper import RATE, SEED, Stepper, optimizer
from oneshot.compilations import CompilationCounter


def alternate(calls: dict[str, Callable], repeats: int) -> dict[str, Times]:
    """Time the calls in turn, after one untimed round; drop a plain one that lags."""
    times = {name: Times() for name in calls}
    for call in calls.values():
        call()
    for i in range(repeats):
        for name, call in calls.items():
            if name == "plain" and i >= 2:
                best = statistics.median(times["single"].wall)
                if statistics.median(times["plain"].wall) > 1.5 * best:
                    continue
            times[name].take(call)
    return times


@dataclasses.dataclass(frozen=True)
class Case:
    """What was measured for one arch."""

    name: str
    times: dict[str, Times]
    peak: memory.Peak
    temporaries: dict[str, int]
    gradients: int
    compiled: int

    def median(self, side: str, clock: str = "wall") -> float:
        return statistics.median(getattr(self.times[side], clock))

    def ratio(self, clock: str = "wall") -> float:
        return self.median("engine", clock) / min(
            self.median("single", clock), self.median("plain", clock)
        )

    def memory_ratio(self) -> float:
        return self.peak.bytes / min(self.temporaries.values())

    def flat(self) -> dict[str, Any]:
        out: dict[str, Any] = {f"ratio_{self.name}": self.ratio()}
        out[f"cpu_ratio_{self.name}"] = self.ratio("cpu")
        for side, times in self.times.items():
            out[f"{side}_ms_{self.name}"] = self.median(side)
            out[f"{side}_cpu_ms_{self.name}"] = self.median(side, "cpu")
            out[f"{side}_spread_{self.name}"] = results.spread(times.wall)
            out[f"{side}_repeats_{self.name}"] = len(times.wall)
        for side, size in self.temporaries.items():
            out[f"{side}_temporaries_bytes_{self.name}"] = size
        out[f"peak_bytes_{self.name}"] = self.peak.bytes
        out[f"peak_program_{self.name}"] = self.peak.program
        out[f"gradient_bytes_{self.name}"] = self.gradients
        out[f"memory_ratio_{self.name}"] = self.memory_ratio()
        return out


def measure(network: Network, engine: Stepper, name: str, repeats: int) -> Case:
    """Compare the engine's step of one arch with the single programs'."""
    arch = network.archs[name]
    path = network.net.path(arch)
    singles = {
        side: Single(net, path, optimizer(RATE), network.batch, SEED)
        for side, net in (("single", network.net), ("plain", network.plain))
    }
    with CompilationCounter() as compiled:
        times = alternate({"engine": lambda: engine(arch), **singles}, repeats)
    return Case(
        f"{network.name}_{name}",
        times,
        memory.chain_peak(engine.trainer.executor, path, engine.batch),
        {side: memory.temporaries(one.program) for side, one in singles.items()},
        memory.nbytes(singles["single"].params),
        compiled.count,
    )


def dispatch(network: Network, names: Sequence[str], repeats: int) -> dict[str, Any]:
    """Time steps of one example, where the host's part shows: until return, in all.

    A CPU runs small programs in the calling thread, so there the first is a bound.
    """
    engine, out = Stepper.make(network, network.one_example(), "blocks"), {}
    for name in names:
        arch, times = network.archs[name], Times()
        engine(arch)  # compiles
        returned = [0.0]
        for _ in range(repeats):
            times.take(lambda a=arch, r=returned: r.append(1e3 * engine(a)))
        case = f"{network.name}_{name}"
        out[f"dispatch_ms_{case}"] = statistics.median(returned[1:])
        out[f"one_example_ms_{case}"] = statistics.median(times.wall)
    return out


def others(network: Network, names: Sequence[str], repeats: int) -> dict[str, Any]:
    """Time the same step in the other two executions."""
    out: dict[str, Any] = {}
    for execution in ("static", "switch"):
        stepper = Stepper.make(network, network.batch, execution)
        for name in names:
            arch, times = network.archs[name], Times()
            start = time.perf_counter()
            stepper(arch)
            case = f"{network.name}_{name}"
            out[f"{execution}_first_s_{case}"] = time.perf_counter() - start
            for _ in range(repeats):
                times.take(lambda a=arch, s=stepper: s(a))
            out[f"{execution}_ms_{case}"] = statistics.median(times.wall)
            out[f"{execution}_cpu_ms_{case}"] = statistics.median(times.cpu)
    return out


def run(
    network: Network, repeats: int, console: Console, paths: int = 3
) -> tuple[list[Case], dict[str, Any]]:
    """Measure one supernet, `paths` of it in the other executions, too."""
    engine = Stepper.make(network, network.batch, "blocks")
    flat: dict[str, Any] = {
        f"warmup_seconds_{network.name}": engine.trainer.warm_up(network.batch),
        f"programs_{network.name}": engine.trainer.engine.num_programs,
    }
    cases = []
    for name in network.archs:
        case = measure(network, engine, name, repeats)
        cases.append(case)
        console.print(f"{case.name}: {case.ratio():.3f}, cpu {case.ratio('cpu'):.3f}")
    flat |= dispatch(network, list(network.archs)[:2], max(repeats, 7))
    flat |= others(network, list(network.archs)[-paths:], min(repeats, 3))
    return cases, flat


def summary(cases: Sequence[Case], flat: dict[str, Any]) -> dict[str, Any]:
    """Return the flat object: what the bars are about first."""
    ratios = [case.ratio() for case in cases]
    cpu = [case.ratio("cpu") for case in cases]

    def over(prefix: str) -> list[float]:
        return [v for k, v in flat.items() if k.startswith(prefix)]

    spreads = [results.spread(t.wall) for c in cases for t in c.times.values()]
    out: dict[str, Any] = {
        "median_ratio": statistics.median(ratios),
        "worst_ratio": max(ratios),
        "memory_ratio": max(case.memory_ratio() for case in cases),
        "median_cpu_ratio": statistics.median(cpu),
        "worst_cpu_ratio": max(cpu),
        "memory_ratio_less_gradients": max(
            c.peak.bytes / (min(c.temporaries.values()) - c.gradients) for c in cases
        ),
        "warmup_seconds": sum(over("warmup_seconds_")),
        "programs": sum(over("programs_")),
        "compiled_after_warmup": sum(case.compiled for case in cases),
        "dispatch_ms": statistics.median(over("dispatch_ms_")),
        "spread": statistics.median(spreads),
        "seed": SEED,
    }
    for case in cases:
        out |= case.flat()
    return out | flat


def table(cases: Sequence[Case], flat: dict[str, Any]) -> Table:
    """Return the table to print, times in ms and memory in MB."""
    heads = "arch engine single plain ratio cpu_ratio static switch peak temp memory"
    out = Table(*heads.split(), title="One training step, ms; memory, MiB")
    for case in cases:
        sides = [f"{case.median(s):.0f}" for s in ("engine", "single", "plain")]
        rest = [
            f"{flat[key]:.0f}" if (key := f"{kind}_ms_{case.name}") in flat else ""
            for kind in ("static", "switch")
        ]
        sizes = case.peak.bytes, min(case.temporaries.values())
        out.add_row(
            case.name,
            *sides,
            f"{case.ratio():.3f}",
            f"{case.ratio('cpu'):.3f}",
            *rest,
            *(f"{size / 2**20:.0f}" for size in sizes),
            f"{case.memory_ratio():.3f}",
        )
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--repeats", type=int, default=7, help="of each timing")
    parser.add_argument("--quick", action="store_true", help="small, to try it out")
    parser.add_argument("--run-ahead", action="store_true", help="as JAX's default")
    args = parser.parse_args(arguments)
    jax.config.update("jax_cpu_enable_async_dispatch", args.run_ahead)
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    num, batches = ((1, 1), (8, 2)) if args.quick else ((10, 3), (64, 16))
    cases: list[Case] = []
    flat: dict[str, Any] = {}
    for make, batch, n in zip((convolutional, transformer), batches, num, strict=True):
        network, paths = make(SEED, batch=batch, num_random=n), 1 if args.quick else 3
        more, numbers = run(network, args.repeats, console, paths)
        cases, flat = [*cases, *more], flat | numbers
    out = summary(cases, flat) | {"run_ahead": args.run_ahead}
    console.print(table(cases, flat))
    for key in list(out)[:12]:
        console.print(f"{key}: {out[key]:.4g}")
    results.write(args.json, out)


if __name__ == "__main__":
    main()
