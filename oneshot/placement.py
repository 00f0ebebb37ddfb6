"""Where arrays go: on one device, or spread over those of a mesh."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import (
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from oneshot.sharding import (
    DATA_AXIS,
    Layout,
    check_layout,
    optimizer_shardings,
    replicated,
    shardings,
)
from oneshot.supernet import Supernet, Tree, Weights

Device = Any  # a jax.Device, which type checkers take for a variable


@dataclasses.dataclass(frozen=True)
class OptimizerOf:
    """The layout of what an optimizer keeps for one module: that of its weights."""

    module: str


# How an argument or a result is laid out: the arrays of one module, those of several by
# name, their optimizer states by name, examples, or whole on each device.
Kind = (
    Literal["weights", "modules", "optimizers", "data", "copied"] | OptimizerOf | None
)


class Placement:
    """The device or devices of one engine, and how arrays are laid out on them.

    Args:
      supernet: Whose weights.
      mesh, device, layout: As of `oneshot.Engine`, whose errors these are.
    """

    def __init__(
        self,
        supernet: Supernet,
        mesh: Mesh | None,
        device: Device | None,
        layout: Layout,
    ):
        if mesh is not None and device is not None:
            raise ValueError(
                "An engine runs on a mesh or on one device, but both were given: "
                f"{mesh} and {device}. Leave one of them out."
            )
        if mesh is not None and DATA_AXIS not in mesh.axis_names:
            raise ValueError(
                f"The mesh needs an axis called {DATA_AXIS!r} to split batches over, "
                f"but has {mesh.axis_names}. Build it with jax.make_mesh((n,), "
                "('data',), axis_types=(jax.sharding.AxisType.Auto,))."
            )
        if mesh is None and layout is not replicated:
            raise ValueError(
                "A layout spreads weights over the devices of a mesh, but none was "
                "given. Pass `mesh`, or leave `layout` out."
            )
        if mesh is not None:
            arrays = ((n, (m.params, m.state)) for n, m in supernet.modules.items())
            check_layout(dict(arrays), layout, mesh)
        self._modules, self.mesh, self._layout = supernet.modules, mesh, layout
        self._device = None if device is None else SingleDeviceSharding(device)

    @property
    def is_default(self) -> bool:
        """Whether arrays go where JAX puts them anyway."""
        return self.mesh is None and self._device is None

    @property
    def device(self) -> Device:
        """The device that programs run on; the first one of a mesh."""
        if self.mesh is not None:
            return self.mesh.devices.flat[0]
        if self._device is not None:
            return next(iter(self._device.device_set))
        # An array tells: `jax.default_device` is a context that no option shows.
        return next(iter(jax.device_put(np.int32(0)).devices()))

    @property
    def num_devices(self) -> int:
        """Devices that a batch is split over."""
        return 1 if self.mesh is None else self.mesh.size

    def sharding(self, kind: Kind) -> Sharding | None:
        """Return the layout of data, or of what is copied; None on the default device.

        That of weights depends on the array: see `shardings`.
        """
        if self.mesh is None or kind is None:
            return None if kind is None else self._device
        # Over all axes: a device that has a part of the weights has its work as well.
        spec = (
            PartitionSpec(self.mesh.axis_names) if kind == "data" else PartitionSpec()
        )
        return NamedSharding(self.mesh, spec)

    def shardings(self, tree: Tree, kind: Kind) -> Any:
        """Return the layouts of a tree of (abstract) arrays, or one for all of them.

        What travels with the activations and does not split, such as the table of a
        tied embedding, is copied.
        """
        if self.mesh is None or kind is None or kind == "copied":
            return self.sharding(kind)
        if kind == "weights":
            return shardings(tree, self._layout, self.mesh)
        if isinstance(kind, OptimizerOf):
            params = self._modules[kind.module].params
            return optimizer_shardings(tree, params, self._layout, self.mesh)
        if kind == "modules":
            return {m: self.shardings(own, "weights") for m, own in tree.items()}
        if kind == "optimizers":
            return {m: self.shardings(own, OptimizerOf(m)) for m, own in tree.items()}
        split, copied = self.sharding("data"), self.sharding("copied")
        return jax.tree.map(
            lambda a: (
                split if a.ndim and a.shape[0] % self.num_devices == 0 else copied
            ),
            tree,
        )

    def put(self, tree: Tree, kind: Kind = "copied") -> Tree:
        """Move arrays to the device or devices, explicitly.

        Where the mesh is that of several processes, each gives the same arrays and
        keeps its devices' part of them.

        Raises:
          ValueError: If a batch does not split evenly over the devices.
        """
        if kind == "data" and self.mesh is not None:
            n, devices = jax.tree.leaves(tree)[0].shape[0], self.num_devices
            if n % devices:
                raise ValueError(
                    f"A batch of {n} examples does not split over {devices} devices. "
                    f"Use a multiple of {devices}."
                )
        if self.is_default:
            return self._put_by_default(tree)
        where = self.shardings(tree, kind)
        if self.mesh is not None and self.mesh.is_multi_process:
            if kind == "copied":
                return jax.tree.map(lambda leaf: _spread(leaf, where), tree)
            return jax.tree.map(_spread, tree, where)
        return jax.device_put(tree, where)

    def _put_by_default(self, tree: Tree) -> Tree:
        """Move what is on the host, or on the devices of another engine."""
        leaves = jax.tree.leaves(tree)
        arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
        # Those that were put somewhere stay there unless they are told where to go.
        if bound := [a.sharding.device_set for a in arrays if a.committed]:
            device = self.device
            if any(devices != {device} for devices in bound):
                return jax.device_put(tree, SingleDeviceSharding(device))
        return tree if len(arrays) == len(leaves) else jax.device_put(tree)

    def put_weights(self, weights: Weights) -> Weights:
        """Move all weights of the supernet to the device or devices."""
        return Weights(*(self.put(tree, "modules") for tree in weights))


def _spread(leaf: Any, sharding: Any) -> jax.Array:
    """Return an array over the devices of several processes, which all have it."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, sharding)  # spread already
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_spread(jax.random.key_data(leaf), sharding))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])
