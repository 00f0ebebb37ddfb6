"""One supernet in JAX and in PyTorch, with equal weights, and what both score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import inputs, networks
from benchmarks.networks import Network
from benchmarks.work import Work
from oneshot.data import Data
from oneshot.space import Arch
from oneshot.supernet import Weights

_TABLE = "nas_bench_macro.npz"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much each comparison does."""

    batch: int = 64
    calibrate: int = 256
    score: int = 512
    paths: int = 20
    seeds: int = 10
    repeats: int = 5


@dataclasses.dataclass(frozen=True)
class Pair:
    """A supernet on both sides.

    Attributes:
      network: Ours, with the batch and the archs that training steps are timed on.
      make_torch: From our weights to the PyTorch module.
      data: What is calibrated with and scored.
      images: What the data is, in words.
      work: Counts multiply-adds.
    """

    network: Network
    make_torch: Callable[[Weights], Any]
    data: Data
    images: str
    work: Work

    @property
    def name(self) -> str:
        return self.network.name

    def weights(self, seed: int) -> Weights:
        """Return fresh weights."""
        return self.network.net.init(jax.random.key(seed), self.network.batch[0])

    def random_archs(self) -> list[Arch]:
        """Return the random ones of the archs that steps are timed on."""
        return [a for n, a in self.network.archs.items() if n.startswith("random")]


def convolutional(seed: int, sizes: Sizes, folder: Path | None) -> Pair:
    """Return NAS-Bench-Macro's supernet."""
    from benchmarks.torch_nb_macro import TorchSupernet

    network = networks.convolutional(seed, batch=sizes.batch, num_random=sizes.paths)
    data, words = inputs.images(folder, seed, sizes.calibrate, sizes.score)
    work = Work(network.net, network.batch[0])
    return Pair(network, lambda w: TorchSupernet().load(w), data, words, work)


def decoder(seed: int, sizes: Sizes) -> Pair:
    """Return the chain of Transformer blocks; it has no BatchNorm to recalibrate."""
    from benchmarks.torch_decoder import TorchDecoder

    network = networks.transformer(seed, batch=sizes.batch, num_random=sizes.paths)
    rng = np.random.default_rng([seed, 4])
    shape = sizes.score, networks.TOKENS
    tokens = rng.integers(0, networks.VOCABULARY, shape).astype(np.int32)
    labels = rng.integers(0, networks.CLASSES, sizes.score).astype(np.int32)
    data = Data.from_arrays(network.batch, validate=(tokens, labels))
    work = Work(network.net, network.batch[0])
    return Pair(network, lambda w: TorchDecoder().load(w), data, "random tokens", work)


def parents_loss(
    work: Work, folder: Path | None
) -> tuple[Callable[[Sequence[Arch]], list[float]], str]:
    """Return what ranks a generation's parents, and what that is in words.

    A trained supernet ranks large networks high, so the sharing between the children
    of its best is not that between random archs. What stands in for it is the same on
    any machine: the published accuracy where there is NAS-Bench-Macro's table, else
    multiply-adds.

    Args:
      work: Of the supernet.
      folder: May hold the table; None if the space is another one.
    """
    if folder is not None and (folder / _TABLE).is_file():
        with np.load(folder / _TABLE) as table:
            rows = zip(table["arch"].tolist(), table["test_acc"].mean(1), strict=True)
            known = {tuple(arch): -float(value) for arch, value in rows}
        return lambda archs: [known[a] for a in archs], "published accuracy"
    return lambda archs: [-work.macs(a) for a in archs], "multiply-adds"
