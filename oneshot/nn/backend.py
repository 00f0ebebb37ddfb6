"""The one place where an implementation is chosen for a backend.

XLA:CPU's grouped convolution is 10 to 30 times slower than a sum of shifted
products, and its 1x1 convolution 3 to 5 times slower than a matrix product.
On GPU and TPU the plain convolution is right.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Final, Literal

import jax

Impl = Literal["auto", "lax", "shift"]
IMPLS: Final = ("auto", "lax", "shift")

_plain = contextvars.ContextVar("plain_operations", default=False)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Trace with XLA's own operations, whatever was asked for.

    Counting multiply-adds needs it: a sum of shifted products is a convolution to
    whoever counts, but not in its jaxpr.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def resolve(impl: str) -> str:
    """Turn `"auto"` into the implementation for the default backend.

    Args:
      impl: `"auto"`, `"lax"` (XLA's convolutions) or `"shift"` (sums of shifted
        products and matrix products, made for the CPU).

    Returns:
      `"lax"` or `"shift"`.

    Raises:
      ValueError: if `impl` is none of the three.
    """
    if impl not in IMPLS:
        raise ValueError(
            f"impl must be one of {', '.join(map(repr, IMPLS))}, but it is {impl!r}. "
            "Use 'auto' to let the backend decide."
        )
    if _plain.get():
        return "lax"
    if impl != "auto":
        return impl
    return "shift" if jax.default_backend() == "cpu" else "lax"


def group_bytes() -> int | None:
    """Return the bytes that the arrays of one group of examples should have at most.

    A CPU works from its caches: about 3 MB was best for blocks of all sizes on cores
    with 1 MB and 16 MB of second and third level cache each. None on accelerators,
    which want all examples at once.
    """
    return 3 << 20 if jax.default_backend() == "cpu" else None
