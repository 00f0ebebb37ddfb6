"""The two-layer networks of Transformers, of elastic hidden width.

Their last product starts from zeros, so that a residual layer starts as none.
"""

from __future__ import annotations

from flax import nnx
from jax import Array
from jax.nn.initializers import zeros

from oneshot.nn.dense import gelu_dense, silu_gate_dense
from oneshot.nn.linear import ElasticLinear
from oneshot.nn.slices import check_offer, first_of


class ElasticMlp(nnx.Module):
    """Linear, GELU (its tanh approximation), linear, with biases.

    Args:
      width: the largest number of features of the input and the output.
      ratio: the hidden widths on offer, as multiples of the input's width.
      rngs: draws the weights.

    Example:
      >>> ElasticMlp(64, (2, 4), rngs=nnx.Rngs(0))(jnp.ones((1, 9, 48)), ratio=2).shape
      (1, 9, 48)
    """

    def __init__(self, width: int, ratio: tuple[float, ...], *, rngs: nnx.Rngs) -> None:
        hidden = int(width * max(ratio))
        self.up = ElasticLinear(width, hidden, rngs=rngs)
        self.down = ElasticLinear(hidden, width, init=zeros, rngs=rngs)
        self.ratio = tuple(ratio)

    def __call__(self, x: Array, *, ratio: float) -> Array:
        """`[..., width]` to the same, over `int(width * ratio)` hidden features.

        Raises:
          ValueError: if the ratio is not on offer.
        """
        check_offer("ratio", ratio, self.ratio)
        width, hidden = x.shape[-1], int(x.shape[-1] * ratio)
        y = self.up(x.reshape(-1, width), hidden)
        y = gelu_dense(y, self.down.weight(hidden, width))
        assert self.down.bias is not None
        return (y + first_of(self.down.bias[...], width)[None]).reshape(x.shape)


class GatedMlp(nnx.Module):
    """SwiGLU: `down(silu(gate(x)) * up(x))`, without biases.

    Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202.

    Args:
      width: the largest number of features of the input and the output.
      hidden: the hidden widths on offer.
      rngs: draws the weights.

    Example:
      >>> mlp = GatedMlp(64, (96, 128), rngs=nnx.Rngs(0))
      >>> mlp(jnp.ones((1, 9, 48)), hidden=96).shape
      (1, 9, 48)
    """

    def __init__(self, width: int, hidden: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        most = max(hidden)
        self.gate_proj = ElasticLinear(width, most, bias=False, rngs=rngs)
        self.up_proj = ElasticLinear(width, most, bias=False, rngs=rngs)
        self.down_proj = ElasticLinear(most, width, bias=False, init=zeros, rngs=rngs)
        self.hidden = tuple(hidden)

    def __call__(self, x: Array, *, hidden: int) -> Array:
        """`[..., width]` to the same.

        Raises:
          ValueError: if the hidden width is not on offer.
        """
        check_offer("hidden", hidden, self.hidden)
        rows = x.reshape(-1, x.shape[-1])
        gate, up = (p(rows, hidden) for p in (self.gate_proj, self.up_proj))
        w = self.down_proj.weight(hidden, x.shape[-1])
        return silu_gate_dense(gate, up, w).reshape(x.shape)
