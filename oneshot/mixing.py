"""Augmentation that mixes the examples of a batch, and their labels.

Integer labels become rows of shares of the classes, which `cross_entropy` takes as
well.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from oneshot.augment import Array, Augment, check_images, rectangles


def mixup(alpha: float, classes: int) -> Augment:
    """Mix each example with another of the batch (Zhang et al. 2017, arXiv:1710.09412).

    Args:
      alpha: The share is drawn from Beta(alpha, alpha); above 0, 0.2 to 1 are usual.
      classes: How many; integer labels `[n]` become shares `[n, classes]`.

    Returns:
      An augmentation of floating point `x [n, ...]` and of labels.

    Example:
      >>> x, y = mixup(0.2, classes=10)(key, images, labels)
      >>> y.sum(-1)  # 1 everywhere
    """
    _check_alpha(alpha)

    def mixed(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"`mixup` takes floating point, but x is {x.dtype}, which cannot hold "
                "shares. Convert it first, such as x / 255."
            )
        y = _shares(y, classes)
        order, share = _partners(key, len(x), alpha)
        weight = share.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
        return weight * x + (1 - weight) * x[order], _mix(y, order, share)

    return mixed


def cutmix(alpha: float, classes: int) -> Augment:
    """Paste a rectangle of another image (Yun et al. 2019, arXiv:1905.04899).

    Args:
      alpha: The share that is kept is drawn from Beta(alpha, alpha); above 0, 1 is
        usual.
      classes: How many; integer labels `[n]` become shares `[n, classes]`, by the
        pixels that each image really has.

    Returns:
      An augmentation of images `[n, height, width, channels]` and of labels.
    """
    _check_alpha(alpha)

    def pasted(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        check_images("cutmix", x)
        y, (key, place) = _shares(y, classes), jax.random.split(key)
        order, share = _partners(key, len(x), alpha)
        side = jnp.sqrt(1 - share)
        sides = side * x.shape[1], side * x.shape[2]
        inside = rectangles(place, sides, (x.shape[1], x.shape[2]))
        kept = 1 - inside.mean((1, 2), dtype=jnp.float32)
        x = jnp.where(inside[..., None], x[order], x)
        return x, _mix(y, order, kept)

    return pasted


def _partners(key: Array, n: int, alpha: float) -> tuple[Array, Array]:
    # Each example's own share: one for the batch, as in the papers, varies more from
    # step to step and gains nothing on an accelerator.
    who, how = jax.random.split(key)
    return jax.random.permutation(who, n), jax.random.beta(how, alpha, alpha, (n,))


def _mix(y: Array, order: Array, share: Array) -> Array:
    return share[:, None] * y + (1 - share[:, None]) * y[order]


def _shares(y: Array, classes: int) -> Array:
    if y.ndim == 1 and jnp.issubdtype(y.dtype, jnp.integer):
        y = jax.nn.one_hot(y, classes, dtype=jnp.float32)
    if y.ndim != 2 or y.shape[1] != classes:
        raise ValueError(
            f"Mixing examples takes integer labels [n], or shares [n, {classes}] of "
            f"the {classes} classes, but the targets are {y.dtype}{list(y.shape)}."
        )
    return y


def _check_alpha(alpha: float) -> None:
    if not alpha > 0:
        raise ValueError(f"`alpha` is above 0, but got {alpha}.")
