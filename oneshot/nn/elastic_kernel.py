"""Convolution weights of elastic kernel size: the centre of the largest kernel.

Cai et al., Once-for-All, ICLR 2020, arXiv:1908.09791, section 3: a smaller kernel is
the centre of the next larger one, optionally times a learned matrix, so that the
centre may play another part in the small kernel than in the large one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from oneshot.nn.offers import offered, pick


class ElasticKernel(nnx.Module):
    """Weights of the largest size, from which a call cuts smaller ones.

    Attributes:
      largest: `[kernel, kernel, *channels]`, or `channels` where the only kernel is 1.
      to3, to5, ...: with `transforms`, the matrix from the centre of the next larger
        kernel to this size, `[size**2, size**2]`, shared by all channels; the identity
        at first.

    Args:
      kernel: the odd sizes on offer.
      channels: the largest channel axes: `(in, out)`, or `(channels,)` for depthwise.
      transforms: whether sizes are joined by learned matrices. A small kernel then
        reads the larger ones, and its parameters and multiply-adds include that.
      fan_out: number of weights that read one input, for He's initialisation.
      rngs: draws the weights.

    Raises:
      ValueError: if a kernel is even.

    Example:
      >>> weights = ElasticKernel((3, 5, 7), (96,), fan_out=49, rngs=nnx.Rngs(0))
      >>> weights(3, (64,)).shape
      (3, 3, 64)
    """

    def __init__(
        self,
        kernel: int | tuple[int, ...],
        channels: tuple[int, ...],
        *,
        transforms: bool = False,
        fan_out: int,
        rngs: nnx.Rngs,
    ) -> None:
        self.kernels = offered(kernel)
        if even := [k for k in self.kernels if k % 2 == 0]:
            raise ValueError(
                f"Kernels have odd sizes, so that they have a centre, but got {even}."
            )
        largest = self.kernels[-1]
        shape = channels if largest == 1 else (largest, largest, *channels)
        std = (2 / fan_out) ** 0.5
        self.largest = nnx.Param(std * jax.random.normal(rngs.params(), shape))
        self.transforms = transforms
        for size in self.kernels[:-1] if transforms else ():
            setattr(self, f"to{size}", nnx.Param(jnp.eye(size * size)))

    def __call__(self, kernel: int | None, channels: tuple[int, ...]) -> Array:
        """Return the weights of one size for the first channels.

        Args:
          kernel: one of the sizes on offer; None where there is one.
          channels: how many of each channel axis.

        Returns:
          `[kernel, kernel, *channels]`; `channels` for kernel 1.

        Raises:
          ValueError: if the size is not on offer.
        """
        kernel = pick("kernel", kernel, self.kernels)
        w = self.largest[...]
        if w.ndim > len(channels):
            for size in self.kernels[::-1]:
                if size < kernel:
                    break
                w = _centre(w, size, channels)
                if self.transforms and size < self.kernels[-1]:
                    matrix = getattr(self, f"to{size}")[...]
                    w = (matrix @ w.reshape(size * size, -1)).reshape(w.shape)
            return w if kernel > 1 else w.reshape(channels)
        return lax.slice(w, (0,) * w.ndim, channels)


def _centre(w: Array, size: int, channels: tuple[int, ...]) -> Array:
    # One static `slice`, on the parameter itself the first time: what is not in it
    # costs nothing and is cut off when a subnet is extracted.
    first = (w.shape[0] - size) // 2
    start = (first, first, *(0,) * len(channels))
    return lax.slice(w, start, (first + size, first + size, *channels))
