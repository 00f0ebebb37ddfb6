"""The reference supernets that every law is held to, and their data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from oneshot.data import Data
from oneshot.layers import Elastic, Identity, OneOf, Stage
from oneshot.nn import BatchNorm, ElasticTransformerBlock
from oneshot.space import Choice
from oneshot.spaces import (
    cell201,
    decoder,
    mobilenet_v3,
    nb_macro,
    resnet50,
    shufflenet,
    speech,
    tabular,
    tiny,
    vit,
)
from oneshot.spaces.mobilenet_v3 import Size as MobileSize
from oneshot.spaces.mobilenet_v3 import StageForm
from oneshot.spaces.resnet50 import Size as ResNetSize
from oneshot.supernet import Supernet, Weights

CLASSES = 5


class Dense(nnx.Module):
    """Linear, flax's own BatchNorm, ReLU, dropout."""

    def __init__(self, inputs, outputs, dropout=0.0, *, rngs):
        self.linear = nnx.Linear(inputs, outputs, rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None

    def __call__(self, x):
        y = nnx.relu(self.norm(self.linear(x)))
        return y if self.dropout is None else self.dropout(y)


class ElasticMlp(nnx.Module):
    """A residual network of two layers, the hidden one elastic, with our BatchNorm."""

    def __init__(self, features, hidden, *, rngs):
        self.up = nnx.Param(jax.random.normal(rngs.params(), (features, hidden)) / 3)
        self.norm = BatchNorm(hidden, relu=True)
        self.down = nnx.Param(jax.random.normal(rngs.params(), (hidden, features)) / 3)

    def __call__(self, x, *, hidden):
        up = lax.slice(self.up[...], (0, 0), (x.shape[-1], hidden))
        down = lax.slice(self.down[...], (0, 0), (hidden, x.shape[-1]))
        return x + self.norm(x @ up) @ down


class ElasticWidth(nnx.Module):
    """A layer whose output is really `width` wide, and whose input was cut already."""

    def __init__(self, inputs, outputs, *, rngs):
        self.kernel = nnx.Param(
            jax.random.normal(rngs.params(), (inputs, outputs)) / inputs**0.5
        )
        self.norm = BatchNorm(outputs, relu=True)

    def __call__(self, x, *, width):
        return self.norm(x @ lax.slice(self.kernel[...], (0, 0), (x.shape[-1], width)))


class ElasticInput(nnx.Module):
    """A linear head for inputs of the chosen width."""

    def __init__(self, inputs, *, rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (inputs, CLASSES)))
        self.bias = nnx.Param(jnp.zeros((1, CLASSES)))

    def __call__(self, x, *, width):
        rows = lax.slice(self.kernel[...], (0, 0), (width, CLASSES))
        return x @ rows + self.bias[...]


class Open(nnx.Module):
    """From numbers to a dict of two float arrays and the integer position of each."""

    def __init__(self, *, rngs):
        self.features = nnx.Linear(12, 6, rngs=rngs)
        self.memory = nnx.Linear(12, 4, rngs=rngs)

    def __call__(self, x):
        position = jnp.argmax(x, -1).astype(jnp.int32)
        features, memory = self.features(x), jnp.tanh(self.memory(x))
        return {"features": features, "memory": memory, "position": position}


class Mix(nnx.Module):
    """Moves something from the features to the memory; where, the position says."""

    def __init__(self, *, rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (12, 6)))
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.write = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, carry):
        features = self.norm(carry["features"] + self.table[...][carry["position"]])
        memory = carry["memory"] + jnp.tanh(self.write(features))
        return {**carry, "features": nnx.relu(features), "memory": memory}


class MixElastic(nnx.Module):
    """The elastic network on the features alone; the rest is handed on."""

    def __init__(self, hidden, *, rngs):
        self.mlp = ElasticMlp(6, hidden, rngs=rngs)

    def __call__(self, carry, *, hidden):
        features = self.mlp(carry["features"], hidden=hidden)
        return {**carry, "features": features, "position": carry["position"] // 2}


class Close(nnx.Module):
    """Linear over all float arrays of the dict."""

    def __init__(self, *, rngs):
        self.linear = nnx.Linear(10, CLASSES, rngs=rngs)

    def __call__(self, carry):
        both = jnp.concatenate([carry["features"], carry["memory"]], -1)
        return self.linear(both)


class Embed(nnx.Module):
    """Token and position embeddings."""

    def __init__(self, *, rngs):
        self.tokens = nnx.Embed(11, 8, rngs=rngs)
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (1, 6, 8)))

    def __call__(self, x):
        return self.tokens(x) + self.positions[...]


class PoolTokens(nnx.Module):
    """Mean over tokens, linear."""

    def __init__(self, *, rngs):
        self.linear = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.linear(x.mean(1))


def dense_layer(inputs=8, outputs=8, dropout=0.0):
    return lambda rngs: Dense(inputs, outputs, dropout, rngs=rngs)


def linear(inputs=8, outputs=CLASSES):
    return lambda rngs: nnx.Linear(inputs, outputs, rngs=rngs)


def elastic_mlp(largest, features=8):
    return lambda rngs: ElasticMlp(features, largest, rngs=rngs)


def mixed() -> Supernet:
    """Each kind of layer, one in the other, and a choice tied across three of them."""
    hidden = Choice("hidden", (3, 6, 9))
    tied = Elastic(elastic_mlp(9), hidden=hidden)
    option = OneOf(
        skip=Identity,
        dropped=dense_layer(dropout=0.3),
        mlp=Elastic(elastic_mlp(8), hidden=(4, 8)),
    )
    row = [tied, OneOf(plain=dense_layer(), skip=Identity), tied]
    layers = {"first": option, "stage": Stage(row, depth=(1, 2, 3)), "last": tied}
    return Supernet(dense_layer(12, 8), layers, linear())


def carried() -> Supernet:
    """A dict of three arrays travels, one of them of integers."""
    elastic = Elastic(lambda rngs: MixElastic(6, rngs=rngs), hidden=(2, 4, 6))

    def mix(rngs):
        return Mix(rngs=rngs)

    layers = [OneOf(skip=Identity, mix=mix), elastic, OneOf(mix=mix, skip=Identity)]
    return Supernet(lambda rngs: Open(rngs=rngs), layers, lambda rngs: Close(rngs=rngs))


def transformer() -> Supernet:
    """A chain of elastic Transformer blocks over integer tokens."""

    def make(rngs):
        return ElasticTransformerBlock(
            8, heads=(1, 2), mlp=(1, 2), head_size=4, rngs=rngs
        )

    block = Elastic(make, heads=(1, 2), mlp=(1, 2))
    return Supernet(
        lambda rngs: Embed(rngs=rngs),
        {"blocks": Stage([block] * 3, depth=(1, 2, 3))},
        lambda rngs: PoolTokens(rngs=rngs),
    )


def elastic_width() -> Supernet:
    """One choice of width for stem, layers and head: carries really change shape."""
    width = Choice("width", (4, 6, 9))

    def layer(inputs):
        return Elastic(lambda rngs: ElasticWidth(inputs, 9, rngs=rngs), width=width)

    return Supernet(
        layer(12),
        [OneOf(wide=layer(9), skip=Identity), OneOf(skip=Identity, wide=layer(9))],
        Elastic(lambda rngs: ElasticInput(9, rngs=rngs), width=width),
    )


def numbers(*shape) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda rng, n: rng.normal(size=(n, *shape)).astype(np.float32)


def tokens(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 11, (n, 6)).astype(np.int32)


class Reference(NamedTuple):
    """One row of the table."""

    name: str
    make: Callable[[], Supernet]
    draw: Callable[[np.random.Generator, int], np.ndarray]
    traceable: bool = True  # options return equal shapes

    def batch(self, n: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and labels."""
        rng = np.random.default_rng(seed)
        return self.draw(rng, n), rng.integers(0, CLASSES, n).astype(np.int32)

    def data(self, n: int = 24, calibrate: int = 8, **options: Any) -> Data:
        """Return splits, a third of them for validation."""
        rest = {"validate": 1 / 3, "test": self.batch(n, 2), **options}
        return Data.from_arrays(self.batch(n, 1), calibrate=calibrate, **rest)

    def weights(self, net: Supernet, seed: int = 0) -> Weights:
        """Return random weights from numpy: initialisers would compile for a while."""
        rng = np.random.default_rng(seed)

        def fill(path, leaf):
            name, noise = path[-1].key, rng.normal(size=leaf.shape)
            if name in ("scale", "var"):
                return (1 + 0.5 * np.abs(noise)).astype(leaf.dtype)
            factor = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1
            return (factor * noise).astype(leaf.dtype)

        return jax.tree_util.tree_map_with_path(fill, net.abstract())

    def archs(self, net: Supernet, n: int, seed: int = 0) -> list[tuple[int, ...]]:
        """Return random archs of distinct paths."""
        rng = np.random.default_rng(seed)
        found = {net.path(a): a for a in net.space.sample(rng, 20 * n, "paths")}
        return list(found.values())[:n]


def small_nb_macro() -> Supernet:
    return nb_macro(classes=CLASSES, width=0.125, hidden=16)


def small_tiny() -> Supernet:
    return tiny(classes=CLASSES, widths=(4, 6), expand=(1, 2), depth=3)


def small_cell201() -> Supernet:
    return cell201(classes=CLASSES, channels=4, cells=2, stages=1)


def small_shufflenet() -> Supernet:
    # XLA's operations compile sooner; ours are compared with them elsewhere.
    small = {"stages": (12,), "depths": (2,), "dropout": 0.2, "impl": "lax"}
    return shufflenet(size="tiny", classes=CLASSES, **small)


def small_dscnn() -> Supernet:
    sizes = {"width": (4, 6), "kernel": (3, 5), "depth": (1, 2)}
    return speech(size=sizes, classes=CLASSES, mels=8)


def small_conformer() -> Supernet:
    sizes = {
        "width": 8,
        "head_size": 4,
        "heads": (1, 2),
        "kernel": (1, 3),
        "expand": (2,),
    }
    sizes["depth"] = (1, 2)
    return speech(model="conformer", size=sizes, classes=CLASSES, mels=8)


def small_tabular() -> Supernet:
    return tabular(
        columns=(2, (3, 4)),
        classes=CLASSES,
        features=6,
        embed=(1, 2),
        hidden=(4, 8),
        depth=(1, 2),
        residual=(True, False),
        dropout=0.2,
    )


def rows(rng: np.random.Generator, n: int) -> np.ndarray:
    codes = rng.integers(0, (3, 4), (n, 2))
    return np.concatenate([rng.normal(size=(n, 2)), codes], 1).astype(np.float32)


def small_mobilenet_v3() -> Supernet:
    stages = (StageForm(8, 2, "hard_swish", True),)
    size = MobileSize(4, 1, stages, (12, 8), (3, 5), (2, 3), (1, 2), CLASSES, 0.2, 4)
    return mobilenet_v3(size, transforms=True, norms="per_width")


def small_resnet50() -> Supernet:
    shape = {"channels": (12,), "blocks": (1,), "depth": (0, 1)}
    options = {"expand": (0.5, 1.0), "width": (0.5, 1.0), "classes": CLASSES}
    return resnet50(ResNetSize(8, 1, True, **shape, **options, divisor=4))


def small_vit() -> Supernet:
    sizes = {"width": [6, 8], "depth": [1, 2], "heads": [1, 2], "mlp": [1, 2]}
    sizes |= {"image": 8, "patch": 2, "head_size": 4, "distance": 2, "stem": [4]}
    return vit("digits", classes=CLASSES, **sizes)


def small_decoder() -> Supernet:
    sizes = {"width": [6, 8], "depth": [1, 2], "heads": [2, 4], "mlp": [6, 10]}
    sizes |= {"head_size": 4, "group": 2, "window": 3, "tied": True}
    sizes |= {"attention": ["window", "linear"]}
    return decoder(vocabulary=11, every_token=False, **sizes)


REFERENCES = (
    Reference("nb_macro", small_nb_macro, numbers(16, 16, 3)),
    Reference("tiny", small_tiny, numbers(8, 8, 1)),
    Reference("mixed", mixed, numbers(12)),
    Reference("carried", carried, numbers(12)),
    Reference("transformer", transformer, tokens),
    Reference("elastic_width", elastic_width, numbers(12), traceable=False),
    Reference("cell201", small_cell201, numbers(8, 8, 3)),
    Reference("shufflenet", small_shufflenet, numbers(8, 8, 3)),
    Reference("dscnn", small_dscnn, numbers(8, 8), traceable=False),
    Reference("conformer", small_conformer, numbers(12, 8)),
    Reference("tabular", small_tabular, rows),
    Reference("mobilenet_v3", small_mobilenet_v3, numbers(8, 8, 3)),
    Reference("resnet50", small_resnet50, numbers(7, 7, 3), traceable=False),
    Reference("vit", small_vit, numbers(8, 8, 1), traceable=False),
    Reference("decoder", small_decoder, tokens, traceable=False),
)
SPACES = tuple(r.name for r in REFERENCES[6:])  # ready ones; slow to compile
BY_NAME = {reference.name: reference for reference in REFERENCES}
