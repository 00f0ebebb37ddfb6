"""The cache on disk: off on a CPU, unless a folder is named."""

import subprocess
import sys

CODE = """
import jax, jax.numpy as jnp, oneshot
print(oneshot.use_compilation_cache())
with oneshot.CompilationCounter() as compiled:
    jax.jit(lambda x: jnp.linalg.eigh(x @ x.T)[0])(jnp.ones((40, 40)))
"""


def run(**environment):
    import os

    out = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


def test_a_cpu_keeps_nothing_unless_a_folder_is_named(tmp_path):
    assert run(ONESHOT_CACHE="") == "None"
    folder = tmp_path / "programs"
    assert run(ONESHOT_CACHE=str(folder)).startswith(str(folder))
    assert list(folder.rglob("*-cache")) or list(folder.rglob("*"))
