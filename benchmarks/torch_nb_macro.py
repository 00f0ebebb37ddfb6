"""NAS-Bench-Macro's supernet in plain PyTorch, as users of Single Path One-Shot do it.

One `nn.Module` for each option of each layer in a `nn.ModuleList`, `forward(x, arch)`
runs the chosen ones. Activations and weights are channels-last, PyTorch's faster layout
for convolutions.

Reference:
  Guo et al. Single path one-shot neural architecture search with uniform sampling.
  ECCV 2020. https://arxiv.org/abs/1904.00420
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from oneshot.supernet import Weights

_STAGES = ((2, 64), (3, 128), (3, 256))
_OPTIONS = ("id", "e3k3", "e6k5")


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; plus the input where shapes agree."""

    def __init__(self, before: int, after: int, expand: int, kernel: int, stride: int):
        super().__init__()
        hidden, pad = before * expand, kernel // 2
        self.layers = nn.Sequential(
            nn.Conv2d(before, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, kernel, stride, pad, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class TorchSupernet(nn.Module):
    """The supernet; sizes as in `oneshot.spaces.nb_macro`."""

    def __init__(self, *, classes: int = 10, width: float = 1.0, hidden: int = 1280):
        super().__init__()
        before = round(32 * width)
        self.stem = _conv_bn(3, before, 3, relu=True)
        rows, self.names = [], []
        for stage, (depth, features) in enumerate(_STAGES, 1):
            after = round(features * width)
            for i in range(depth):
                rows.append(_choices(before, after, 1 if i else 2))
                self.names.append(f"stage{stage}.{i}")
                before = after
        self.layers = nn.ModuleList(rows)
        self.head = _conv_bn(before, hidden, 1, relu=True)
        self.linear = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, arch: Sequence[int]) -> Tensor:
        """[n, 3, height, width] to [n, classes] through the options of `arch`."""
        x = self.stem(x)
        for choices, option in zip(self.layers, arch, strict=True):
            x = choices[option](x)
        return self.linear(self.head(x).mean((2, 3)))

    def norms(self, arch: Sequence[int]) -> Iterator[nn.BatchNorm2d]:
        """Yield the norms on the path of `arch`."""
        path = [c[o] for c, o in zip(self.layers, arch, strict=True)]
        for part in (self.stem, *path, self.head):
            yield from (m for m in part.modules() if isinstance(m, nn.BatchNorm2d))

    @torch.no_grad()
    def load(self, weights: Weights) -> TorchSupernet:
        """Take the weights of the JAX supernet of the same sizes; return self."""
        params = weights.params
        _load_conv_bn(self.stem, params["stem"])
        for name, choices in zip(self.names, self.layers, strict=True):
            for option, block in zip(_OPTIONS, choices, strict=True):
                own = params.get(f"{name}.{option}")
                if isinstance(block, InvertedResidual):
                    _load_residual(block, own)
                elif own is not None:
                    _load_conv_bn(block, own)
        _load_conv_bn(self.head, params["head"]["conv"])
        linear = params["head"]["linear"]
        _copy(self.linear.weight, np.asarray(linear["kernel"]).T)
        _copy(self.linear.bias, linear["bias"])
        return self


def _choices(before: int, after: int, stride: int) -> nn.ModuleList:
    skip = nn.Identity() if stride == 1 else _conv_bn(before, after, 1, stride)
    return nn.ModuleList(
        [
            skip,
            InvertedResidual(before, after, 3, 3, stride),
            InvertedResidual(before, after, 6, 5, stride),
        ]
    )


def _conv_bn(
    before: int, after: int, kernel: int, stride: int = 1, *, relu: bool = False
) -> nn.Sequential:
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    rest = [nn.BatchNorm2d(after), *([nn.ReLU(inplace=True)] if relu else [])]
    return nn.Sequential(conv, *rest)


def _load_conv_bn(block: nn.Sequential, params) -> None:
    _load_kernel(block[0], params["conv"]["kernel"])
    _load_norm(block[1], params["norm"])


def _load_residual(block: InvertedResidual, params) -> None:
    for i, part in enumerate(("expand", "depthwise", "project")):
        _load_kernel(block.layers[3 * i], params[f"{part}_kernel"])
        _load_norm(block.layers[3 * i + 1], params[f"{part}_norm"])


def _load_kernel(conv: nn.Conv2d, kernel) -> None:
    w = np.asarray(kernel)
    if w.ndim == 2:  # [in, out]
        w = w.T[:, :, None, None]
    elif w.ndim == 3:  # depthwise, [kernel, kernel, channels]
        w = w.transpose(2, 0, 1)[:, None]
    else:  # [kernel, kernel, in, out]
        w = w.transpose(3, 2, 0, 1)
    _copy(conv.weight, w)


def _load_norm(norm: nn.BatchNorm2d, params) -> None:
    _copy(norm.weight, params["scale"])
    _copy(norm.bias, params["bias"])


def _copy(parameter: nn.Parameter, values) -> None:
    parameter.copy_(torch.from_numpy(np.array(values)))
