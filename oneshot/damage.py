"""Tells a file that cannot be read from what else can fail while reading it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def explained(words: Callable[[str], str]) -> Iterator[None]:
    """Say in words what an error that reading raises means.

    Memory that runs out and files that may not be read are no damage: those errors
    pass as they are.

    Args:
      words: From the error's kind and first line to a sentence with what to do.

    Raises:
      ValueError: With those words, from the error.

    Example:
      >>> with explained(lambda what: f"{path} is damaged ({what}). Write it again."):
      ...     found = json.loads(path.read_text())
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError | PermissionError):
            raise
        if "RESOURCE_EXHAUSTED" in str(error):  # XLA's word for the same
            raise
        what = str(error).partition("\n")[0][:200]
        raise ValueError(words(f"{type(error).__name__}: {what}")) from error
