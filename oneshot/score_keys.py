"""What tells scores from those of other data or metrics, in any process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any


def settings_digest(settings: Any) -> str:
    """Return 16 hexadecimal digits of settings that JSON can hold."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def metric_name(metric: Callable[..., Any]) -> str:
    """Return what tells one metric from another: a value's fields, a function's name.

    It is the same in every process, as the repr of a function is not.
    """
    if dataclasses.is_dataclass(metric):
        fields = (
            (f.name, getattr(metric, f.name))
            for f in dataclasses.fields(metric)
            if f.repr
        )
        inside = (
            f"{k}={metric_name(v) if callable(v) else repr(v)}" for k, v in fields
        )
        return f"{type(metric).__qualname__}({', '.join(inside)})"
    kind = metric if hasattr(metric, "__qualname__") else type(metric)
    return f"{kind.__module__}.{kind.__qualname__}"
