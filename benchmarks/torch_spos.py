"""Single Path One-Shot in plain, eager PyTorch: its training step and its scoring.

Scoring recalibrates BatchNorm for each arch: its statistics become those of the
calibration images as one batch, in training mode; then the scored images pass in
evaluation mode. PyTorch's running variance is the unbiased one, so it is scaled by
(n - 1) / n, which makes the protocol that of `oneshot.Evaluator` and costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Network(Protocol):
    """A supernet of this folder: an `nn.Module` with `forward(x, arch)`."""

    def __call__(self, x: Tensor, arch: Sequence[int]) -> Tensor: ...

    def norms(self, arch: Sequence[int]) -> Sequence[nn.BatchNorm2d]: ...


def device() -> torch.device:
    """Return the accelerator if PyTorch has one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_all_cores() -> None:
    """Let PyTorch run as many threads as there are cores, and round tiny numbers to 0.

    XLA rounds denormal numbers to 0; a processor that does not can take ten times as
    long for a step whose gradients have become tiny. Threads inherit it, so this comes
    before the first of them starts.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(os.cpu_count() or 1)


def wait() -> None:
    """Wait for the accelerator; a processor has finished when a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def to_torch(x: np.ndarray) -> Tensor:
    """Return images [n, height, width, c] as channels-last ones, tokens as they are."""
    tensor = torch.from_numpy(np.array(x)).to(device())
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def place(model: nn.Module) -> nn.Module:
    """Move a model to the device, its convolutions channels-last."""
    return model.to(device(), memory_format=torch.channels_last)


class TorchStepper:
    """SGD with momentum on one arch at a time; calling it takes a step and waits.

    Args:
      model: A supernet.
      batch: (x, labels) as NumPy arrays.
      rate: Learning rate.
    """

    def __init__(self, model, batch: tuple[np.ndarray, np.ndarray], rate: float):
        self.model = model.train()
        self.x, self.y = to_torch(batch[0]), to_torch(batch[1].astype(np.int64))
        self.optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)

    def __call__(self, arch: Sequence[int]) -> Tensor:
        """Return the loss before the step."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(self.x, arch), self.y)
        loss.backward()
        self.optimizer.step()
        wait()
        return loss.detach()


class TorchScorer:
    """Scores archs one at a time by the weights they inherit.

    Args:
      model: A supernet.
      calibration: Inputs whose statistics BatchNorm shall have, all one batch.
      scored: (x, labels) to score.
    """

    def __init__(
        self, model, calibration: np.ndarray, scored: tuple[np.ndarray, np.ndarray]
    ):
        self.model, self.calibration = model, to_torch(calibration)
        self.x, self.y = to_torch(scored[0]), to_torch(scored[1].astype(np.int64))
        self._rows = _rows(model, self.calibration[:2])
        for norm in self._rows:
            norm.momentum = 1.0  # leaves exactly the last batch's statistics

    def __call__(self, arch: Sequence[int]) -> tuple[float, float]:
        """Return mean loss and accuracy of one arch."""
        self.calibrate(arch)
        return self.score(arch)

    @torch.inference_mode()
    def calibrate(self, arch: Sequence[int]) -> None:
        """Give the norms on the path the statistics of the calibration inputs."""
        norms = list(self.model.norms(arch))
        if not norms:
            return
        self.model.train()
        self.model(self.calibration, arch)
        for norm in norms:
            rows = self._rows[norm] * len(self.calibration)
            norm.running_var.mul_((rows - 1) / rows)
        wait()

    @torch.inference_mode()
    def score(
        self, arch: Sequence[int], size: int | None = None
    ) -> tuple[float, float]:
        """Return mean loss and accuracy with the statistics as they are.

        Args:
          arch: Which arch.
          size: Inputs scored at once; all of them by default.
        """
        self.model.eval()
        loss = correct = 0.0
        size, n = size or len(self.x), len(self.x)
        for x, y in zip(self.x.split(size), self.y.split(size), strict=True):
            logits = self.model(x, arch)
            loss += F.cross_entropy(logits, y, reduction="sum").item()
            correct += (logits.argmax(1) == y).sum().item()
        return loss / n, correct / n


def _rows(model, x: Tensor) -> dict[nn.BatchNorm2d, int]:
    """Return the rows that each norm averages over, for one example."""
    rows: dict[nn.BatchNorm2d, int] = {}

    def count(norm, inputs, output):
        del output
        rows[norm] = inputs[0].numel() // inputs[0].shape[1] // len(x)

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [norm.register_forward_hook(count) for norm in norms]
    model.eval()
    with torch.inference_mode():
        for option in range(3 if norms else 0):
            model(x, (option,) * len(model.layers))
    for hook in hooks:
        hook.remove()
    return rows
