"""Extracted models on disk: what they are in JSON, their arrays through Orbax."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from oneshot import damage
from oneshot.extraction import Model, extract
from oneshot.factories import Factory


@dataclasses.dataclass(frozen=True)
class Origin:
    """How to build a model's modules again.

    Args:
      factory: Builds the supernet whose modules the model holds.
      arch: Which subnet.
      input_shape: Shape of one example.
      input_dtype: Its dtype.
    """

    factory: Factory
    arch: Sequence[int]
    input_shape: Sequence[int]
    input_dtype: str = "float32"


def save_model(
    directory: str | Path, model: Model, origin: Origin, **notes: Any
) -> None:
    """Save an extracted model; `load` opens it again.

    Args:
      directory: Made, or overwritten if it holds a model.
      model: From `extract`, perhaps trained on.
      origin: How to build its modules.
      **notes: JSON values to keep with it, such as its scores.

    Raises:
      TypeError: If a note is no JSON value; a model that was there stays as it was.

    Example:
      >>> origin = Origin(Factory("my_module:my_supernet"), arch, images.shape[1:])
      >>> save_model("models/small", model, origin, accuracy=0.98)
    """
    from orbax.checkpoint import v1 as ocp  # loads slowly

    described = {
        "factory": origin.factory.to_json(),
        "arch": [int(option) for option in origin.arch],
        "input_shape": [int(axis) for axis in origin.input_shape],
        "input_dtype": origin.input_dtype,
        "notes": notes,
    }
    text = json.dumps(described, indent=1, default=_plain)  # fails before files change
    path = Path(directory).absolute()
    path.mkdir(parents=True, exist_ok=True)
    ocp.save(str(path / "weights"), _arrays(model), overwrite=True)
    (path / "model.json").write_text(text + "\n")


def _plain(value: Any) -> Any:
    """Return an array or number of NumPy or JAX as JSON can hold it."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return value.tolist()
    raise TypeError(f"{value!r} is no JSON value, so it cannot be kept as a note.")


def load(directory: str | Path) -> Model:
    """Open a model that `save_model`, `oneshot extract` or the quickstart saved.

    Args:
      directory: Such as "runs/quickstart/best".

    Returns:
      The model, in eval mode.

    Raises:
      FileNotFoundError: If there is no model in the directory.
      ValueError: If the code that it was built by is not there, or a file is damaged.

    Example:
      >>> logits = oneshot.load("runs/quickstart/best")(images)
    """
    from orbax.checkpoint import v1 as ocp

    path = Path(directory).absolute()
    if not (path / "model.json").is_file():
        raise FileNotFoundError(
            f"There is no model in {str(directory)!r}: it has no model.json. Name the "
            "directory that the model was saved to, such as runs/quickstart/best."
        )
    with damage.explained(_damage(path / "model.json")):
        described = json.loads((path / "model.json").read_text())
        x = jnp.zeros((1, *described["input_shape"]), described["input_dtype"])
        factory, arch = Factory(**described["factory"]), described["arch"]
    supernet = factory.build()
    empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), supernet.abstract())
    model = extract(supernet, empty, arch, x, recalibrate=False)
    graphdef, rng, rest = nnx.split(model, nnx.RngState, ...)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
        _arrays(model),
    )
    with damage.explained(_damage(path / "weights")):
        arrays = ocp.load(str(path / "weights"), like)
    nnx.replace_by_pure_dict(rest, _numbered(arrays))
    return nnx.merge(graphdef, rng, rest)


def _damage(place: Path) -> Callable[[str], str]:
    return lambda what: (
        f"The model's {str(place)!r} cannot be read: a file was changed or cut, or "
        f"the supernet is built otherwise by now ({what}). "
        "Extract or save the model again."
    )


def _arrays(model: Model) -> Any:
    """Return all arrays but random state; JSON and Orbax have only string keys."""
    return _named(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))


def _named(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    marked = {f"#{k}" if isinstance(k, int) else k: v for k, v in tree.items()}
    return {k: _named(v) for k, v in marked.items()}


def _numbered(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    plain = {int(k[1:]) if k.startswith("#") else k: v for k, v in tree.items()}
    return {k: _numbered(v) for k, v in plain.items()}
