"""Llama-style language models, elastic in width, layers, heads, MLP and attention.

RMSNorm, rotary position, grouped queries and SwiGLU as in Touvron et al., Llama 2,
arXiv:2307.09288. The largest network of size "llama2_7b" has Llama-2-7B's
6,738,415,616 parameters (KerasHub's `llama_presets.py` gives the figure), that of
"tinyllama" TinyLlama's 1,100,048,384 (arXiv:2401.02385; the figure is what
`transformers` counts in the checkpoint TinyLlama-1.1B).

Weights are named after those of `transformers`' `LlamaForCausalLM`; `llama_names` maps
each of ours to its own. Theirs are `[out, in]`; transpose, then reshape to our shape:
`kernel` of q_proj, k_proj and v_proj is `[in, heads, head_size]`, of o_proj `[heads,
head_size, out]`, of the others `[in, out]`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import nnx
from jax import Array

from oneshot.layers import Elastic, Stage
from oneshot.nn import (
    AttentionOffer,
    CausalAttention,
    ElasticLinear,
    GatedMlp,
    RMSNorm,
    TokenEmbedding,
)
from oneshot.nn.causal_attention import Kind
from oneshot.space import Choice
from oneshot.spaces.sizes import changed
from oneshot.supernet import Supernet


@dataclasses.dataclass(frozen=True)
class DecoderSize:
    """The choices and constants of a supernet.

    Attributes:
      width: options for the width, one choice for all layers.
      depth: options for the number of layers.
      heads: options for the query heads of each layer.
      mlp: options for the hidden features of each layer's SwiGLU.
      head_size: features of a head.
      group: query heads that share one head of keys and values.
      attention: options for the attention of each layer: "full", "window", "linear".
      window: tokens seen by a token of sliding-window attention.
      rotary_base: of rotary position (`rope_theta`).
      epsilon: of the norms.
      tied: whether the head's weights are the embedding's. The table then travels with
        the activations, which suits small vocabularies.
    """

    width: tuple[int, ...]
    depth: tuple[int, ...]
    heads: tuple[int, ...]
    mlp: tuple[int, ...]
    head_size: int = 64
    group: int = 1
    attention: tuple[Kind, ...] = ("full", "window", "linear")
    window: int = 32
    rotary_base: float = 10000.0
    epsilon: float = 1e-5
    tied: bool = False


SIZES = {
    "tiny": DecoderSize(
        (96, 128), (2, 3, 4), (2, 4), (192, 256), 32, group=2, window=16
    ),
    "tinyllama": DecoderSize(
        width=(1024, 1536, 2048),
        depth=(12, 16, 22),
        heads=(16, 24, 32),
        mlp=(2816, 4224, 5632),
        group=8,
        window=512,
    ),
    "llama2_7b": DecoderSize(
        width=(2048, 3072, 4096),
        depth=(16, 24, 32),
        heads=(16, 24, 32),
        mlp=(5504, 8256, 11008),
        head_size=128,
        window=1024,
    ),
}

# Activations, or with them the embedding that a tied head is to use.
Carry = Array | tuple[Array, Array]


def _split(carry: Carry) -> tuple[Array, tuple[Array, ...]]:
    return (carry[0], carry[1:]) if isinstance(carry, tuple) else (carry, ())


def _join(x: Array, rest: tuple[Array, ...]) -> Carry:
    return (x, *rest) if rest else x  # type: ignore[return-value]


class Stem(nnx.Module):
    """Embeds tokens, and hands on the table where the head is tied."""

    def __init__(self, vocabulary: int, size: DecoderSize, *, rngs):
        self.embed_tokens = TokenEmbedding(vocabulary, size.width, rngs=rngs)
        self.tied = size.tied

    def __call__(self, tokens: Array, *, width: int) -> Carry:
        """Integers [n, tokens] to [n, tokens, width]."""
        x = self.embed_tokens(tokens, width=width)
        return _join(x, (self.embed_tokens.table(width),) if self.tied else ())


class AttentionLayer(nnx.Module):
    """x + attention(norm(x))."""

    def __init__(
        self, size: DecoderSize, offer: AttentionOffer, dropout: float, *, rngs
    ):
        width = max(size.width)
        self.input_layernorm = RMSNorm(width, epsilon=size.epsilon)
        self.self_attn = CausalAttention(width, offer, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(self, carry: Carry, *, heads: int, kind: Kind) -> Carry:
        """[n, tokens, width] to the same."""
        x, rest = _split(carry)
        y = self.self_attn(self.input_layernorm(x), heads=heads, kind=kind)
        return _join(x + (y if self.dropout is None else self.dropout(y)), rest)


class MlpLayer(nnx.Module):
    """x + mlp(norm(x))."""

    def __init__(self, size: DecoderSize, dropout: float, *, rngs):
        width = max(size.width)
        self.post_attention_layernorm = RMSNorm(width, epsilon=size.epsilon)
        self.mlp = GatedMlp(width, size.mlp, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(self, carry: Carry, *, hidden: int) -> Carry:
        """[n, tokens, width] to the same."""
        x, rest = _split(carry)
        y = self.mlp(self.post_attention_layernorm(x), hidden=hidden)
        return _join(x + (y if self.dropout is None else self.dropout(y)), rest)


class Head(nnx.Module):
    """Norm, then a logit for each token of the vocabulary."""

    def __init__(self, vocabulary: int, size: DecoderSize, every: bool, *, rngs):
        width = max(size.width)
        self.norm = RMSNorm(width, epsilon=size.epsilon)
        self.lm_head = (
            None
            if size.tied
            else ElasticLinear(width, vocabulary, bias=False, rngs=rngs)
        )
        self.every = every

    def __call__(self, carry: Carry) -> Array:
        """[n, tokens, width] to [n, tokens, vocabulary] (or the last token's)."""
        x, table = _split(carry)
        if not self.every:
            x = jax.lax.index_in_dim(x, x.shape[1] - 1, axis=1, keepdims=False)
        x = self.norm(x)
        if self.lm_head is not None:
            return self.lm_head(x)
        return (x.reshape(-1, x.shape[-1]) @ table[0].T).reshape(*x.shape[:-1], -1)


def decoder(
    size: str = "tiny",
    *,
    vocabulary: int = 65,
    dropout: float = 0.0,
    every_token: bool = True,
    **changes: Any,
) -> Supernet:
    """Build a supernet of causal language models for int32 tokens [n, tokens].

    It returns logits [n, tokens, vocabulary] of the next token. Choices are `width`,
    `layers.depth`, and of each layer N `layers.N.attention.heads`,
    `layers.N.attention.kind` and `layers.N.mlp.hidden`.

    Args:
      size: "tiny" (characters, on a CPU), "tinyllama" or "llama2_7b".
      vocabulary: Number of tokens; Llama's is 32000, tiny Shakespeare's 65.
      dropout: Probability of zeroing an element of a layer's result, in 0 to 1.
      every_token: False returns the logits after the last token only, [n, vocabulary].
      **changes: Fields of `DecoderSize` to change, such as `attention=["full"]`.

    Raises:
      ValueError: If there is no such size, field or attention, or heads and groups do
        not fit.

    Example:
      >>> net = decoder("tiny", vocabulary=65, attention=["full", "linear"])
    """
    found = changed(SIZES, size, changes)
    width = Choice("width", found.width)
    offer = AttentionOffer(
        found.heads,
        (found.head_size,),
        (found.group,),
        found.attention,
        found.window,
        found.rotary_base,
    )
    attention = Elastic(
        lambda rngs: AttentionLayer(found, offer, dropout, rngs=rngs),
        heads=found.heads,
        kind=found.attention,
    )
    mlp = Elastic(lambda rngs: MlpLayer(found, dropout, rngs=rngs), hidden=found.mlp)
    layer = Stage({"attention": attention, "mlp": mlp})
    return Supernet(
        stem=Elastic(lambda rngs: Stem(vocabulary, found, rngs=rngs), width=width),
        layers={"layers": Stage([layer] * max(found.depth), depth=found.depth)},
        head=lambda rngs: Head(vocabulary, found, every_token, rngs=rngs),
    )


def llama_names(net: Supernet) -> dict[tuple[str, str], str]:
    """Return the name in `LlamaForCausalLM.state_dict()` of each weight of a decoder.

    Args:
      net: From `decoder`.

    Returns:
      {(module, path of the parameter): name}, such as {("layers.0.attention",
      "self_attn/q_proj/kernel"): "model.layers.0.self_attn.q_proj.weight"}.
    """
    names = {}
    for module, params in net.abstract().params.items():
        layer = module.rpartition(".")[0]
        for path, _ in jax.tree_util.tree_leaves_with_path(params):
            keys = [entry.key for entry in path]
            parts = ["model", *filter(None, [layer]), *keys[:-1], "weight"]
            name = ".".join(parts).replace("model.lm_head", "lm_head")
            names[module, "/".join(keys)] = name
    return names
