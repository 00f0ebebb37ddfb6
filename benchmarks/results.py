"""What every benchmark writes: one flat JSON object, the environment included."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np


def environment() -> dict[str, Any]:
    """Return machine, device, cores and versions, all that times depend on."""
    device = jax.devices()[0]
    out = {
        "backend": jax.default_backend(),
        "device": device.device_kind if device.platform != "cpu" else cpu_model(),
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
    }
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return out | {f"version_{name}": version(name) for name in packages}


def cpu_model() -> str:
    """Return the processor's name as the system knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def spread(samples: list[float]) -> float:
    """Return the interquartile range over the median."""
    low, middle, high = np.percentile(samples, [25, 50, 75])
    return float((high - low) / middle)


def write(path: Path | None, results: Mapping[str, Any]) -> None:
    """Write one flat JSON object, environment first; nothing where `path` is None.

    Raises:
      ValueError: If a value is a list or an object, so that tables stay easy to make.
    """
    nested = [k for k, v in results.items() if isinstance(v, list | dict | tuple)]
    if nested:
        raise ValueError(f"Results are flat, but {nested} hold lists or objects.")
    if path is not None:
        text = json.dumps(environment() | dict(results), indent=1)
        path.write_text(text + "\n")
