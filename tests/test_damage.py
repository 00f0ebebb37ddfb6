"""Checkpoints and saved models of which a file is cut or missing."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_checkpoint import dense, make_trainer

import oneshot
from oneshot.checkpoint import restore, save
from oneshot.factories import Factory
from oneshot.models import Origin

OF_RUNS = {
    "metadata": "_CHECKPOINT_METADATA",
    "arrays": "state/d/*",
    "manifest": "state/manifest.ocdbt",
    "structure": "state/_METADATA",
}
OF_MODELS = {"description": "model.json", "arrays": "weights/state/d/*"}
HOW = ("cut", "removed")
X = np.zeros((16, 5), np.float32)


def damage(folder: Path, files: str, how: str) -> None:
    [file] = folder.glob(files)
    file.write_bytes(file.read_bytes()[:20])
    if how == "removed":
        file.unlink()


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    """A folder of damaged runs of two checkpoints, of one checkpoint, and models."""
    folder = tmp_path_factory.mktemp("damaged")
    factory = Factory("test_checkpoint:dense", {})
    net = factory.build()
    trainer = make_trainer(net)
    state = trainer.init(0, X)
    for step in (0, 1):
        save(folder / "whole", net, state._replace(step=step))
    for name, files in OF_RUNS.items():
        for how in HOW:
            run = folder / f"two-{name}-{how}"
            shutil.copytree(folder / "whole", run)
            damage(run / "1", files, how)
            shutil.copytree(run, folder / f"one-{name}-{how}")
            shutil.rmtree(folder / f"one-{name}-{how}" / "0")
    arch = (0, 0)
    model = oneshot.extract(net, state.weights, arch, X)
    oneshot.save_model(folder / "whole-model", model, Origin(factory, arch, (5,)))
    for name, files in OF_MODELS.items():
        shutil.copytree(folder / "whole-model", folder / f"model-{name}-cut")
        damage(folder / f"model-{name}-cut", files, "cut")
    return folder


@pytest.fixture(scope="module")
def answers(places) -> dict[str, str]:
    """What opening each place was answered, by its name."""
    worker = Path(__file__).with_name("damage_worker.py")
    damaged = sorted(str(p) for p in places.iterdir() if "whole" not in p.name)
    done = subprocess.run(
        [sys.executable, str(worker), *damaged],
        capture_output=True,
        text=True,
        check=False,  # what matters is printed by then
        timeout=240,
    )
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {Path(place).name: words for place, words in found.items()}


@pytest.mark.parametrize("name", OF_RUNS)
@pytest.mark.parametrize("how", HOW)
def test_a_damaged_checkpoint_names_an_older_one_if_there_is_one(answers, name, how):
    older = "cannot be read.*Move .*1' away to go on from step 0"
    assert re.search(older, answers[f"two-{name}-{how}"])
    none = "cannot be read.*There is no other one"
    assert re.search(none, answers[f"one-{name}-{how}"])


@pytest.mark.parametrize("name", OF_RUNS)
@pytest.mark.parametrize("how", HOW)
def test_the_older_checkpoint_still_opens(places, name, how):
    trainer = make_trainer(dense())
    assert restore(places / f"two-{name}-{how}", trainer, step=0).step == 0


@pytest.mark.parametrize("name", OF_MODELS)
def test_a_damaged_model_is_to_be_saved_again(answers, name):
    words = "cannot be read.*save the model again"
    assert re.search(words, answers[f"model-{name}-cut"])


def test_what_is_no_damage_is_not_called_so(places, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    trainer = make_trainer(dense())
    full = RuntimeError("RESOURCE_EXHAUSTED: no")
    for error in (MemoryError("no"), PermissionError("no"), full):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(ocp.training.Checkpointer, "load", fail)
        monkeypatch.setattr(ocp, "load", fail)
        with pytest.raises(type(error), match="no"):
            restore(places / "whole", trainer)
        with pytest.raises(type(error), match="no"):
            oneshot.load(places / "whole-model")
