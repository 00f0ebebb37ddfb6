"""A decoder with elastic heads and hidden width in plain PyTorch.

The same network as `benchmarks.networks.transformer`: each block owns one set of
weights at the largest sizes, a smaller choice uses the first of them. Attention is
PyTorch's fused one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import networks
from oneshot.supernet import Weights


class Block(nn.Module):
    """Pre-norm attention and a GELU network of two layers."""

    def __init__(self, width: int, heads: int, head_size: int, mlp: int):
        super().__init__()
        inner, hidden = heads * head_size, width * mlp
        self.head_size, self.width = head_size, width
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.query, self.key, self.value = (
            nn.Parameter(torch.empty(inner, width)) for _ in range(3)
        )
        self.attention_out = nn.Parameter(torch.empty(width, inner))
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor, heads: int, mlp: int) -> Tensor:
        """[batch, tokens, width] to the same."""
        n, tokens, width = x.shape
        inner, hidden = heads * self.head_size, self.width * mlp
        y = self.attention_norm(x)
        q, k, v = (
            F.linear(y, w[:inner]).view(n, tokens, heads, -1).transpose(1, 2)
            for w in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(n, tokens, inner)
        x = x + F.linear(y, self.attention_out[:, :inner])
        y = F.linear(self.mlp_norm(x), self.up.weight[:hidden], self.up.bias[:hidden])
        y = F.gelu(y, approximate="tanh")
        return x + F.linear(y, self.down.weight[:, :hidden], self.down.bias)


class TorchDecoder(nn.Module):
    """Embeddings, blocks, mean over tokens, linear; sizes from `benchmarks.networks`.

    Args:
      tokens: Length of the sequences.
    """

    def __init__(self, tokens: int = networks.TOKENS):
        super().__init__()
        width = networks.WIDTH
        self.tokens = nn.Embedding(networks.VOCABULARY, width)
        self.positions = nn.Parameter(torch.empty(1, tokens, width))
        sizes = max(networks.HEADS), networks.HEAD_SIZE, max(networks.MLP)
        self.blocks = nn.ModuleList(
            [Block(width, *sizes) for _ in range(networks.BLOCKS)]
        )
        self.linear = nn.Linear(width, networks.CLASSES)

    def forward(self, tokens: Tensor, arch: Sequence[int]) -> Tensor:
        """[n, tokens] to [n, classes]; `arch` alternates heads and hidden widths."""
        x = self.tokens(tokens) + self.positions
        for i, block in enumerate(self.blocks):
            heads, mlp = networks.HEADS[arch[2 * i]], networks.MLP[arch[2 * i + 1]]
            x = block(x, heads, mlp)
        return self.linear(x.mean(1))

    def norms(self, arch: Sequence[int]) -> Sequence[nn.BatchNorm2d]:
        """Return the norms that recalibration sets: none."""
        del arch
        return ()

    @torch.no_grad()
    def load(self, weights: Weights) -> TorchDecoder:
        """Take the weights of the JAX supernet; return self."""
        params = weights.params
        _copy(self.tokens.weight, params["stem"]["tokens"]["embedding"])
        _copy(self.positions, params["stem"]["positions"])
        for i, block in enumerate(self.blocks):
            own = params[f"layer{i}"]
            for name in ("query", "key", "value", "attention_out"):
                _copy(getattr(block, name), np.asarray(own[name]).T)
            for norm in ("attention", "mlp"):
                _copy(getattr(block, f"{norm}_norm").weight, own[f"{norm}_scale"])
                _copy(getattr(block, f"{norm}_norm").bias, own[f"{norm}_bias"])
            for linear in ("up", "down"):
                _copy(getattr(block, linear).weight, np.asarray(own[linear]).T)
                _copy(getattr(block, linear).bias, own[f"{linear}_bias"])
        linear = params["head"]["linear"]
        _copy(self.linear.weight, np.asarray(linear["kernel"]).T)
        _copy(self.linear.bias, linear["bias"])
        return self


def _copy(parameter: Tensor, values) -> None:
    parameter.copy_(torch.from_numpy(np.array(values)))
