"""A counter of XLA compilations, stray eager operations included."""

from __future__ import annotations

import jax.monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"


class CompilationCounter:
    """Counts the programs that XLA compiles while the context is open.

    It listens to JAX's own compile events, so an operation run eagerly by mistake
    counts as well as a program of the engine's. A program read from the persistent
    cache counts, too: it was missing in this process.

    Attributes:
      count: Programs compiled so far in the context.
      seconds: Time that their compilation took, added over threads.

    Example:
      >>> with CompilationCounter() as compiled:
      ...     jax.jit(lambda x: x + 1)(jnp.ones(3))
      >>> compiled.count
      2
    """

    def __init__(self):
        self.count, self.seconds = 0, 0.0

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        del kwargs  # e.g. the name of the function
        if event == _COMPILED:
            self.count += 1
            self.seconds += duration_secs

    def __enter__(self) -> CompilationCounter:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *error) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)
