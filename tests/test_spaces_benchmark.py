"""The spaces' benchmark: its baselines are what they say, and its commands run."""

from __future__ import annotations

import collections
import json

import numpy as np
import pytest

from benchmarks import spaces
from benchmarks.character_ngram import CharacterNgram
from benchmarks.space_recipes import QUICK, RECIPES, Recipe
from oneshot import spaces as ready
from oneshot.cli import _parse
from oneshot.settings import RunSettings
from oneshot.tasks import task_of


@pytest.fixture(scope="module")
def text():
    """A text with structure: each character follows one of a few."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(6, 0.2), 6)
    out = [0]
    for _ in range(3000):
        out.append(int(rng.choice(6, p=table[out[-1]])))
    return np.array(out)


def by_hand(text, symbols, length):
    """Return `context, symbol -> p` by dictionaries, from the paper's formulas."""
    counts = [collections.Counter() for _ in range(length + 1)]
    for i in range(len(text) - length + 1):
        counts[length][tuple(text[i : i + length])] += 1
    for n in range(length - 1, 0, -1):
        counts[n] = collections.Counter(gram[1:] for gram in counts[n + 1])

    def discount(n, count):
        seen = collections.Counter(counts[n].values())
        if not all(seen[k] for k in (1, 2, 3, 4)):
            return 0.5
        y, k = seen[1] / (seen[1] + 2 * seen[2]), min(count, 3)
        return min(max(k - (k + 1) * y * seen[k + 1] / seen[k], 0), k)

    def p(context, symbol):
        n = len(context) + 1
        lower = p(context[1:], symbol) if context else 1 / symbols
        own = {g: c for g, c in counts[n].items() if g[:-1] == context}
        if not own:
            return lower
        total = sum(own.values())
        left = sum(discount(n, c) for c in own.values())
        count = own.get((*context, symbol), 0)
        kept = count - discount(n, count) if count else 0
        return (kept + left * lower) / total

    return p


def test_the_ngram_is_the_papers(text):
    model, p = CharacterNgram(text[:800], 7, 3), by_hand(text[:800].tolist(), 7, 3)
    held = [*text[800:830].tolist(), 6, 6, 1]  # 6 is never seen
    want = [p(tuple(held[i - 2 : i]), held[i]) for i in range(2, len(held))]
    np.testing.assert_allclose(model.probabilities(np.array(held)), want, rtol=1e-12)


def test_the_ngrams_probabilities_sum_to_one(text):
    model = CharacterNgram(text, 7)
    context = text[100:104]
    each = [model.probabilities(np.array([*context, c]))[0] for c in range(7)]
    assert sum(each) == pytest.approx(1)
    assert 0 < model.bits(text) < model.bits(text[::-1].copy())


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_arguments_of_the_command_line(name, tmp_path):
    recipe = RECIPES[name]
    for step in ("train", "search", "extract"):
        for quick in ({}, QUICK[step]):
            words = spaces.command(step, tmp_path, {**getattr(recipe, step), **quick})
            parsed = _parse(words[3:])
            if step == "train":
                assert isinstance(parsed.settings, RunSettings)
                headline = task_of(parsed.settings).headline
                assert headline.metric == recipe.metric


def found(name, recipe):
    row = {"seconds": 10.0, "cpu_seconds": 15.0, "low": 0.5, "high": 0.75, "params": 7}
    out = {f"{name}_{k}": v for k, v in {**row, "macs": 1234}.items()}
    return out | dict.fromkeys(recipe.keys, 0.625)


def test_tables_show_what_was_run():
    some = ("vit", "decoder")
    results = {k: v for n in some for k, v in found(n, RECIPES[n]).items()}
    shown = spaces.table({"cores": 2, **results})
    assert "| vit | CIFAR-10" in shown and "62.5% (50.0% to 75.0%)" in shown
    assert "0.625 bits (0.500 to 0.750)" in shown and "1,234" in shown
    assert "| speech |" not in shown and "on 2 cores" in shown
    assert spaces.rich_table(results).row_count == 2


@pytest.mark.slow
def test_a_recipe_goes_from_nothing_to_a_test():
    """Of the smallest ready space; the others take the same way."""
    small = {"widths": [4, 6], "depth": 1, "expand": [1], "kernel": [3, 5]}
    recipe = Recipe(
        train={"supernet": "tiny", "arguments": small, "augment": "crop(1)"},
        search={"algorithm": "random"},
        extract={},
        words="digits",
        baseline=lambda: 0.0,
        baseline_words="nothing",
        keys=("tiny_accuracy", "nothing"),
    )
    out = spaces.measured("tiny", recipe, quick=True)
    assert 0 <= out["tiny_low"] <= out["tiny_accuracy"] <= out["tiny_high"] <= 1
    assert out["tiny_test_n"] == 359 and out["tiny_cpu_seconds"] > 1
    json.dumps(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tabular"])  # the rest take minutes
def test_a_space_takes_a_few_steps(name, data_dir, monkeypatch):
    if not hasattr(ready, name):
        pytest.skip(f"there is no space {name!r} yet")
    monkeypatch.setenv("ONESHOT_DATA", str(data_dir))
    out = spaces.measured(name, RECIPES[name], quick=True)
    assert np.isfinite(out[RECIPES[name].keys[0]])
