"""What `oneshot profile` builds from its settings, and prints."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
from rich.table import Table

from oneshot.compilation_cache import use_compilation_cache
from oneshot.datasets import load_data
from oneshot.factories import Factory
from oneshot.profiles import Profile, profile
from oneshot.settings import ProfileSettings

_NAMES = {
    "params": "parameters",
    "macs": "multiply-adds",
    "activation_bytes": "activation memory, bytes",
}


def of_settings(settings: ProfileSettings) -> Profile:
    """Build the space and the shape of its input, and describe it.

    Raises:
      ValueError: If there is no such space or data, the input does not fit, or no arch
        keeps the limits.
    """
    use_compilation_cache()
    net = Factory(settings.supernet, json.loads(settings.arguments)).build()
    x = _input(settings)
    try:
        net.reachable(x)
    except ValueError as error:
        if settings.input_shape is not None:
            raise
        raise ValueError(
            f"{error} (The input was taken to be that of the data {settings.data!r}; "
            "--input-shape names another shape, such as 32 32 3, and --input-dtype "
            "another type, such as int32 for tokens.)"
        ) from error
    return profile(
        net,
        x,
        constraints=settings.limits,  # type: ignore[arg-type]
        samples=settings.samples,
        seed=settings.seed,
        latency=settings.latency,
    )


def _input(settings: ProfileSettings) -> Any:
    n, shape = settings.batch_size, settings.input_shape
    if shape is None:
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((n, *a.shape[1:]), a.dtype),
            load_data(settings.data).train.x,
        )
    if any(size < 1 for size in shape):
        raise ValueError(
            "--input-shape is the shape of one example, sizes of at least 1 such as "
            f"32 32 3, but got {shape}."
        )
    try:
        dtype = np.dtype(settings.input_dtype)
    except TypeError as error:
        raise ValueError(
            "--input-dtype names a type of numbers such as float32 or int32, but got "
            f"{settings.input_dtype!r}."
        ) from error
    return jax.ShapeDtypeStruct((n, *shape), dtype)


def table(name: str, found: Profile) -> Table:
    """Return the costs as a table: smallest, median and largest."""
    out = Table(title=f"Profile of {name}", title_justify="left")
    out.add_column("of one example")
    for column in ("smallest", "median", "largest"):
        out.add_column(column, justify="right")
    for cost, spread in found.costs.items():
        mark = "" if spread.exact else "~"
        ends = (f"{mark}{end:,.0f}" for end in (spread.smallest, spread.largest))
        smallest, largest = ends
        out.add_row(_NAMES[cost], smallest, f"{spread.median:,.0f}", largest)
    if (times := found.latency) is not None:
        seconds = (times.smallest, times.median, times.largest)
        label = f"latency of a batch of {times.batch}, ms"
        out.add_row(label, *(f"{1000 * s:,.3g}" for s in seconds))
    return out


def words(found: Profile) -> str:
    """Return what the table does not hold, in sentences."""
    lines = [
        f"{found.archs:,} archs of {found.choices} choices; "
        f"{_count(found.paths)} distinct paths; {_count(found.networks)} distinct "
        f"networks ({found.counted}).",
        f"{found.blocks:,} distinct blocks, which training compiles as "
        f"{found.training_programs:,} programs.",
        _ends(found)
        + f" Medians are of {found.samples:,} random paths (seed {found.seed}). "
        "Activation memory is what a training step keeps until its backward.",
    ]
    if (times := found.latency) is not None:
        lines.append(
            "Latency is that of three extracted networks, of fewest, median and most "
            f"multiply-adds, each the median of {times.runs} runs on {times.device}."
        )
    if found.feasible is not None:
        limits = ", ".join(
            f"{_NAMES[cost]} at most {limit:,.0f}"
            for cost, limit in found.limits.items()
        )
        lines.append(
            f"{found.feasible:.1%} of the random paths keep the limits ({limits})."
        )
    return "\n".join(lines)


def _ends(found: Profile) -> str:
    if all(spread.exact for spread in found.costs.values()):
        return "Smallest and largest are those of all archs, exactly."
    return "Ends marked ~ are the best that coordinate descent found."


def _count(n: int | None) -> str:
    return "unknown" if n is None else f"{n:,}" if n < 10**12 else f"{n:.3g}"
