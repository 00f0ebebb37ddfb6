"""Token streams: one long array cut into windows, and characters as tokens."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from oneshot.data import Data


def token_data(
    tokens: Any,
    length: int,
    *,
    validate: float = 0.1,
    test: float = 0.1,
    stride: int | None = None,
    calibrate: int = 1024,
) -> Data:
    """Cut a stream into windows whose targets are the next tokens.

    The stream is split in three before it is cut, training first, then validation, then
    test, so that no token is in two splits, as an input or as a target.

    Args:
      tokens: Integers, `[n]`.
      length: Tokens in a window, t.
      validate: Share of the stream for validation, above 0, below 1.
      test: Share for the test, 0 for none.
      stride: From one training window to the next, tokens; None is `length`, so that
        windows do not overlap. Less than that shows the network each token after more
        and less of context. The windows of the other splits never overlap, and each of
        their tokens but the first and a rest at the end is predicted once.
      calibrate: How many training windows recalibrate BatchNorm.

    Returns:
      Data with x `[n, t]` and y `[n, t]`, int32.

    Raises:
      ValueError: If tokens are no integers, the shares leave no training, or a part is
        shorter than a window and its target.

    Example:
      >>> text = CharTokenizer.from_text("to be or not to be")
      >>> data = token_data(text.encode("to be or not to be"), 4, validate=0.3, test=0)
      >>> data.train.x.shape
      (3, 4)
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(
            f"A token stream is integers [n], but got {tokens.dtype}"
            f"{list(tokens.shape)}. For text, CharTokenizer.encode makes one."
        )
    if not (0 < validate < 1 and 0 <= test < 1 and validate + test < 1):
        raise ValueError(
            "`validate` is above 0, `test` is 0 or more, and together they are below "
            f"1, but got {validate} and {test}."
        )
    last = len(tokens) - round(test * len(tokens))
    first = last - round(validate * len(tokens))
    train = windows(tokens[:first], length, stride)
    held = windows(tokens[first:last], length)
    opened = windows(tokens[last:], length) if test else None
    return Data.from_arrays(train, validate=held, test=opened, calibrate=calibrate)


def windows(
    tokens: np.ndarray, length: int, stride: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return all windows of a stream and the tokens that follow each of theirs.

    Args:
      tokens: Integers, `[n]`.
      length: Tokens in a window, t.
      stride: From one window to the next; None is `length`.

    Returns:
      x `[n, t]` and y `[n, t]`, int32: y is x, one token later.

    Raises:
      ValueError: If there is no whole window.
    """
    stride = length if stride is None else stride
    if length < 1 or stride < 1 or len(tokens) < length + 1:
        raise ValueError(
            f"A window of {length} tokens and its last target take {length + 1}, but "
            f"this part of the stream has {len(tokens)} (stride {stride}). Give a "
            "longer stream, shorter windows, or a larger share."
        )
    seen = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[::stride]
    return seen[:, :-1].astype(np.int32), seen[:, 1:].astype(np.int32)


@dataclasses.dataclass(frozen=True)
class CharTokenizer:
    """Characters as tokens.

    Attributes:
      characters: All that are known, each once; a token is a position here.

    Example:
      >>> tokenizer = CharTokenizer.from_text("banana")
      >>> tokenizer.encode("nab").tolist(), tokenizer.decode([1, 0, 2])
      ([2, 0, 1], 'ban')
    """

    characters: str

    def __post_init__(self):
        if len(set(self.characters)) != len(self.characters):
            raise ValueError(
                "A tokenizer holds each character once, but some are repeated in "
                f"{self.characters[:40]!r}. CharTokenizer.from_text takes any text."
            )

    @staticmethod
    def from_text(text: str) -> CharTokenizer:
        """Return the tokenizer of a text's characters, in order of their code points.

        Give it the whole text, held-out parts included: which characters exist is no
        secret worth an unknown token.
        """
        return CharTokenizer("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, int32 `[n]`.

        Raises:
          ValueError: If it holds a character that is not known.
        """
        known = {character: i for i, character in enumerate(self.characters)}
        try:
            return np.fromiter((known[c] for c in text), np.int32, len(text))
        except KeyError as error:
            raise ValueError(
                f"The character {error.args[0]!r} is none of the {len(self)} known "
                "ones. Build the tokenizer from a text that holds it."
            ) from error

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens."""
        return "".join(self.characters[int(token)] for token in tokens)


def read_text(file: str | Path) -> str:
    """Return the text of a file in UTF-8, `.gz` ones unpacked.

    Raises:
      ValueError: If there is no such file, or it is not text.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"There is no text file {str(file)!r}.")
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
        return content.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{str(file)!r} is not a text in UTF-8 (gzipped, if it ends in .gz): "
            f"{error}."
        ) from error


def character_data(file: str | Path, length: int = 128, **options: Any) -> Data:
    """Return the windows of a text file's characters, as `token_data` cuts them.

    Args:
      file: `.txt`, or `.txt.gz`.
      length: Characters in a window.
      **options: See `token_data`.

    Example:
      >>> data = character_data("shakespeare.txt.gz", 128, stride=64)
    """
    text = read_text(file)
    return token_data(CharTokenizer.from_text(text).encode(text), length, **options)
