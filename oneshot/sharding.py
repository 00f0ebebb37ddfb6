"""How weights are spread over the devices of a mesh: copied, split, or by rules.

A layout sees the path of an array inside its module, and its shape. Equal modules share
programs, so the name of the module is no part of it. Gradients are laid out as their
weights, and so is what an optimizer keeps for a weight in the weight's shape; all else
that it keeps is copied.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = Any
DATA_AXIS = "data"
PARAMETERS_AXIS = "parameters"
# (path such as "mlp/up_proj/kernel", shape, mesh) -> how to split the array's axes
Layout = Callable[[str, tuple[int, ...], Mesh], PartitionSpec]


def replicated(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Return the layout of an array that each device has a copy of."""
    return PartitionSpec()


@dataclasses.dataclass(frozen=True)
class FullySharded:
    """Splits every large array over the mesh's axis `parameters`, along one axis.

    With batches split over all devices, as the engine does, this is fully sharded data
    parallelism: a program gathers the weights it needs and scatters their gradients,
    and a device keeps only its part of weights and optimizer state in between.

    Attributes:
      smallest: Arrays of fewer elements are copied: their traffic is not worth it.

    Example:
      >>> mesh = jax.make_mesh((2, 4), ("data", "parameters"),
      ...                      axis_types=(jax.sharding.AxisType.Auto,) * 2)
      >>> trainer = Trainer(net, strategy, adamw(), 3e-4, mesh=mesh,
      ...                   layout=FullySharded())

    Source: Rajbhandari et al., ZeRO, arXiv:1910.02054 (stage 3).
    """

    smallest: int = 2**14

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """Split the longest axis that the devices divide; copy where none is."""
        parts = mesh.shape[PARAMETERS_AXIS]
        fits = [axis for axis, n in enumerate(shape) if n % parts == 0]
        if math.prod(shape) < self.smallest or not fits:
            return PartitionSpec()
        longest = max(fits, key=lambda axis: shape[axis])
        return PartitionSpec(*[None] * longest, PARAMETERS_AXIS)


@dataclasses.dataclass(frozen=True)
class ByPath:
    """Splits arrays by rules on their paths; the first that matches counts.

    Attributes:
      rules: Pairs of a regular expression and a `PartitionSpec` over axes of the mesh.
        The expression has to match the end of the path, from its start or from a "/":
        `kernel` matches every kernel, `up_proj/kernel` only some.
      otherwise: Layout of the arrays that no rule matches; `replicated` by default.

    Example:
      >>> ByPath([("(gate|up)_proj/kernel", PartitionSpec(None, "parameters")),
      ...         ("down_proj/kernel", PartitionSpec("parameters"))])
    """

    rules: Sequence[tuple[str, PartitionSpec]]
    otherwise: Layout = replicated

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """Return the spec of the first rule that matches."""
        for pattern, spec in self.rules:
            if re.search(f"(?:^|/)(?:{pattern})$", path):
                return spec
        return self.otherwise(path, shape, mesh)


def shardings(tree: Tree, layout: Layout, mesh: Mesh) -> Tree:
    """Return the sharding of each array of one module, in their structure; numbers of
    no axes, which are no weights, are copied."""

    def one(path: tuple[Any, ...], array: Any) -> NamedSharding:
        if not array.shape:
            return NamedSharding(mesh, PartitionSpec())
        spec = layout(path_name(path), tuple(array.shape), mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(one, tree)


def optimizer_shardings(tree: Tree, params: Tree, layout: Layout, mesh: Mesh) -> Tree:
    """Return the sharding of what an optimizer keeps for the arrays of one module.

    Args:
      tree: The optimizer's state; its arrays are found by the end of their paths.
      params: The module's (abstract) arrays.
      layout: Of those.
      mesh: The devices.
    """
    known = dict(jax.tree_util.tree_leaves_with_path(params))

    def one(path: tuple[Any, ...], array: Any) -> NamedSharding:
        # Whole paths: in lists of layers the names alone are those of several arrays.
        ends = (path[i:] for i in range(len(path)))
        own = next((end for end in ends if end in known), None)
        spec = PartitionSpec()
        if own is not None and array.shape and known[own].shape == array.shape:
            spec = layout(path_name(own), tuple(array.shape), mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(one, tree)


def path_name(path: tuple[Any, ...]) -> str:
    """Return the names along a path of a pytree, joined by "/"; positions are left
    out."""
    names = (getattr(k, "key", getattr(k, "name", None)) for k in path)
    return "/".join(name for name in names if isinstance(name, str))


def check_layout(modules: dict[str, Tree], layout: Layout, mesh: Mesh) -> None:
    """Raise if a layout does not fit the weights of some module.

    Args:
      modules: Abstract arrays of each module, its parameters and its other state.
      layout: What is to be checked.
      mesh: Has the axes that the layout names.

    Raises:
      ValueError: If it names an axis that the mesh lacks, asks to split an axis that
        the devices do not divide or the array lacks, or has a rule that matches no
        array.
    """
    if isinstance(layout, FullySharded) and PARAMETERS_AXIS not in mesh.axis_names:
        raise ValueError(
            f"`FullySharded` splits weights over an axis {PARAMETERS_AXIS!r} of the "
            f"mesh, but the mesh has the axes {mesh.axis_names}. Build it with "
            "jax.make_mesh((n, m), ('data', 'parameters'), "
            "axis_types=(jax.sharding.AxisType.Auto,) * 2)."
        )
    seen = []
    for module, arrays in modules.items():
        for path, array in jax.tree_util.tree_leaves_with_path(arrays):
            if not array.shape:
                continue
            name = path_name(path)
            seen.append(name)
            spec = layout(name, tuple(array.shape), mesh)
            _check_spec(f"{module}/{name}", array.shape, spec, mesh)
    if isinstance(layout, ByPath):
        for pattern, _ in layout.rules:
            if not any(re.search(f"(?:^|/)(?:{pattern})$", name) for name in seen):
                raise ValueError(
                    f"The rule {pattern!r} of the layout matches the end of no array's "
                    f"path; there are {', '.join(sorted(set(seen)))}. Correct the "
                    "rule, or leave it out."
                )


def _check_spec(
    name: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh
) -> None:
    if len(spec) > len(shape):
        raise ValueError(
            f"The layout splits {name} by {spec}, which names more axes than its shape "
            f"{list(shape)} has. Shorten it, or write a rule for this array before it."
        )
    for axis, names in enumerate(spec):
        split = (names,) if isinstance(names, str) else tuple(names or ())
        if missing := [one for one in split if one not in mesh.axis_names]:
            raise ValueError(
                f"The layout splits {name} over the axis {missing[0]!r}, but the mesh "
                f"has the axes {mesh.axis_names}."
            )
        parts = math.prod(mesh.shape[one] for one in split)
        if parts > 1 and shape[axis] % parts:
            raise ValueError(
                f"The layout splits axis {axis} of {name}, of shape {list(shape)}, "
                f"into {parts} parts, which do not divide it. Split another axis, or "
                "leave the array to `replicated`."
            )
