"""The supernets that training steps are timed on, each also in plain operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from oneshot.layers import Elastic
from oneshot.nn import ElasticTransformerBlock
from oneshot.space import Arch
from oneshot.spaces import nb_macro
from oneshot.supernet import Supernet

WIDTH, TOKENS, BLOCKS, VOCABULARY, CLASSES = 256, 128, 8, 256, 10
HEADS, MLP, HEAD_SIZE = (2, 4), (2, 4), 64


@dataclasses.dataclass(frozen=True)
class Network:
    """A supernet, the same network in plain operations, a batch and archs by name."""

    name: str
    net: Supernet
    plain: Supernet
    batch: tuple[np.ndarray, np.ndarray]
    archs: Mapping[str, Arch]

    def one_example(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch of one."""
        return self.batch[0][:1], self.batch[1][:1]


def convolutional(seed: int, *, batch: int, num_random: int) -> Network:
    """NAS-Bench-Macro's supernet: the smallest, the largest, a middle, random paths."""
    rng = np.random.default_rng([seed, 0])
    net, plain = nb_macro(), nb_macro(impl="lax")
    images = rng.normal(size=(batch, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, batch).astype(np.int32)
    named = {"identity": (0,) * 8, "e3k3": (1,) * 8, "e6k5": (2,) * 8}
    return Network(
        "nb_macro", net, plain, (images, labels), named | _random(net, rng, num_random)
    )


def transformer(seed: int, *, batch: int, num_random: int) -> Network:
    """A chain of Transformer blocks with elastic heads and hidden width."""
    rng = np.random.default_rng([seed, 1])
    net, plain = _chain(_block), _chain(_plain_block)
    tokens = rng.integers(0, VOCABULARY, (batch, TOKENS)).astype(np.int32)
    labels = rng.integers(0, CLASSES, batch).astype(np.int32)
    num = len(net.space.choices)
    named = {"smallest": (0,) * num, "largest": (1,) * num}
    return Network(
        "transformer",
        net,
        plain,
        (tokens, labels),
        named | _random(net, rng, num_random),
    )


def _random(net: Supernet, rng: np.random.Generator, n: int) -> dict[str, Arch]:
    return {f"random{i}": a for i, a in enumerate(net.space.sample(rng, n))}


class Embed(nnx.Module):
    """Token and position embeddings."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        positions = jax.random.normal(rngs.params(), (1, TOKENS, WIDTH))
        self.positions = nnx.Param(0.02 * positions)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.tokens(tokens) + self.positions[...]


class Pool(nnx.Module):
    """Mean over tokens, linear."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear(x.mean(1))


def _block(rngs: nnx.Rngs) -> ElasticTransformerBlock:
    return ElasticTransformerBlock(
        WIDTH, heads=HEADS, mlp=MLP, head_size=HEAD_SIZE, rngs=rngs
    )


def _chain(make) -> Supernet:
    block = Elastic(make, heads=HEADS, mlp=MLP)
    return Supernet(
        lambda rngs: Embed(rngs=rngs),
        [block] * BLOCKS,
        lambda rngs: Pool(rngs=rngs),
    )


class PlainBlock(nnx.Module):
    """The same block, with the same weights, as one writes it without this library."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.block = _block(rngs)

    def __call__(self, x_BxLxD: jax.Array, *, heads: int, mlp: int) -> jax.Array:
        own, inner, hidden = self.block, heads * HEAD_SIZE, WIDTH * mlp
        y = _layer_norm(x_BxLxD, own.attention_scale, own.attention_bias)
        q, k, v = (
            jnp.einsum(
                "bld,dhe->blhe",
                y,
                w[...][:, :inner].reshape(WIDTH, heads, HEAD_SIZE),
            )
            for w in (own.query, own.key, own.value)
        )
        logits = jnp.einsum("blhe,bmhe->bhlm", q, k) / HEAD_SIZE**0.5
        mask = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))[None, None]
        probs = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf))
        y = jnp.einsum("bhlm,bmhe->blhe", probs, v)
        out = own.attention_out[...][:inner].reshape(heads, HEAD_SIZE, WIDTH)
        x = x_BxLxD + jnp.einsum("blhe,hed->bld", y, out)
        y = _layer_norm(x, own.mlp_scale, own.mlp_bias)
        y = y @ own.up[...][:, :hidden] + own.up_bias[...][None, None, :hidden]
        y = jax.nn.gelu(y) @ own.down[...][:hidden]
        return x + y + own.down_bias[...][None, None]


def _plain_block(rngs: nnx.Rngs) -> PlainBlock:
    return PlainBlock(rngs=rngs)


def _layer_norm(x: jax.Array, scale: nnx.Param, bias: nnx.Param) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x - mean).mean(-1, keepdims=True)
    normal = (x - mean) * jax.lax.rsqrt(var + 1e-6)
    return normal * scale[...][None, None] + bias[...][None, None]
