"""The package as a whole: what importing it costs, and its public names."""

import subprocess
import sys

import oneshot


def test_importing_loads_neither_jax_nor_orbax_nor_scikit_learn():
    code = (
        "import sys, oneshot; print([m for m in ('jax', 'flax', 'orbax', 'sklearn') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr


def test_using_the_core_does_not_load_orbax_or_scikit_learn():
    code = (
        "import sys, oneshot; oneshot.Trainer, oneshot.Evaluator, oneshot.extract; "
        "print([m for m in ('orbax', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr


def test_strategies_are_there_without_an_import_of_their_own():
    code = "import oneshot; print(oneshot.strategies.split.__name__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "split", out.stderr


def test_every_public_name_is_there_and_no_module_hides_one():
    for name in oneshot.__all__:
        assert getattr(oneshot, name) is not None
    assert (
        callable(oneshot.search)
        and callable(oneshot.extract)
        and callable(oneshot.tune)
    )
