"""What tells scores from those of other data or metrics, in any process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any


def settings_digest(settings: Any) -> str:
    """Return 16 hexadecimal digits of settings that JSON can hold."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def metric_name(value: Any) -> str:
    """Return what tells one metric from another: a value's fields, a function's name.

    Unlike the repr of a function it is the same in every process. Of a callable object
    that is neither, it is the class: a metric with settings is best a dataclass.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = (f.name for f in dataclasses.fields(value) if f.repr)
        inside = (f"{name}={metric_name(getattr(value, name))}" for name in shown)
        return f"{type(value).__qualname__}({', '.join(inside)})"
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return f"partial({', '.join(map(metric_name, parts))})"
    if isinstance(value, tuple | list) and any(map(callable, value)):
        return f"{type(value).__name__}({', '.join(map(metric_name, value))})"
    if isinstance(value, dict) and any(map(callable, value.values())):
        return f"dict({', '.join(f'{k}={metric_name(v)}' for k, v in value.items())})"
    if not callable(value):
        return repr(value)
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
