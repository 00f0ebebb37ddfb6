"""What a chain compiles before the first step, one job a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from oneshot.reachable import Reached
from oneshot.strategies import Role
from oneshot.supernet import Tree

if TYPE_CHECKING:
    from oneshot.chain import Chain, Variant

Job = Callable[[], Any]


def jobs(
    chain: Chain, x: Tree, targets: Tree, roles: Sequence[Role], accumulate: int
) -> Iterator[Job]:
    """Yield one job for each distinct program that some arch runs on such batches.

    Args:
      chain: What shall train.
      x: Inputs of a batch.
      targets: Its targets.
      roles: Those of a plan, one for each of its paths.
      accumulate: Batches in a step.
    """
    reached = chain.engine.supernet.reachable(x)
    several = len(roles) > 1 or accumulate > 1
    yield from _blocks(chain, reached, targets, roles, several)
    if several or chain.update.clip_norm is not None:
        for name in chain.modules:
            yield lambda n=name: chain.apply_update(n)
    if several:
        yield from _sums(chain, reached, "better" in roles)


def _blocks(
    chain: Chain,
    reached: Sequence[Reached],
    targets: Tree,
    roles: Sequence[Role],
    several: bool,
) -> Iterator[Job]:
    variant: Variant = "update" if chain.update.clip_norm is None else "norm"
    variant = "gradient" if several else variant
    last, seen = len(chain.engine.supernet.slots) - 1, set()
    heads: list[tuple[Variant, Role, Any]] = [
        (variant, role, reached[-1].out if role == "student" else None)
        for role in dict.fromkeys(roles)
    ]
    for step, carry, _ in reached:
        carry_id = chain.engine.carry_id(carry)
        key = (
            chain.engine.structure(step.module),
            chain.arrays.frozen(step.module),
            step.options,
            carry_id,
            step.layer == 0,
        )
        if key in seen:
            continue
        seen.add(key)
        if step.layer == last:
            yield lambda s=step, c=carry_id: [
                chain.head(s, c, targets, *h) for h in heads
            ]
        else:
            yield lambda s=step, c=carry_id: chain.backward(
                chain.block(s, c), s.module, variant
            )


def _sums(chain: Chain, reached: Sequence[Reached], pairs: bool) -> Iterator[Job]:
    sums = chain.sums
    if pairs:
        yield lambda: sums.rank_factors
    for name in chain.modules:
        yield lambda n=name: (sums.add(n), sums.add_norm(n))
        if pairs:
            yield lambda n=name: sums.scale(n)
    for carry_id in {chain.engine.carry_id(r.carry) for r in reached[1:]}:
        yield lambda c=carry_id: sums.add_cotangents(c)
