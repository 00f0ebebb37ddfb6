"""Causal attention with rotary position, elastic in heads, head size, groups, kind."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from flax import nnx
from jax import Array

from oneshot.nn.attention import attention
from oneshot.nn.heads import HeadMerge, HeadProjection
from oneshot.nn.linear_attention import linear_attention
from oneshot.nn.rotary import rotary
from oneshot.nn.slices import check_offer
from oneshot.nn.window_attention import window_attention

Kind = Literal["full", "window", "linear"]


@dataclasses.dataclass(frozen=True)
class AttentionOffer:
    """What an attention layer offers, and its constants.

    Attributes:
      heads: numbers of query heads; each a multiple of every group.
      head_size: features of a head, even where rotary.
      group: query heads that share one head of keys and values.
      kind: how a token meets those before: "full" softmax over all of them, over the
        last `window` of them, or "linear" (see `linear_attention`).
      window: tokens that a window holds, the own one among them.
      rotary_base: of rotary position; None for no position.

    Raises:
      ValueError: if there is no such kind, or heads and groups do not fit.
    """

    heads: tuple[int, ...]
    head_size: tuple[int, ...] = (64,)
    group: tuple[int, ...] = (1,)
    kind: tuple[Kind, ...] = ("full",)
    window: int = 64
    rotary_base: float | None = 10000.0

    def __post_init__(self):
        if unknown := [k for k in self.kind if k not in get_args(Kind)]:
            raise ValueError(
                f"A kind of attention is one of {', '.join(get_args(Kind))}, but got "
                f"{', '.join(map(repr, unknown))}."
            )
        if few := [g for g in self.group if g < 1]:
            raise ValueError(
                f"A group is 1 or more query heads, but got {few}; 1 shares nothing."
            )
        if bad := [h for h in self.heads for g in self.group if h % g]:
            raise ValueError(
                f"Heads are shared in groups of {self.group}, which do not divide "
                f"{bad} heads. Offer multiples of each group."
            )


class CausalAttention(nnx.Module):
    """Self-attention to the tokens before, with one set of weights at the largest size.

    Fewer heads are the first ones, with the first heads of keys and values; a smaller
    head is its first features. All kinds share the weights. In linear attention
    queries and keys are turned before the feature map, which keeps weights positive.

    Args:
      width: the largest number of features of the input and the output.
      offer: what can be chosen.
      bias: whether the four projections have one.
      rngs: draws the weights.

    Example:
      >>> layer = CausalAttention(64, AttentionOffer((2, 4), (16,)), rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 10, 48)), heads=2).shape
      (1, 10, 48)
    """

    def __init__(
        self, width: int, offer: AttentionOffer, *, bias: bool = False, rngs: nnx.Rngs
    ) -> None:
        heads, size = max(offer.heads), max(offer.head_size)
        shared = max(h // g for h in offer.heads for g in offer.group)
        self.q_proj = HeadProjection(width, heads, size, bias=bias, rngs=rngs)
        self.k_proj = HeadProjection(width, shared, size, bias=bias, rngs=rngs)
        self.v_proj = HeadProjection(width, shared, size, bias=bias, rngs=rngs)
        self.o_proj = HeadMerge(heads, size, width, bias=bias, rngs=rngs)
        self.offer = offer

    def __call__(
        self,
        x: Array,
        *,
        heads: int,
        head_size: int | None = None,
        group: int | None = None,
        kind: Kind | None = None,
    ) -> Array:
        """`[batch, tokens, width]` to the same; what is None is the first on offer.

        Raises:
          ValueError: if an option is not on offer.
        """
        offer = self.offer
        size = offer.head_size[0] if head_size is None else head_size
        group = offer.group[0] if group is None else group
        kind = offer.kind[0] if kind is None else kind
        check_offer("heads", heads, offer.heads)
        check_offer("head_size", size, offer.head_size)
        check_offer("group", group, offer.group)
        check_offer("kind", kind, offer.kind)
        q = self.q_proj(x, heads, size)
        k, v = (p(x, heads // group, size) for p in (self.k_proj, self.v_proj))
        if offer.rotary_base is not None:
            q, k = (rotary(a, offer.rotary_base) for a in (q, k))
        if kind == "full":
            y = attention(q, k, v)
        elif kind == "window":
            y = window_attention(q, k, v, offer.window)
        else:
            y = linear_attention(q, k, v)
        return self.o_proj(y, x.shape[-1])
