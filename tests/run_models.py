"""Models and data that a user names by module and function: tokens, and images."""

from __future__ import annotations

import dataclasses

import numpy as np
from flax import nnx

from oneshot.data import Data
from oneshot.layers import Elastic, Stage
from oneshot.nn import ElasticTransformerBlock
from oneshot.supernet import Supernet

VOCABULARY, TOKENS = 7, 6


def supernet(dropout: float = 0.0) -> Supernet:
    """Embedding, elastic Transformer blocks, and logits at each token."""

    def make(rngs):
        return ElasticTransformerBlock(
            8, heads=(1, 2), mlp=(1, 2), head_size=4, dropout=dropout, rngs=rngs
        )

    block = Elastic(make, heads=(1, 2), mlp=(1, 2))
    return Supernet(
        lambda rngs: nnx.Embed(VOCABULARY, 8, rngs=rngs),
        {"blocks": Stage([block] * 2, depth=(1, 2))},
        lambda rngs: nnx.Linear(8, VOCABULARY, rngs=rngs),
    )


def data() -> Data:
    """Sequences that count up; the scored ones are padded at the start."""

    def draw(n: int, seed: int, padded: int) -> tuple[np.ndarray, np.ndarray]:
        start = np.random.default_rng(seed).integers(0, VOCABULARY, (n, 1))
        tokens = (start + np.arange(TOKENS + 1)[None]) % VOCABULARY
        y = tokens[:, 1:].copy()
        y[:, :padded] = -1
        return tokens[:, :-1], y

    return Data.from_arrays(
        draw(64, 0, 0), validate=draw(24, 1, 2), test=draw(20, 2, 2), calibrate=8
    )


def untested() -> Data:
    """Images without a test split."""
    return dataclasses.replace(images(), _test=None)


def images() -> Data:
    """Small images whose label is the brightest half, with their own augmentation."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 8, 8, 1)).astype(np.float32)
    y = (x[:, :, :4].sum((1, 2, 3)) > x[:, :, 4:].sum((1, 2, 3))).astype(np.int32)
    return Data.from_arrays((x, y), validate=0.25, test=(x[:20], y[:20]))
