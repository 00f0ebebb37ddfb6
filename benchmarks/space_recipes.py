"""How each space is trained, searched and tuned: the arguments of the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import space_baselines


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One space, its data, and the commands that take it from nothing to a test.

    Args:
      train: Options of `oneshot train`.
      search: Options of `oneshot search`.
      extract: Options of `oneshot extract`; `--test` is added.
      words: What the data is, for the table.
      metric: Name of the headline in result.json.
      baseline: Computes what is printed beside it.
      baseline_words: What that is.
      keys: The headline's and the baseline's name in the results.
    """

    train: Mapping[str, Any]
    search: Mapping[str, Any]
    extract: Mapping[str, Any]
    words: str
    baseline: Callable[[], float]
    baseline_words: str
    keys: tuple[str, str]
    metric: str = "accuracy"


RECIPES: dict[str, Recipe] = {
    "vit": Recipe(
        train={
            "supernet": "vit",
            "arguments": {"size": "tiny"},
            "data": "benchmarks.space_data:cifar",
            "augment": ["crop(4)", "flip"],
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "warmup": 0.1,
            "clip_norm": 1.0,
            "label_smoothing": 0.1,
            "batch_size": 64,
            "steps": 1000,
        },
        search={"budget": 32, "algorithm": "evolution", "batch": 16},
        extract={"tune_steps": 200, "tune_rate": 5e-4},
        words="CIFAR-10, 10,000 images",
        baseline=space_baselines.pixels,
        baseline_words="logistic regression on pixels",
        keys=("vit_accuracy", "pixel_baseline"),
    ),
    "mobilenet_v3": Recipe(
        train={
            "supernet": "mobilenet_v3",
            "arguments": {"size": "tiny"},
            "data": "benchmarks.space_data:cifar",
            "augment": ["crop(4)", "flip"],
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "weight_decay": 1e-4,
            "warmup": 0.05,
            "clip_norm": 2.0,
            "batch_size": 64,
            "steps": 1000,
        },
        search={"budget": 32, "algorithm": "evolution", "batch": 16},
        extract={"tune_steps": 200, "tune_rate": 0.03},
        words="CIFAR-10, 10,000 images",
        baseline=space_baselines.pixels,
        baseline_words="logistic regression on pixels",
        keys=("mobilenet_v3_accuracy", "pixel_baseline"),
    ),
    "speech": Recipe(
        train={
            "supernet": "speech",
            "arguments": {"size": {"width": [32, 48, 64], "depth": [2, 3]}},
            "data": "benchmarks.space_data:speech",
            "augment": ["crop(2)", "spec_augment(4, 4)"],
            "optimizer": "adamw",
            "learning_rate": 5e-3,
            "weight_decay": 0.01,
            "warmup": 0.05,
            "batch_size": 64,
            "steps": 1200,
        },
        search={"budget": 48, "algorithm": "random", "batch": 16},
        extract={"tune_steps": 600, "tune_rate": 3e-3},
        words="spoken digits, takes 0 to 4",
        baseline=space_baselines.spoken_digits,
        baseline_words="logistic regression on log-mel features",
        keys=("speech_accuracy", "speech_baseline"),
    ),
    "decoder": Recipe(
        train={
            "supernet": "decoder",
            "arguments": {
                "size": "tiny",
                "width": [128],
                "depth": [3, 4],
                "attention": ["full", "window"],
            },
            "data": "benchmarks.text_data:shakespeare",
            "loss": "next_token",
            "optimizer": "adamw",
            "learning_rate": 5e-3,
            "weight_decay": 0.1,
            "warmup": 0.05,
            "clip_norm": 1.0,
            "batch_size": 16,
            "steps": 1800,
        },
        search={"budget": 12, "algorithm": "evolution", "batch": 6},
        extract={"tune_steps": 1500, "tune_rate": 3e-3},
        words="Shakespeare's characters, the last tenth",
        baseline=space_baselines.ngram,
        baseline_words="5-gram, modified Kneser-Ney",
        keys=("decoder_bits", "decoder_baseline_bits"),
        metric="bits",
    ),
    "tabular": Recipe(
        train={
            "supernet": "tabular",
            "data": "benchmarks.space_data:adult",
            "optimizer": "adamw",
            "learning_rate": 2e-3,
            "weight_decay": 0.01,
            "warmup": 0.05,
            "batch_size": 256,
            "steps": 2500,
        },
        search={"budget": 48, "algorithm": "evolution", "batch": 16},
        extract={"tune_steps": 200, "tune_rate": 5e-4},
        words="UCI Adult",
        baseline=space_baselines.adult,
        baseline_words="logistic regression",
        keys=("tabular_accuracy", "tabular_baseline"),
    ),
}

# To try a recipe out: everything short, nothing learnt.
QUICK: Mapping[str, Mapping[str, Any]] = {
    "train": {"steps": 4, "batch_size": 8},
    "search": {"budget": 2, "batch": 2},
    "extract": {"tune_steps": 2},
}
