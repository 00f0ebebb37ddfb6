"""The supernet: stem, layers and head over shared weights, spanned by its choices.

`Supernet.apply` is the reference semantics: short, usable in anybody's own `jit`, and
what the engine, the evaluator and extraction are tested against.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oneshot.flattening import flatten
from oneshot.functional import Functional, Mode, Tree, functional
from oneshot.layers import named_layers
from oneshot.paths import Path, Step
from oneshot.reachable import Reached, walk
from oneshot.shapes import abstract, freeze, shapes, thaw
from oneshot.slots import Slot
from oneshot.space import Choice, SearchSpace
from oneshot.weights import Weights as Weights


class Supernet:
    """Every candidate network of a space at once.

    Args:
      stem: First layer; gets the network's input.
      layers: The layers between, a list or a dict by name. What a layer returns, an
        array or any pytree of arrays, is what the next one gets.
      head: Last layer; returns the network's output.
      symmetry: Which archs are one network when trained alone (see `SearchSpace`).

    Raises:
      TypeError: If a layer is not one, or its constructor fails.
      ValueError: If two layers name a choice alike with different options, or the head
        could be skipped.

    Example:
      >>> net = Supernet(
      ...     stem=lambda rngs: nnx.Linear(64, 32, rngs=rngs),
      ...     layers=[OneOf(skip=Identity,
      ...                   fc=lambda rngs: nnx.Linear(32, 32, rngs=rngs))],
      ...     head=lambda rngs: nnx.Linear(32, 10, rngs=rngs))
      >>> params, state = net.init(jax.random.key(0), jnp.ones((2, 64)))
      >>> logits, state = net.apply(params, state, (1,), jnp.ones((2, 64)))
    """

    def __init__(
        self,
        stem: Any,
        layers: Sequence[Any] | Mapping[str, Any],
        head: Any,
        *,
        symmetry=None,
    ):
        row = [("stem", stem), *named_layers(layers, "layer"), ("head", head)]
        choices, readers, self.slots = flatten(row)
        self.space = SearchSpace(choices, readers, symmetry)
        self._use(dict(_modules(self.slots, self.space.choices)))

    def _use(self, modules: dict[str, Functional]) -> None:
        self.modules = modules
        known: dict[Any, int] = {}
        self.structures = {  # equal numbers for modules that are built alike
            name: known.setdefault(module.structure(), len(known))
            for name, module in self.modules.items()
        }
        # What was reached: tracing is slow, and asked for often.
        self._reached: dict[Any, list[Reached]] = {}
        self._out_shapes: dict[Any, Tree] = {}

    def with_slots(
        self, slots: Sequence[Slot], source: Callable[[str], str]
    ) -> Supernet:
        """Return this supernet with changed slots, of the same space.

        Args:
          slots: Take the place of its own.
          source: The name of a module to that of the one of this supernet which it is
            built like.
        """
        other = copy.copy(self)
        other.slots = tuple(slots)
        choices = self.space.choices
        names = [name for slot in slots for name, _ in slot.modules(choices)]
        other._use(
            {n: dataclasses.replace(self.modules[source(n)], name=n) for n in names}
        )
        return other

    def with_modules(self, change: Callable[[str, Functional], Functional]) -> Supernet:
        """Return this supernet with changed modules, of the same space and weights.

        Args:
          change: (name, module) to the module that takes its place.
        """
        other = copy.copy(self)
        other._use({name: change(name, m) for name, m in self.modules.items()})
        return other

    def init(
        self,
        key: jax.Array,
        x: Tree,
        *,
        place: Callable[[tuple[Tree, Tree]], tuple[Tree, Tree]] = lambda own: own,
    ) -> Weights:
        """Return fresh weights, after checking that every path accepts inputs like `x`.

        Args:
          key: A typed random key; each module folds in its position.
          x: An example batch or its `jax.ShapeDtypeStruct`s; only shapes matter.
          place: Moves the (params, state) of each module to where they shall be, so
            that one device need never hold them all.

        Raises:
          ValueError: If some option does not accept what an earlier one returns.
        """
        self.reachable(x)
        inits: dict[Any, Any] = {}  # modules that start alike share a compiled init
        params, state = {}, {}
        for i, (name, module) in enumerate(self.modules.items()):
            # Equal structures may still start from different constants.
            closed = jax.make_jaxpr(module.init)(key)
            same = (self.structures[name], str(closed)) if not closed.consts else name
            init = inits.setdefault(same, jax.jit(module.init))
            params[name], state[name] = place(init(jax.random.fold_in(key, i)))
        return Weights(params, state)

    def abstract(self) -> Weights:
        """Return the shapes and dtypes of the weights, nothing allocated."""
        modules = self.modules.items()
        return Weights(
            {k: m.params for k, m in modules}, {k: m.state for k, m in modules}
        )

    def reachable(self, x: Tree) -> list[Reached]:
        """Return each (step, carry shape) that some arch reaches, once, in layer order.

        Args:
          x: A batch or its `jax.ShapeDtypeStruct`s; only shapes matter.

        Raises:
          ValueError: If a block fails on a carry that an arch can bring to it.
        """
        shape = abstract(x)
        start = freeze(shape)
        if start not in self._reached:
            self._reached[start] = list(walk(self, shape, self._out_shapes))
        return self._reached[start]

    def path(self, arch: Sequence[int]) -> Path:
        """Return the path that `arch` resolves to, stem and head included.

        Raises:
          ValueError: If `arch` is not one of the space.
        """
        values = dict(enumerate(self.space.check(arch)))
        steps = (slot.resolve(values, self.space.choices) for slot in self.slots)
        return tuple(step for step in steps if step is not None)

    def apply(
        self,
        params: dict[str, Tree],
        state: dict[str, Tree],
        arch: Sequence[int] | jax.Array,
        x: Tree,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[Tree, dict[str, Tree]]:
        """Run the subnet `arch` on a batch: the reference semantics.

        Args:
          params, state: Shared weights, by module name.
          arch: Option indices. Plain ints give a straight line; a `jax.Array`, traced
            or not, gives a `lax.switch` per layer, where options have to return equal
            shapes and an index out of range is clamped.
          x: The input batch.
          train: Batch statistics and dropout instead of running averages and none.
          key: Random key, needed when training with dropout.

        Returns:
          The head's output and the new state; modules off the path keep theirs.

        Raises:
          ValueError: If a static arch is not one of the space, or the options of a
            layer return unequal shapes under a traced one.
        """
        mode: Mode = "train" if train else "eval"
        weights = Weights(params, state)
        if isinstance(arch, jax.Array):
            return self.run_traced(weights, arch, x, mode=mode, key=key)
        return self.run(weights, self.path(arch), x, mode=mode, key=key)

    def run(
        self, weights: Weights, path: Path, x: Tree, *, mode: Mode = "eval", key=None
    ) -> tuple[Tree, dict[str, Tree]]:
        """Run one path; like `apply`, with the mode `calibrate` besides.

        In `calibrate` BatchNorm normalises by the batch and leaves exactly its
        statistics, and nothing else is as in training.
        """
        params, state = weights.params, dict(weights.state)
        for step in path:
            x, state[step.module] = self.modules[step.module].apply(
                params[step.module],
                state[step.module],
                x,
                options=step.options,
                mode=mode,
                key=layer_key(key, step.layer),
            )
        return x, state

    def run_traced(
        self, weights: Weights, arch: jax.Array, x: Tree, *, mode: Mode, key=None
    ) -> tuple[Tree, dict[str, Tree]]:
        """Run the subnet of an array of option indices, by a `lax.switch` per layer."""
        if arch.shape != (len(self.space.choices),):
            raise ValueError(
                f"An arch of this space has shape [{len(self.space.choices)}], one "
                f"option index for each choice, but got {list(arch.shape)}."
            )
        state = dict(weights.state)
        for slot in self.slots:
            names = [name for name, _ in slot.modules(self.space.choices)]
            branches, index = self.switch_table(slot)
            own = {n: weights.params[n] for n in names}, {n: state[n] for n in names}
            run = [
                functools.partial(self._branch, step, mode, layer_key(key, slot.layer))
                for step in branches
            ]
            if len(run) == 1:
                x, new = run[0](*own, x)
            else:
                _check_equal_shapes(
                    slot, branches, [jax.eval_shape(f, *own, x) for f in run]
                )
                x, new = jax.lax.switch(index(arch), run, *own, x)
            state.update(new)
        return x, state

    def _branch(self, step: Step | None, mode: Mode, key, params, state, x):
        if step is None:
            return x, state
        out, new = self.modules[step.module].apply(
            params[step.module],
            state[step.module],
            x,
            options=step.options,
            mode=mode,
            key=key,
        )
        return out, {**state, step.module: new}

    def switch_table(self, slot: Slot):
        """Return the distinct steps of a slot, and `arch -> which` for traced archs."""
        sizes = [len(self.space.choices[c].options) for c in slot.choices]
        steps = [step for _, step in slot.cases(self.space.choices, {})]
        distinct = list(dict.fromkeys(steps))
        table = np.array([distinct.index(s) for s in steps], np.int32)
        strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]

        def index(arch: jax.Array) -> jax.Array:
            row = jnp.int32(0)
            for c, size, stride in zip(slot.choices, sizes, strides, strict=True):
                row += jnp.clip(arch[c], 0, size - 1).astype(jnp.int32) * stride
            return jnp.asarray(table)[row]

        return distinct, index


def _modules(
    slots: Sequence[Slot], choices: Sequence[Choice]
) -> Iterator[tuple[str, Functional]]:
    made: dict[int, Functional] = {}  # a constructor used twice is looked at once
    for name, make in (pair for slot in slots for pair in slot.modules(choices)):
        if id(make) not in made:
            made[id(make)] = functional(name, make)
        yield name, dataclasses.replace(made[id(make)], name=name)


def layer_key(key: jax.Array | None, layer: int) -> jax.Array | None:
    """Return the key of one layer, the last of the foldings from (seed, step)."""
    return None if key is None else jax.random.fold_in(key, layer)


def _check_equal_shapes(slot: Slot, steps, outs) -> None:
    found = {freeze(out[0]): step for step, out in zip(steps, outs, strict=True)}
    if len(found) > 1:
        each = "; ".join(f"{s or 'skip'}: {shapes(thaw(o))}" for o, s in found.items())
        raise ValueError(
            f"The options of layer {slot.name!r} return different shapes ({each}), "
            "which a traced arch cannot select between. Pass the arch as a tuple of "
            "ints."
        )
