"""Supernets by name: a ready space, or `module:function` of the user's own."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

from oneshot.supernet import Supernet


@dataclasses.dataclass(frozen=True)
class Factory:
    """A function that builds a supernet, by name, so that a run can build it again.

    Args:
      name: A ready space such as "tiny", or "module:function"; the module is looked for
        in the working directory, too.
      arguments: Keyword arguments, JSON values.
    """

    name: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def build(self) -> Supernet:
        """Call the function.

        Raises:
          ValueError: If there is no such function, it rejects the arguments, or what it
            returns is not a Supernet.
        """
        function = resolve(self.name)
        try:
            inspect.signature(function).bind(**self.arguments)
        except TypeError as error:
            raise ValueError(
                f"{self.name!r} cannot be called with {dict(self.arguments)}: {error}. "
                f"It takes {inspect.signature(function)}."
            ) from error
        supernet = function(**self.arguments)
        if not isinstance(supernet, Supernet):
            raise ValueError(
                f"{self.name!r} returned {type(supernet).__name__}; it has to return "
                "an oneshot.Supernet."
            )
        return supernet

    def to_json(self) -> dict[str, Any]:
        """Return {"name", "arguments"}."""
        return {"name": self.name, "arguments": dict(self.arguments)}


def resolve(name: str) -> Any:
    """Return the function called `name`.

    Raises:
      ValueError: With what there is, if it does not exist.
    """
    if ":" not in name:
        from oneshot import spaces  # only here: nothing else needs them

        ready = [n for n in vars(spaces) if not n.startswith("_")]
        ready = [n for n in ready if inspect.isfunction(getattr(spaces, n))]
        if name not in ready:
            raise ValueError(
                f"There is no ready space {name!r}; there are "
                f"{', '.join(sorted(ready))}. For a supernet of your own give "
                "module:function."
            )
        return getattr(spaces, name)
    module_name, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"Cannot import {name!r}: {error}. Write module:function, with the module "
            "in the working directory or installed."
        ) from error
    if not callable(found):
        raise ValueError(f"{name!r} is not a function.")
    return found
