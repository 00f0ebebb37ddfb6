"""The engine: compiled programs, shared by blocks that are equal, on one device or
many.

A program is compiled ahead of time for its key (structure of the module, options,
shapes, kind) and then called; it can never be recompiled behind the caller's back.
Equal layers have equal keys, so the number of programs grows with distinct blocks, not
with layers.
"""

from __future__ import annotations

import concurrent.futures
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

from oneshot.supernet import Supernet, Tree, abstract

Device = Any  # a jax.Device, which type checkers take for a variable
Kind = Literal["weights", "data"] | None  # how an argument or result is laid out
DATA_AXIS = "data"


class Engine:
    """Compiles and keeps the programs of one supernet.

    Args:
      supernet: Whose blocks to compile.
      mesh: Devices to spread each batch over, with an axis called `data`; None uses the
        default device. Weights are replicated, activations split by example, and
        BatchNorm's statistics are those of the whole batch.
      device: The one device to run on instead of the default one.

    Raises:
      ValueError: If the mesh has no axis called `data`, or a device is named beside it.
    """

    def __init__(
        self,
        supernet: Supernet,
        mesh: Mesh | None = None,
        device: Device | None = None,
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
        self.supernet, self.mesh = supernet, mesh
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

    def sharding(self, kind: Kind) -> Sharding | None:
        """Return the layout of weights or data; None on the default device."""
        if self.mesh is None or kind is None:
            return None if kind is None else self._device
        spec = PartitionSpec(DATA_AXIS) if kind == "data" else PartitionSpec()
        return NamedSharding(self.mesh, spec)

    def put(self, tree: Tree, kind: Kind = "weights") -> Tree:
        """Move arrays to the device or devices, explicitly.

        Where the mesh is that of several processes, each gives the same arrays and
        keeps its devices' part of them.

        Raises:
          ValueError: If a batch does not split evenly over the devices.
        """
        if kind == "data" and self.mesh is not None:
            n, devices = jax.tree.leaves(tree)[0].shape[0], self.mesh.shape[DATA_AXIS]
            if n % devices:
                raise ValueError(
                    f"A batch of {n} examples does not split over {devices} devices. "
                    f"Use a multiple of {devices}."
                )
        placed = self.mesh is None and self._device is None
        if placed and all(map(_on_device, jax.tree.leaves(tree))):
            return tree
        sharding = self.sharding(kind)
        if self.mesh is not None and self.mesh.is_multi_process:
            return jax.tree.map(lambda leaf: _spread(leaf, sharding), tree)
        return jax.device_put(tree, sharding)

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
                options["in_shardings"] = tuple(self.sharding(k) for _, k in arguments)
                options["out_shardings"] = jax.tree.map(
                    self.sharding, results, is_leaf=lambda k: k is None
                )
            jitted = jax.jit(fn, donate_argnums=donate, **options)
            return jitted.lower(*(a for a, _ in arguments)).compile()

        return self.once(("xla", key), build)

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
