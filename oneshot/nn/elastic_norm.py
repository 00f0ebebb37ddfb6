"""BatchNorm for several widths: the first channels of one, or one for each width.

Statistics of a channel depend on what the layer before it reads, so narrow and wide
networks disagree about them. Yu et al., Slimmable Neural Networks, ICLR 2019,
arXiv:1812.08928, give each width its own norm; Once-for-All (arXiv:1908.09791) shares
one, and recalibrates before scoring.
"""

from __future__ import annotations

from typing import Final, Literal

from flax import nnx
from jax import Array

from oneshot.nn.channels import Axis
from oneshot.nn.norm import BatchNorm
from oneshot.nn.offers import offered

Norms = Literal["shared", "per_width"]
NORMS: Final = ("shared", "per_width")
_PARTS: Final = ("scale", "bias", "mean", "var")


class ElasticNorm(nnx.Module):
    """Batch normalisation of elastic width.

    Args:
      widths: the numbers of channels on offer.
      norms: "shared" uses the first channels of one norm, "per_width" one norm with
        weights and statistics of its own for each width.
      relu: whether a ReLU follows.

    Raises:
      ValueError: if `norms` is neither.

    Example:
      >>> norm = ElasticNorm((16, 24), norms="per_width", relu=True)
      >>> norm(jnp.ones((8, 4, 4, 16))).shape
      (8, 4, 4, 16)
    """

    def __init__(
        self, widths: int | tuple[int, ...], *, norms: Norms = "shared", relu=False
    ) -> None:
        if norms not in NORMS:
            raise ValueError(f"`norms` is one of {NORMS}, but got {norms!r}.")
        self.widths, self.norms = offered(widths), norms
        if norms == "shared":
            self.shared = BatchNorm(self.widths[-1], relu=relu)
        else:
            for width in self.widths:
                setattr(self, f"width{width}", BatchNorm(width, relu=relu))

    def at(self, width: int) -> BatchNorm:
        """Return the norm to be applied to `width` channels.

        Raises:
          ValueError: if each width has a norm of its own, and this one has none.
        """
        if self.norms == "shared":
            return self.shared
        if width not in self.widths:
            raise ValueError(
                f"This norm has one BatchNorm for each width in {self.widths}, but its "
                f"input has {width} channels. Build it with that width, too, or with "
                "norms='shared'."
            )
        return getattr(self, f"width{width}")

    def __call__(self, x: Array) -> Array:
        """Normalise `x`, `[..., channels]`, by the norm of that many channels."""
        return self.at(x.shape[-1])(x)

    def arrays(self, prefix: str) -> tuple[Axis, ...]:
        """Return where the channels of the widest norm lie, by `prefix`."""
        return tuple((f"{prefix}.{self._widest()}.{part}", 0) for part in _PARTS)

    def copies(self, prefix: str) -> tuple[tuple[str, str], ...]:
        """Return (narrow, widest) paths of the norms of fewer channels, by `prefix`."""
        if self.norms == "shared":
            return ()
        return tuple(
            (f"{prefix}.width{width}.{part}", f"{prefix}.{self._widest()}.{part}")
            for width in self.widths[:-1]
            for part in _PARTS
        )

    def _widest(self) -> str:
        return "shared" if self.norms == "shared" else f"width{self.widths[-1]}"
