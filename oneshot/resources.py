"""What scoring may use: devices, memory and a cache, and the chunk that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from oneshot.bounded_cache import nbytes
from oneshot.nn.backend import group_bytes
from oneshot.placement import Device
from oneshot.reachable import Reached
from oneshot.shapes import abstract, shapes
from oneshot.supernet import Supernet

_CGROUP_FILES = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_UNKNOWN = 8 << 30  # taken for a host that does not tell


@dataclasses.dataclass(frozen=True)
class Resources:
    """What scoring may use.

    Args:
      memory_limit: Bytes that activations and temporaries may take on a device; None
        for three quarters of what an accelerator has free, or a quarter of the memory
        of the host or its cgroup, divided among its virtual devices.
      chunk: Images scored at once, 1 or more; None for as many as fit. Calibration is
        never chunked.
      cache_bytes: What may be kept on a device between calls with the same weights;
        None for a quarter of the memory limit, 0 for nothing.
      siblings: Networks whose last block runs as one program; None for 8 on an
        accelerator, and 1 on a CPU, which is as fast and gives a score the same bits
        whatever else is scored.
      devices: Devices to spread a population over, a program compiled for each;
        None for the default device. `jax.devices()` takes those of all processes,
        each of which has to score the same archs.

    Raises:
      ValueError: If a number is out of its range.

    Example:
      >>> Evaluator(net, data, resources=Resources(devices=jax.devices()))
    """

    memory_limit: int | None = None
    chunk: int | None = None
    cache_bytes: int | None = None
    siblings: int | None = None
    devices: Sequence[Device] | None = None

    def __post_init__(self):
        for name, least in (
            ("memory_limit", 1),
            ("chunk", 1),
            ("cache_bytes", 0),
            ("siblings", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` is at least {least}, but got {value}.")
        if self.devices is not None and not len(self.devices):
            raise ValueError(
                "`devices` is empty. Pass jax.devices(), or None for the default one."
            )

    def filled(self, device: Device) -> Resources:
        """Return the same with numbers for what was left open, on a device."""
        limit = self.memory_limit or default_memory_limit(device)
        cache = limit // 4 if self.cache_bytes is None else self.cache_bytes
        siblings = self.siblings or (1 if device.platform == "cpu" else 8)
        return dataclasses.replace(
            self, memory_limit=limit, cache_bytes=cache, siblings=siblings
        )


def default_memory_limit(device: Device) -> int:
    """Return the bytes that scoring on a device may take where nobody said."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
        return max(1, free * 3 // 4)
    virtual = sum(d.platform == device.platform for d in jax.local_devices())
    return max(1, host_memory() // 4 // max(1, virtual))


def host_memory() -> int:
    """Return the bytes of this host's memory, or of its cgroup's limit if smaller."""
    found = [_UNKNOWN]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = meminfo.read_text().splitlines()
        total = next(line for line in lines if line.startswith("MemTotal"))
        found = [int(total.split()[1]) << 10]
    for name in _CGROUP_FILES:
        file = Path(name)
        text = file.read_text().strip() if file.exists() else ""
        if text.isdigit():  # "max" where there is no limit
            found.append(int(text))
    return min(found)


def plan_chunk(
    net: Supernet,
    scored: jax.ShapeDtypeStruct,
    calibration: jax.ShapeDtypeStruct | None,
    resources: Resources,
    grouped: bool = True,
) -> int:
    """Return how many images to score at once, so that any path's activations fit.

    A walk keeps the activations of every level of the path that it is on, of the scored
    and of the calibration images. The largest option of each level is counted.

    Args:
      net: Whose paths.
      scored: Abstract images to score.
      calibration: Abstract images to recalibrate with, or None.
      resources: With a memory limit.
      grouped: Whether all blocks may take a few images at a time.

    Raises:
      MemoryError: If the calibration images alone do not fit; or the chunk that was
        asked for, where its images are not taken in groups.
    """
    limit, n = resources.memory_limit or 0, scored.shape[0]
    fixed = 0
    if calibration is not None:
        fixed = _check_calibration(_levels(net, calibration), calibration, limit)
    carries = [nbytes(row.out) / n for row in _levels(net, scored).values()]
    waiting = ((resources.siblings or 1) - 1) * (carries[-1] if carries else 0)
    each = sum(carries) + nbytes(scored) / n + waiting
    # A block's hidden arrays, a few of them at a time: of a group, or of all images.
    group = group_bytes()
    hidden = 0 if group is not None and grouped else 4 * max(carries, default=0)
    chunk = min(n, resources.chunk or n)
    while chunk > 1 and fixed + 4 * (group or 0) + chunk * (each + hidden) > limit:
        chunk = -(-chunk // 2)
    if resources.chunk and not grouped and chunk < min(n, resources.chunk):
        raise MemoryError(
            f"Comparing {min(n, resources.chunk):,} images with each other takes more "
            f"than the memory limit of {limit:,} bytes, and fewer would be another "
            f"score. Ask for a chunk of {chunk:,} at most, hold out no more images "
            "than that, or raise memory_limit."
        )
    return chunk


def _levels(net: Supernet, x: jax.ShapeDtypeStruct) -> dict[int, Reached]:
    """Return the block of each layer but the last that returns most."""
    found: dict[int, Reached] = {}
    for row in net.reachable(abstract(x)):
        best = found.get(row.step.layer)
        if best is None or nbytes(row.out) > nbytes(best.out):
            found[row.step.layer] = row
    found.pop(len(net.slots) - 1, None)
    return dict(sorted(found.items()))


def _check_calibration(
    levels: dict[int, Reached], x: jax.ShapeDtypeStruct, limit: int
) -> int:
    total, n = nbytes(x), x.shape[0]
    for row in levels.values():
        total += nbytes(row.out)
        if total > limit:
            raise MemoryError(
                f"Recalibrating block {row.step.module!r} on {n} images of "
                f"{shapes(row.carry)} takes {total:,} bytes with what the blocks "
                f"before it keep, more than the limit of {limit:,}. Its statistics are "
                "those of one batch, which cannot be cut: use about "
                f"{max(1, int(n * limit / total)):,} calibration images at most, or "
                "raise memory_limit."
            )
    return total
