"""The settings of a run: what its config.json holds and the command line asks for."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal, get_args


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What a supernet is, what it is trained on, and how."""

    supernet: str = "tiny"
    """A ready space (tiny, nb_macro, mobilenet_v3, resnet50, shufflenet, cell201, vit,
    decoder, speech, tabular), or module:function that returns a Supernet."""
    arguments: str = "{}"
    """Keyword arguments of that function, as JSON."""
    data: str = "digits"
    """digits; an .npz file with x and y, or x_train, y_train, x_test, y_test; or
    module:function that returns a Data."""
    seed: int = 0
    """Decides everything random."""
    steps: int = 1000
    """Training steps."""
    batch_size: int = 64
    """Examples in a training batch."""
    learning_rate: float = 0.1
    """Highest learning rate; it falls to 0 as a half cosine. A run that goes on keeps
    its own unless another than the default is named."""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """SGD; AdamW, which wants a rate of about 0.001; or Muon, which wants 0.02."""
    warmup: float = 0.0
    """Steps in which the rate rises to its highest; below 1, a share of all steps,
    and of those of tuning."""
    momentum: float = 0.9
    """Nesterov momentum of SGD and Muon; AdamW's first beta."""
    weight_decay: float = 5e-4
    """Weight decay: SGD's is of every weight, the others' spares biases and norms."""
    loss: Literal["cross_entropy", "next_token", "ctc"] = "cross_entropy"
    """Of a label an example, of the next token at each token, or of sequences whose
    places are not known."""
    label_smoothing: float = 0.0
    """Share of a training label that is spread over all classes, 0 to below 1."""
    augment: str = ""
    """Of training batches, instead of the data's own: a call such as crop(4) or
    mixup(0.2, 10), module:function, or a JSON list such as '["crop(4)", "flip"]'."""
    clip_norm: float | None = None
    """Bound on the norm of a path's gradient, above 0; kept like the rate."""
    strategy: Literal["uniform", "fair", "sandwich"] = "uniform"
    """One uniform path a step; a round in which each option of each choice comes once
    (FairNAS); or the largest network, the smallest and two random ones, the largest
    teaching the others (BigNAS)."""
    over: Literal["archs", "paths", "canonical"] = "paths"
    """Random paths are drawn uniformly over these; strict fairness is over archs."""

    def __post_init__(self):
        for name, least in (("steps", 1), ("batch_size", 1), ("learning_rate", 0)):
            value = getattr(self, name)
            if not least <= value < math.inf:  # nor is it NaN
                raise ValueError(f"`{name}` is at least {least}, but got {value}.")
        check_clip_norm(self.clip_norm)
        if not 0 <= self.momentum < 1:
            raise ValueError(
                f"`momentum` is from 0 to below 1, but got {self.momentum}."
            )
        _check_arguments(self.arguments)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                "`label_smoothing` is a share from 0 to below 1, but got "
                f"{self.label_smoothing}."
            )
        whole = float(self.warmup).is_integer()
        if not 0 <= self.warmup < self.steps or not (self.warmup < 1 or whole):
            raise ValueError(
                "`warmup` is a share of the steps below 1, or a whole number of them, "
                f"less than all {self.steps}, but got {self.warmup:g}."
            )

    def warmup_steps(self, steps: int) -> int:
        """Return how many of `steps`, of training or of tuning, warm up."""
        share = self.warmup if self.warmup < 1 else self.warmup / self.steps
        return min(round(share * steps), steps - 1)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> RunSettings:
        """Read settings back; unknown ones (of another version) are left out."""
        known = {f.name for f in dataclasses.fields(RunSettings)}
        return RunSettings(**{k: v for k, v in data.items() if k in known})


Score = Literal["loss", "alignment", "refitted"]
SCORES: tuple[Score, ...] = get_args(Score)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How to search."""

    algorithm: Literal["nsga2", "evolution", "random"] = "nsga2"
    """NSGA-II for what `rank_by` names and multiply-adds; evolution or random for the
    former alone."""
    rank_by: Score = "loss"
    """The loss, which depends on the one head that all paths share; how well classes
    lie apart in what that head is given; or the error of a linear head refitted to
    that, which predicts each validation example by the others. The latter two are for
    tasks of one label an example, and cannot race."""
    budget: int = 300
    """Distinct paths to score."""
    batch: int = 32
    """Paths to ask for and score at once."""
    max_macs: int | None = None
    """Bound on multiply-adds."""
    max_params: int | None = None
    """Bound on parameters."""
    seed: int = 0
    """Decides which paths are asked for."""
    race_top: int | None = None
    """Stop scoring a path once it cannot be among so many best of its batch; None
    scores each on all images. With NSGA-II, a small path of high loss may be on the
    front by its score over fewer images."""
    race_confidence: float = 0.95
    """Probability that a race keeps all of the best of its batch in to the end."""

    def __post_init__(self):
        for name in ("budget", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` is at least 1, but got {getattr(self, name)}."
                )
        if not 0 < self.race_confidence < 1:
            raise ValueError(
                "`race_confidence` is a probability between 0 and 1, both excluded, "
                f"but got {self.race_confidence}."
            )
        if self.race_top is not None and self.rank_by != "loss":
            raise ValueError(
                "A race stops a path by its loss on part of the images, but "
                f"`rank_by` is {self.rank_by!r}, which compares images with each "
                "other. Leave out one of the two."
            )
        if self.race_top is not None and not 1 <= self.race_top < self.batch:
            raise ValueError(
                "A race is among the paths of a batch, so `race_top` is at least 1 and "
                f"less than the batch of {self.batch}, but got {self.race_top}. Name a "
                "smaller one, or a larger `batch`."
            )


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
    """Which space to describe, for which input, under which limits."""

    supernet: str = "tiny"
    """A ready space such as tiny or cell201, or module:function that returns a
    Supernet."""
    arguments: str = "{}"
    """Keyword arguments of that function, as JSON."""
    data: str = "digits"
    """What the input looks like: data as for `oneshot train`."""
    input_shape: tuple[int, ...] | None = None
    """Shape of one example instead, such as 32 32 3."""
    input_dtype: str = "float32"
    """Type of the numbers in it; int32 for tokens."""
    batch_size: int = 1
    """Examples in the batch whose latency is measured."""
    max_macs: int | None = None
    """Bound on multiply-adds; one that no arch keeps is an error."""
    max_params: int | None = None
    """Bound on parameters."""
    max_activation_bytes: int | None = None
    """Bound on the bytes that training keeps for one example."""
    samples: int = 1000
    """Random paths that medians are of."""
    seed: int = 0
    """Decides which."""
    latency: bool = True
    """Whether to measure latency, which compiles three networks."""
    json: bool = False
    """Print the profile as JSON instead of a table."""

    def __post_init__(self):
        _check_arguments(self.arguments)
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` is at least 1, but got {self.batch_size}.")

    @property
    def limits(self) -> dict[str, int]:
        """The bounds that were given, by cost."""
        found = {
            "macs": self.max_macs,
            "params": self.max_params,
            "activation_bytes": self.max_activation_bytes,
        }
        return {cost: limit for cost, limit in found.items() if limit is not None}


def check_clip_norm(clip_norm: float | None) -> None:
    """Raise if a bound on the norm of a gradient is none.

    Raises:
      ValueError: If it is not above 0: the gradient would vanish, or turn round.
    """
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(
            f"`clip_norm` is above 0 (1 to 5 is usual), but got {clip_norm}. Leave it "
            "out to bound nothing."
        )


def _check_arguments(arguments: str) -> None:
    try:
        if not isinstance(json.loads(arguments), dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        raise ValueError(
            "`arguments` is a JSON object of keyword arguments, such as "
            f"'{{\"width\": 0.5}}', but got {arguments!r}: {error}."
        ) from error
