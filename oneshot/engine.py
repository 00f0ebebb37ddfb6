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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from oneshot.placement import Device, Kind, Placement
from oneshot.shapes import abstract
from oneshot.sharding import Layout, replicated
from oneshot.supernet import Supernet, Tree


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
        self.supernet = supernet
        self.placement = place = Placement(supernet, mesh, device, layout)
        self.mesh, self.device, self.num_devices = mesh, place.device, place.num_devices
        self.put, self.put_weights = place.put, place.put_weights
        self.sharding = place.sharding
        self._programs: dict[Hashable, concurrent.futures.Future] = {}
        self._lock = threading.Lock()
        self._carries: dict[Hashable, int] = {}
        self._shapes: list[Tree] = []
        # Plain ints would be transferred implicitly at each call.
        self.layer_index = [self.put(np.int32(i)) for i in range(len(supernet.slots))]

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
            if not self.placement.is_default:
                options["in_shardings"] = tuple(
                    self.placement.shardings(a, k) for a, k in arguments
                )
                options["out_shardings"] = self._results(fn, arguments, results)
            jitted = jax.jit(fn, donate_argnums=donate, **options)
            return jitted.lower(*(a for a, _ in arguments)).compile()

        return self.once(("xla", key), build)

    def _results(self, fn: Callable, arguments: Any, results: Any) -> Any:
        """Return the layouts of a program's results."""
        if self.mesh is None:
            return self.placement.sharding("copied")
        # Each array has its own; the kinds are a prefix of the tree that `fn` returns.
        found = jax.eval_shape(fn, *(a for a, _ in arguments))
        return jax.tree.map(
            lambda kind, tree: self.placement.shardings(tree, kind),
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
