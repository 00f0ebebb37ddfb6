"""Training over devices and processes gives the losses of one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).with_name("training_worker.py")
STRATEGIES = ("uniform", "fair", "sandwich")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def losses(folder: Path, processes: int, devices: int, dtype: str, steps: int = 200):
    """Return the losses by strategy of each process."""
    folder.mkdir()
    # Devices that wait for each other hold a thread each, of as many as there are cores
    # or devices; on a busy machine XLA's patience of 40 seconds ends the process.
    flags = (
        f"--xla_force_host_platform_device_count={devices} "
        "--xla_cpu_collective_call_terminate_timeout_seconds=240"
    )
    threads = {"PJRT_NPROC": "16"} if devices > 1 else {}
    own = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **threads}
    environment = {**os.environ, **own}
    arguments = [str(processes), str(free_port()), str(folder), dtype, str(steps)]
    running = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(i), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * processes, outputs
    found = [dict(np.load(folder / f"losses{i}.npz")) for i in range(processes)]
    assert {int(one.pop("devices")) for one in found} == {processes * devices}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_devices_and_processes_train_as_one_device_does(dtype, tmp_path):
    (want,) = losses(tmp_path / "one", 1, 1, dtype)
    spread = losses(tmp_path / "four", 1, 4, dtype)
    # What processes say to each other takes long; in float32 the first steps suffice.
    spread += losses(tmp_path / "two", 2, 1, dtype, 200 if dtype == "float64" else 10)
    for name in STRATEGIES:
        assert want[name][-20:].mean() < 0.7 * want[name][:5].mean()  # it learns
        for got in spread:
            if dtype == "float64":
                np.testing.assert_allclose(got[name], want[name], rtol=1e-6)
            else:
                np.testing.assert_allclose(got[name][:10], want[name][:10], rtol=1e-4)
        if dtype == "float32":
            last, one = (found[name][-20:].mean() for found in (spread[0], want))
            others = want[f"{name}_seeds"][:, -20:].mean(axis=1)
            assert abs(last - one) < np.std([one, *others], ddof=1)
    if dtype == "float32":  # weights split over the devices, also of two processes
        for got, parts in zip(spread, (4, 2), strict=False):
            np.testing.assert_allclose(got["sharded"], want["sharded"], rtol=1e-4)
            assert got["held"] < 1 / parts + 0.2
