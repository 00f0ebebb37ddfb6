"""Spaces whose networks are trained alone for a ground truth of our own."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

from benchmarks.fingerprints import fingerprint
from benchmarks.mixers import MIXERS, mixers, mixers_data, mixers_tested
from oneshot.data import Data, Split
from oneshot.datasets import load_data
from oneshot.losses import CLASSIFICATION, Metric, next_token
from oneshot.space import Arch, Over
from oneshot.spaces import vit
from oneshot.supernet import Supernet


@dataclasses.dataclass(frozen=True)
class TruthSpace:
    """A small space, its data, and how each of its networks trains alone.

    Args:
      words: What is trained on what.
      make: The supernet.
      data: Its data; supernets are scored on what validates.
      tested: The examples that the truth is measured on, which no supernet sees.
      metrics: Metrics by name; the truth is the "loss" of the held-out examples.
      over: What the networks are drawn uniformly over; each is taken once.
      depth: (supernet, arch) to what counts as the depth.
      depth_words: What that is.
      networks, seeds: How many are trained.
      steps, batch, rate, decay, clip: How, by AdamW; the rate falls as a half cosine.
    """

    words: str
    make: Callable[[], Supernet]
    data: Callable[[], Data]
    tested: Callable[[], Split]
    metrics: Mapping[str, Metric]
    over: Over
    depth: Callable[[Supernet, Arch], int]
    depth_words: str
    networks: int
    seeds: int
    steps: int
    batch: int
    rate: float
    decay: float
    clip: float

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells its trainings from those of other data or settings."""
        how = (self.words, self.steps, self.batch, self.rate, self.decay, self.clip)
        space, data = self.make().space, self.data()
        return fingerprint(how, space.fingerprint, data.train, self.tested())


def mixing(net: Supernet, arch: Arch) -> int:
    """Return the number of blocks that mix characters, as all but the MLP do."""
    del net
    return sum(list(MIXERS)[option] != "mlp" for option in arch)


def layers(net: Supernet, arch: Arch) -> int:
    """Return the number of a Transformer's layers."""
    return net.space.describe(arch)["layers.depth"]


def digits_vit() -> Supernet:
    """Return Transformers of one width, so that an arch can also be relaxed."""
    return vit("digits", width=(24,), heads=(1, 2, 3), mlp=(0.5, 1, 2), depth=(1, 2, 3))


def digits() -> Data:
    """Return scikit-learn's digits."""
    return load_data("digits", calibrate=64)


def digits_tested() -> Split:
    """Return the digits that test."""
    return digits().open_test("ground truth of rankings")


TRUTHS: dict[str, TruthSpace] = {
    "mixers": TruthSpace(
        words="language models of convolutions and attention, Shakespeare's characters",
        make=mixers,
        data=mixers_data,
        tested=mixers_tested,
        metrics={"loss": next_token},
        over="paths",
        depth=mixing,
        depth_words="blocks that mix characters",
        networks=300,
        seeds=3,
        steps=200,
        batch=32,
        rate=6e-3,
        decay=0.1,
        clip=1.0,
    ),
    "vit": TruthSpace(
        words="small Vision Transformers, scikit-learn's digits",
        make=digits_vit,
        data=digits,
        tested=digits_tested,
        metrics=CLASSIFICATION,
        over="archs",
        depth=layers,
        depth_words="layers",
        networks=100,
        seeds=3,
        steps=300,
        batch=32,
        rate=3e-3,
        decay=0.05,
        clip=1.0,
    ),
}


def number(net: Supernet, arch: Arch) -> int:
    """Return an arch's number in its space, from which its seeds follow."""
    sizes = [len(choice.options) for choice in net.space.choices]
    places = [math.prod(sizes[:i]) for i in range(len(sizes))]
    return sum(option * place for option, place in zip(arch, places, strict=True))
