"""The cache of compiled programs on disk."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def use_compilation_cache(directory: str | Path | None = None) -> Path | None:
    """Keep compiled programs on disk, so that the next process need not compile them.

    On a GPU or TPU that is always worth it. On a CPU it is off unless a directory is
    named: a program compiled for one processor may crash on another, so do not share
    the directory between machines.

    Args:
      directory: Where; None takes the variable ONESHOT_CACHE, and without that, on an
        accelerator, a folder in the user's cache. A cache set up already is kept.

    Returns:
      The folder in use; None if there is no cache.

    Example:
      >>> use_compilation_cache("programs")
    """
    named = directory or os.environ.get("ONESHOT_CACHE")
    known = getattr(jax.config, "jax_compilation_cache_dir", None)
    if known and not directory:
        return Path(known)
    if not named and jax.default_backend() == "cpu":
        return None
    kind = jax.devices()[0].device_kind.replace(" ", "-")
    base = Path(named) if named else Path.home() / ".cache" / "oneshot"
    folder = base / f"jax-{jax.__version__}-{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return folder
