"""The engine: compiled programs, shared by blocks that are equal, on one device or
many.

A program is compiled ahead of time for its key (structure of the module, options,
shapes, kind) and then called; it can never be recompiled behind the caller's back.
Equal layers have equal keys, so the number of programs grows with distinct blocks, not
with layers.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
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

from oneshot.shapes import abstract
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


class Engine:
    """Compiles and keeps the programs of one supernet.

    Args:
      supernet: Whose blocks to compile.
      mesh: Devices to spread each batch over, with an axis called `data`; None uses the
        default device. Activations are split by example over all devices, and
        BatchNorm's statistics are those of the whole batch.
      device: The one device to run on instead of the default one.
      layout: How weights are spread over the mesh; by default each device has them all.

    Raises:
      ValueError: If the mesh has no axis called `data`, a device is named beside it, or
        the layout fits neither mesh nor weights.
    """

    def __init__(
        self,
        supernet: Supernet,
        mesh: Mesh | None = None,
        device: Device | None = None,
        layout: Layout = replicated,
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
        self.supernet, self.mesh, self.layout = supernet, mesh, layout
        self._device = None if device is None else SingleDeviceSharding(device)
        self._programs: dict[Hashable, concurrent.futures.Future] = {}
        self._lock = threading.Lock()
        self._carries: dict[Hashable, int] = {}
        self._shapes: list[Tree] = []
        # Plain ints would be transferred implicitly at each call.
        self.layer_index = [self.put(np.int32(i)) for i in range(len(supernet.slots))]

    # --- layouts ------------------------------------------------------------------

    @property
    def device(self) -> Device:
        """The device that programs run on; the first one of a mesh."""
        if self.mesh is not None:
            return self.mesh.devices.flat[0]
        if self._device is not None:
            return next(iter(self._device.device_set))
        return jax.local_devices()[0]

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
            return shardings(tree, self.layout, self.mesh)
        if isinstance(kind, OptimizerOf):
            params = self.supernet.modules[kind.module].params
            return optimizer_shardings(tree, params, self.layout, self.mesh)
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
        placed = self.mesh is None and self._device is None
        if placed and all(map(_on_device, jax.tree.leaves(tree))):
            return tree
        where = self.shardings(tree, kind)
        if self.mesh is not None and self.mesh.is_multi_process:
            if kind == "copied":
                return jax.tree.map(lambda leaf: _spread(leaf, where), tree)
            return jax.tree.map(_spread, tree, where)
        return jax.device_put(tree, where)

    def put_weights(self, weights: Weights) -> Weights:
        """Move all weights of the supernet to the device or devices."""
        return Weights(*(self.put(tree, "modules") for tree in weights))

    # --- shapes -------------------------------------------------------------------

    def carry_id(self, tree: Tree) -> int:
        """Return a small number that stands for a carry's structure, shapes, dtypes."""
        leaves, treedef = jax.tree.flatten(tree)
        key = treedef, tuple((a.shape, a.dtype) for a in leaves)
        with self._lock:
            if key not in self._carries:
                self._carries[key] = len(self._shapes)
                self._shapes.append(abstract(tree))
            return self._carries[key]

    def carry(self, carry_id: int) -> Tree:
        """Return the shapes that a number stands for."""
        return self._shapes[carry_id]

    def structure(self, module: str) -> int:
        """Return a small number that equal modules share."""
        return self.supernet.structures[module]

    # --- programs -----------------------------------------------------------------

    @property
    def num_programs(self) -> int:
        """Number of programs compiled so far."""
        return sum(isinstance(k, tuple) and k[0] == "xla" for k in self._programs)

    def once(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """Return `build()`, called once for each key, whichever thread comes first."""
        with self._lock:
            future = self._programs.get(key)
            mine = future is None
            if future is None:
                future = self._programs[key] = concurrent.futures.Future()
        if mine:
            try:
                future.set_result(build())
            except BaseException as error:
                with self._lock:
                    del self._programs[key]  # a later call may succeed
                future.set_exception(error)
        return future.result()

    def compile(
        self,
        key: Hashable,
        fn: Callable,
        arguments: Sequence[tuple[Tree, Kind]],
        results: Any = None,
        donate: tuple[int, ...] = (),
    ) -> Any:
        """Compile `fn` for abstract arguments, once for each key.

        Args:
          key: What tells this program from every other.
          fn: A pure function.
          arguments: Abstract value and layout of each argument.
          results: Layouts of the results, a prefix of their tree.
          donate: Positions of arguments whose memory the results may take.

        Returns:
          The compiled program; call it with arrays.
        """

        def build():
            options = {}
            if self.mesh is not None or self._device is not None:
                options["in_shardings"] = tuple(
                    self.shardings(a, k) for a, k in arguments
                )
                options["out_shardings"] = self._results(fn, arguments, results)
            jitted = jax.jit(fn, donate_argnums=donate, **options)
            return jitted.lower(*(a for a, _ in arguments)).compile()

        return self.once(("xla", key), build)

    def _results(self, fn: Callable, arguments: Any, results: Any) -> Any:
        """Return the layouts of a program's results."""
        if self.mesh is None:
            return self.sharding("copied")
        # Each array has its own; the kinds are a prefix of the tree that `fn` returns.
        found = jax.eval_shape(fn, *(a for a, _ in arguments))
        return jax.tree.map(
            lambda kind, tree: self.shardings(tree, kind),
            results,
            found,
            is_leaf=_is_none,
        )

    def warm_up(
        self,
        jobs: Sequence[Callable[[], Any]],
        on_progress: Callable[[int, int], Any] = lambda done, total: None,
        limit: int = 500,
    ) -> float:
        """Compile in parallel threads; XLA lets go of the interpreter while it works.

        Args:
          jobs: What to compile, from `warm_up_jobs` of a trainer or an evaluator.
          on_progress: Called with (done, total) as jobs end.
          limit: With more jobs than this only the first `limit` are compiled now, the
            rest when they are first used.

        Returns:
          Seconds it took.
        """
        start, jobs = time.perf_counter(), list(jobs)[:limit]
        on_progress(0, len(jobs))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            futures = [pool.submit(job) for job in jobs]
            try:
                for i, done in enumerate(concurrent.futures.as_completed(futures)):
                    done.result()
                    on_progress(i + 1, len(jobs))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return time.perf_counter() - start


def _is_none(kind: Kind) -> bool:
    return kind is None


def _on_device(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array)


def _spread(leaf: Any, sharding: Any) -> jax.Array:
    """Return an array over the devices of several processes, which all have it."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, sharding)  # spread already
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_spread(jax.random.key_data(leaf), sharding))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])


def saved_shapes(compiled: Any, tree: Tree, index: int) -> Tree:
    """Return abstract values of one result of a program, with the layout XLA chose."""
    shardings = compiled.output_shardings[index]
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, shardings
    )


def key_shape() -> jax.ShapeDtypeStruct:
    """Return the abstract value of one typed random key."""
    return jax.eval_shape(lambda: jax.random.key(0))


SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
INDEX = jax.ShapeDtypeStruct((), jnp.int32)
