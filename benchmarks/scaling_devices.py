"""The same work on several devices, in a process of its own: XLA counts them once.

On a CPU the devices are virtual and share its cores, so their number cannot make
anything faster there; it shows what they cost, and that work is spread evenly.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

ARCHS = 200


def in_process(devices: int, *, quick: bool) -> dict[str, Any]:
    """Measure in a new process; empty where the backend has fewer devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.scaling_devices", str(devices)]
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])],
        env={**os.environ, "XLA_FLAGS": flags.strip()},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(num: int, *, quick: bool) -> dict[str, Any]:
    """Return times, programs and balance on the first `num` devices."""
    import jax

    from benchmarks.scaling_case import Chains, Size

    if len(jax.devices()) < num:
        return {}
    size = Size(channels=16 if quick else 64)
    built, devices = Chains()(size), jax.devices()[:num]
    out = _training(size, built, devices, 1 if quick else 5)
    return out | _scoring(size, built, devices, 40 if quick else ARCHS)


def _training(size, built, devices, repeats: int) -> dict[str, Any]:
    """Split each batch over the devices."""
    import jax

    from benchmarks.clock import Times
    from benchmarks.scaling_case import PATHS
    from benchmarks.scaling_space import batch, common_archs
    from benchmarks.stepper import RATE, SEED, Stepper, optimizer
    from oneshot.strategies import Fixed
    from oneshot.train import Trainer

    (net, weights), inputs = built, batch(SEED, size.batch)
    archs = common_archs(SEED, size.layers, PATHS)
    kind = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=kind, devices=devices)
    trainer = Trainer(net, Fixed(archs[0]), optimizer, RATE, mesh=mesh)
    state = trainer.init(SEED, inputs[0], weights)
    stepper = Stepper(trainer, state, trainer.engine.put(inputs, "data"))
    seconds, times = trainer.warm_up(inputs), Times()
    for i in range(repeats + 1):
        for arch in archs:
            (times if i else Times()).take(lambda a=arch: stepper(a))
    return {
        "step_ms": times.median(),
        "step_cpu_ms": times.median("cpu"),
        "warmup_train_seconds": seconds,
        "warmup_train_programs": trainer.engine.num_programs,
    }


def _scoring(size, built, devices, num_archs: int) -> dict[str, Any]:
    """Spread a population over the devices."""
    import numpy as np

    from benchmarks.clock import Times
    from benchmarks.scaling_space import data
    from benchmarks.stepper import SEED
    from benchmarks.work import Work
    from oneshot.evaluate import Evaluator
    from oneshot.resources import Resources

    (net, weights), inputs = built, data(SEED, size.batch)
    where = Resources(cache_bytes=0, devices=devices)
    evaluator = Evaluator(net, inputs, resources=where)
    seconds = evaluator.warm_up()
    archs = net.space.sample(np.random.default_rng([SEED, 9]), num_archs)
    times, work = Times(), Work(net, inputs.train.x)
    times.take(lambda: evaluator(weights, archs))
    shares = [work.shared_paths(s).macs for s in evaluator.shares(archs)]
    return {
        "score_seconds": times.seconds(),
        "score_cpu_seconds": times.seconds("cpu"),
        "score_archs": len(archs),
        "warmup_score_seconds": seconds,
        "warmup_score_programs": evaluator.num_programs,
        # How much more the dearest device does than the mean, and all than one would.
        "imbalance": max(shares) / (sum(shares) / len(devices)) - 1,
        "work_over_one_device": sum(shares) / work.shared(archs).macs,
    }


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("devices", type=int)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    print(json.dumps(measure(args.devices, quick=args.quick)))


if __name__ == "__main__":
    main()
