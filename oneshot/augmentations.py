"""Augmentations by name, as settings hold them: `crop(4)`, `["crop(4)", "flip"]`.

A name is that of a function in `oneshot.augment`, `oneshot.mixing` or
`oneshot.spec_augment`, or `module:function`.
Called with the arguments behind it, literals only, it returns `(key, x, y) -> (x, y)`.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from oneshot.data import Augment
from oneshot.factories import resolve

_HOME = "oneshot.augment"
_PLACES = {
    **dict.fromkeys(("crop", "erase", "flip", "shrink"), _HOME),
    **dict.fromkeys(("cutmix", "mixup"), "oneshot.mixing"),
    "spec_augment": "oneshot.spec_augment",
}


def augmentation(text: str) -> Augment | None:
    """Return the augmentation that a setting describes, None for an empty one.

    Args:
      text: One call such as "flip" or "crop(4)", or a JSON list of them, which are
        applied in that order.

    Raises:
      ValueError: If there is no such function, or it rejects the arguments.

    Example:
      >>> augment = augmentation('["crop(padding=4)", "flip", "mixup(0.2, 10)"]')
    """
    made = [_made(call) for call in calls(text)]
    if len(made) < 2:
        return made[0] if made else None
    return resolve(f"{_HOME}:compose")(*made)


def calls(text: str) -> list[str]:
    """Return the calls that a setting holds.

    Raises:
      ValueError: If it starts like a JSON list and is none of strings.
    """
    text = text.strip()
    if not text.startswith("["):
        return [text] if text else []
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(_expected(text)) from error
    if not all(isinstance(one, str) for one in found):
        raise ValueError(_expected(text))
    return found


def _made(call: str) -> Augment:
    name, args, named = parsed(call)
    if ":" not in name:
        if name not in _PLACES:
            raise ValueError(
                f"No augmentation is called {name!r}; there are {', '.join(_PLACES)}. "
                "One of your own is named by module:function."
            )
        name = f"{_PLACES[name]}:{name}"
    make = resolve(name)
    _check_arguments(call, make, args, named)
    return make(*args, **named)


def parsed(call: str) -> tuple[str, Sequence[Any], dict[str, Any]]:
    """Return the name and the arguments of a call such as `crop(4)`.

    Raises:
      ValueError: If it is no call of a name with literals.
    """
    name, bracket, rest = call.strip().partition("(")
    if not bracket:
        return name, (), {}
    try:
        node = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise ValueError("it is not one call")
        args = [ast.literal_eval(arg) for arg in node.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(_expected(call)) from error
    return name, args, named


def _check_arguments(call: str, make: Callable, args: Any, named: Any) -> None:
    try:
        inspect.signature(make).bind(*args, **named)
    except TypeError as error:
        raise ValueError(
            f"The augmentation {call!r} cannot be made: {error}. It takes "
            f"{inspect.signature(make)}."
        ) from error


def _expected(text: str) -> str:
    return (
        "`augment` is a call such as crop(4), with literal arguments, or a JSON list "
        f'such as \'["crop(4)", "flip"]\', but got {text!r}.'
    )
