"""Opens runs and models whose files are damaged: python damage_worker.py PLACE...

A process of its own, because what Orbax had begun to read when it failed goes on in
other threads, and complains whenever that ends. Prints what each place was answered.
"""

import json
import sys
from pathlib import Path

from test_checkpoint import dense, make_trainer

import oneshot
from oneshot.checkpoint import restore


def answer(place: Path) -> str:
    """Return the words of the error that opening raises."""
    try:
        if place.name.startswith("model"):
            oneshot.load(place)
        else:
            restore(place, make_trainer(dense()))
    except ValueError as error:
        return str(error)
    return "no error"


if __name__ == "__main__":
    print(json.dumps({place: answer(Path(place)) for place in sys.argv[1:]}))
