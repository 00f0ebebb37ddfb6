"""Checkpoints of a training run through Orbax.

Arrays are restored into the structure, shapes and layout that the trainer defines;
what is not an array (step, seed, strategy, space) is JSON beside them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from oneshot import damage
from oneshot.engine import Engine
from oneshot.placement import Kind
from oneshot.supernet import Supernet, Weights
from oneshot.train import Trainer, TrainState


def _checkpointer(directory: str | Path, keep: int | None = None) -> Any:
    policy: Any = None
    if keep is not None:
        policy = ocp.training.preservation_policies.LatestN(keep)
    path = str(Path(directory).absolute())
    return ocp.training.Checkpointer(path, preservation_policy=policy)


def save(
    directory: str | Path, supernet: Supernet, state: TrainState, *, keep: int = 2
) -> None:
    """Save a training state; the step that it has reached names it.

    Args:
      directory: Holds all checkpoints of one run; made if it does not exist.
      supernet: Its space is stored with the state.
      state: From `Trainer.init`, `Trainer.step` or `fit`.
      keep: How many of the latest checkpoints to keep.

    Raises:
      ValueError: If the directory holds a checkpoint of a later step, of another run
        or another course of this one: `restore` would take that for the latest.

    Example:
      >>> save("runs/mine/checkpoints", net, state)
    """
    arrays = {
        "params": state.weights.params,
        "state": state.weights.state,
        "optimizer": state.optimizer,
    }
    metadata = {
        "step": int(state.step),
        "seed": int(state.seed),
        "strategy": jax.tree.map(_plain, state.strategy),
        "space": supernet.space.to_json(),
        "fingerprint": supernet.space.fingerprint,
        "versions": {"jax": jax.__version__},
        "arrays": _by_path(arrays),
    }
    with _checkpointer(directory, keep) as checkpointer:
        latest = checkpointer.latest
        if latest is not None and latest.step > state.step:
            raise ValueError(
                f"{str(directory)!r} holds a checkpoint of step {latest.step}, later "
                f"than this state's step {state.step}, and would go on from that one. "
                "Save to another directory, or remove the later checkpoints first."
            )
        checkpointer.save(state.step, arrays, custom_metadata=metadata, overwrite=True)


def _plain(value: Any) -> Any:
    """Return a strategy's array or number of NumPy as JSON can hold it."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def latest_step(directory: str | Path) -> int | None:
    """Return the step of the latest checkpoint in a directory, or None."""
    if not Path(directory).is_dir():
        return None
    with _checkpointer(directory) as checkpointer:
        latest = checkpointer.latest
        return None if latest is None else int(latest.step)


def restore(
    directory: str | Path, trainer: Trainer, *, step: int | None = None
) -> TrainState:
    """Load a training state; training goes on from it as if it had never stopped.

    Args:
      directory: Where `save` put it.
      trainer: Built as for the run; defines structure, shapes and devices.
      step: Which checkpoint; None loads the latest.

    Returns:
      The state.

    Raises:
      FileNotFoundError: If there is no (such) checkpoint.
      ValueError: If it belongs to another space, to other weights, another optimizer
        or a strategy of another kind, or a file of it is damaged.

    Example:
      >>> state = restore("runs/mine/checkpoints", trainer)
    """
    found = latest_step(directory) if step is None else step
    if found is None:
        raise FileNotFoundError(
            f"There is no checkpoint in {str(directory)!r}. Name the directory that "
            "`save` was given, or train first."
        )
    with _checkpointer(directory) as checkpointer:
        steps = [int(c.step) for c in checkpointer.checkpoints]
        if found not in steps:
            raise FileNotFoundError(
                f"{str(directory)!r} has checkpoints of the steps {steps}, not of "
                f"{found}."
            )
        with damage.explained(_damage(directory, found, steps)):
            metadata = checkpointer.metadata(found).custom_metadata
            if not metadata:
                raise ValueError("nothing is left of what describes it")
        stored = metadata.get("arrays")
        if stored is None:
            raise ValueError(
                f"The checkpoint in {str(directory)!r} was saved by an earlier version "
                "of oneshot, which did not list its arrays. Go on with that version."
            )
        _check_space(directory, trainer.supernet, metadata)
        _check_strategy(directory, trainer, metadata["strategy"])
        like = _like(trainer)
        _check_shapes(directory, like, stored)
        with damage.explained(_damage(directory, found, steps)):
            arrays = checkpointer.load(found, like)
    weights = Weights(arrays["params"], arrays["state"])
    numbers = metadata["step"], metadata["seed"]
    return TrainState(*numbers, weights, arrays["optimizer"], metadata["strategy"])


def _damage(directory: Any, step: int, steps: list[int]) -> Callable[[str], str]:
    """Return words for a checkpoint that cannot be read, and for what there is else."""
    others = [other for other in steps if other != step]
    place = str(Path(directory) / str(step))
    instead = "There is no other one, so train again, in another directory."
    if others:
        instead = f"Pass another `step`; there are {others}."
    if others and step == max(steps):
        instead = f"Move {place!r} away to go on from step {max(others)}. {instead}"
    return lambda what: (
        f"The checkpoint {place!r} cannot be read, perhaps because a disk was full "
        f"or a file was changed ({what}). {instead}"
    )


def _check_strategy(directory: Any, trainer: Trainer, stored: Any) -> None:
    """Raise if a strategy could not go on from the state of another kind.

    A strategy may start with nothing and learn what to keep, so only what it starts
    with is looked for.
    """
    strategy = getattr(trainer, "strategy", None)  # others keep a state of their own
    ours = None if strategy is None else _as_json(strategy.init())
    if not ours or _is_kind(ours, stored):
        return
    raise ValueError(
        f"The checkpoint in {str(directory)!r} is of another strategy: its state is "
        f"{_kind(stored)}, that of {type(strategy).__name__} {_kind(ours)}. Restore "
        "with a trainer of that run's strategy; to go on with another one, replace the "
        "state's `strategy` by its `init()`."
    )


def _as_json(state: Any) -> Any:
    return json.loads(json.dumps(jax.tree.map(_plain, state)))


def _is_kind(ours: Any, stored: Any) -> bool:
    if isinstance(ours, dict):
        return isinstance(stored, dict) and set(ours) <= set(stored)
    return isinstance(ours, list) == isinstance(stored, list) and stored is not None


def _kind(state: Any) -> str:
    """Return what a strategy's state looks like, in words."""
    if isinstance(state, dict):
        return f"a dict of {', '.join(map(repr, sorted(state)))}"
    return "empty" if state is None else f"a {type(state).__name__}"


def _check_space(directory: Any, supernet: Supernet, metadata: dict[str, Any]) -> None:
    if (fingerprint := metadata["fingerprint"]) != supernet.space.fingerprint:
        theirs = [c["name"] for c in metadata["space"]["choices"]]
        ours = [c.name for c in supernet.space.choices]
        raise ValueError(
            f"The checkpoint in {str(directory)!r} is of another space: it has the "
            f"choices {theirs} (fingerprint {fingerprint}), this supernet "
            f"{ours} ({supernet.space.fingerprint}). Use the supernet of that run, or "
            "another directory."
        )


def _like(trainer: Trainer) -> dict[str, Any]:
    (params, state), optimizer = trainer.abstract()
    return {
        "params": _placed(trainer.engine, params, "modules"),
        "state": _placed(trainer.engine, state, "modules"),
        "optimizer": _placed(trainer.engine, optimizer, "optimizers"),
    }


def _placed(engine: Engine, tree: Any, kind: Kind) -> Any:
    """Return abstract arrays that say where each is to be."""
    where = engine.placement.shardings(tree, kind)
    if engine.mesh is None:
        one = where or jax.sharding.SingleDeviceSharding(jax.devices()[0])
        where = jax.tree.map(lambda _: one, tree)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, where
    )


def _check_shapes(directory: Any, like: Any, found: dict[str, str]) -> None:
    """Raise with the path of the first array that differs; Orbax would cast dtypes."""
    wanted = _by_path(like)
    for path in [*wanted, *found]:
        ours, theirs = wanted.get(path), found.get(path)
        if ours != theirs:
            raise ValueError(
                f"The checkpoint in {str(directory)!r} does not fit: array {path} is "
                f"{theirs or 'missing'} there and {ours or 'missing'} here. Build the "
                "supernet and the optimizer as for that run."
            )


def _by_path(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "/".join(
            str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in p
        ): (f"{a.dtype}{list(a.shape)}")
        for p, a in leaves
    }
