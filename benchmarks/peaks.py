"""Peak arithmetic of known accelerators, to print what fraction of it is reached."""

from __future__ import annotations

import jax

# By `device_kind`, FLOP/s of dense products of float32 arrays at JAX's default
# precision: TF32 on NVIDIA GPUs that have it, bfloat16 passes on TPUs. One JAX device
# is a core on TPU v2 and v3, a chip from v4 on. From the vendors' data sheets.
_TERAFLOPS = {
    "Tesla V100-SXM2-16GB": 15.7,
    "Tesla T4": 8.1,
    "NVIDIA A10G": 35,
    "NVIDIA A10": 62.5,
    "NVIDIA A100-SXM4-40GB": 156,
    "NVIDIA A100-SXM4-80GB": 156,
    "NVIDIA A100-PCIE-40GB": 156,
    "NVIDIA A100 80GB PCIe": 156,
    "NVIDIA L4": 60.5,
    "NVIDIA H100 PCIe": 378,
    "NVIDIA H100 80GB HBM3": 494.7,
    "NVIDIA H200": 494.7,
    "TPU v2": 22.5,
    "TPU v3": 61.5,
    "TPU v4": 275,
    "TPU v5 lite": 197,
    "TPU v5": 459,
    "TPU v5p": 459,
    "TPU v6 lite": 918,
}


def peak_flops(device: jax.Device | None = None) -> float | None:
    """Return the peak FLOP/s of a device, or None for one that is not known."""
    kind = (device or jax.devices()[0]).device_kind
    return 1e12 * _TERAFLOPS[kind] if kind in _TERAFLOPS else None


def fraction_of_peak(macs: float, seconds: float) -> float | None:
    """Return the fraction of the device's peak that some multiply-adds reached.

    Args:
      macs: Multiply-adds, each two operations.
      seconds: Time that they took.
    """
    peak = peak_flops()
    return None if peak is None else 2 * macs / seconds / peak


def shown(fraction: float | None) -> str:
    """Return a fraction of the peak for a table."""
    return "unknown" if fraction is None else f"{fraction:.1%}"
