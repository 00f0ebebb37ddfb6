"""Augmentation of training batches: functions `(key, x, y) -> (x, y)` on the device.

`Data` gives each training step its own key, a function of (seed, step), so that a
resumed run sees the bits that an uninterrupted one would have seen. Each example draws
for itself. What mixes examples is in `oneshot.mixing`, masks over spectrograms in
`oneshot.spec_augment`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Augment = Callable[[Array, Array, Array], tuple[Array, Array]]


def compose(*augments: Callable[..., Any]) -> Augment:
    """Return the augmentation that applies others one after the other.

    Args:
      *augments: `(key, x, y) -> (x, y)` or `(key, x) -> x`, in their order; each gets
        a key of its own.

    Returns:
      `(key, x, y) -> (x, y)`.

    Example:
      >>> data = Data.from_arrays(train, augment=compose(crop(4), flip(), erase(0.25)))
    """

    both = tuple(_of_both(augment) for augment in augments)

    def composed(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        for i, augment in enumerate(both):
            x, y = augment(jax.random.fold_in(key, i), x, y)
        return x, y

    return composed


def one_of(*augments: Callable[..., Any]) -> Augment:
    """Return the augmentation that applies one of several, drawn for each batch.

    Args:
      *augments: As in `compose`, equally likely; all have to return equal shapes and
        dtypes.

    Example:
      >>> one_of(mixup(0.8, classes=10), cutmix(1.0, classes=10))
    """

    both = tuple(_of_both(augment) for augment in augments)

    def one(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        which, own = jax.random.split(key)
        index = jax.random.randint(which, (), 0, len(both))
        return jax.lax.switch(index, both, own, x, y)

    return one


def as_augment(augment: Callable[..., Any] | None) -> Augment | None:
    """Return an augmentation of (x, y) from one that may be a `(key, x) -> x`.

    A third argument with a default is no target: it keeps its default.

    Raises:
      ValueError: If it takes neither (key, x, y) nor (key, x).
    """
    return None if augment is None else _of_both(augment)


def _of_both(augment: Callable[..., Any]) -> Augment:
    images, both = _takes(augment, 2), _takes(augment, 3)
    if both and not images or _takes(augment, 9):  # nine: *arguments
        return augment
    if not images:
        raise ValueError(
            "An augmentation is called as augment(key, x, y) and returns (x, y), or as "
            f"augment(key, x) and returns x, but {augment!r} takes "
            f"{inspect.signature(augment)}."
        )

    def images_only(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        return augment(key, x), y

    return images_only


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    return True


def crop(padding: int) -> Augment:
    """Shift each image at random, zeros coming in: pad, then crop to the old size.

    Args:
      padding: Largest shift in either direction, pixels.

    Returns:
      An augmentation of images `[n, height, width, channels]`.

    Example:
      >>> augment = compose(crop(4), flip())  # the usual one of CIFAR-10
    """
    if padding < 0:
        raise ValueError(f"`padding` is 0 or more pixels, but got {padding}.")

    def cropped(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        check_images("crop", x)
        edge = (padding, padding)
        padded = jnp.pad(x, ((0, 0), edge, edge, (0, 0)))
        corners = jax.random.randint(key, (len(x), 2), 0, 2 * padding + 1)

        def window(image: Array, corner: Array) -> Array:
            start = (corner[0], corner[1], jnp.int32(0))
            return jax.lax.dynamic_slice(image, start, x.shape[1:])

        return jax.vmap(window)(padded, corners), y

    return cropped


def shrink(size: int) -> Augment:
    """Shrink images to fewer pixels, neighbours averaged.

    What ends in a mean over places can train on small images first and on whole ones
    last; a step costs as many times less as there are fewer pixels.

    Args:
      size: Side of the new images in pixels, at most the images' own.

    Returns:
      An augmentation of images `[n, height, width, channels]` to
      `[n, size, size, channels]`.

    Example:
      >>> data = dataclasses.replace(data, augment=compose(flip(), shrink(16)))

    Reference:
      Tan, Le. EfficientNetV2: smaller models and faster training. ICML 2021.
      https://arxiv.org/abs/2104.00298
    """
    if size < 1:
        raise ValueError(f"Images have a side of 1 pixel or more, but got {size}.")

    def shrunk(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        del key
        check_images("shrink", x)
        n, height, width, channels = x.shape
        if size > min(height, width):
            raise ValueError(
                f"Images of {height} x {width} pixels do not shrink to {size}. Choose "
                "a smaller size."
            )
        shape = (n, size, size, channels)
        return jax.image.resize(x, shape, "linear", antialias=True), y

    return shrunk


def flip(probability: float = 0.5) -> Augment:
    """Mirror images left to right.

    Args:
      probability: Of each image's being mirrored, 0 to 1.

    Returns:
      An augmentation of images `[n, height, width, channels]`.
    """
    _check_share("probability", probability)

    def flipped(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        check_images("flip", x)
        mirrored = jax.random.bernoulli(key, probability, (len(x), 1, 1, 1))
        return jnp.where(mirrored, x[:, :, ::-1], x), y

    return flipped


def erase(
    probability: float = 0.25, area: tuple[float, float] = (0.02, 0.33)
) -> Augment:
    """Set a random rectangle of an image to zero (Zhong et al. 2017, arXiv:1708.04896).

    Args:
      probability: Of each image's losing a rectangle, 0 to 1.
      area: Smallest and largest share of the image that is lost, 0 to 1; the sides'
        ratio is between 0.3 and 1 / 0.3, evenly in its logarithm. What sticks out of
        the image is cut off.

    Returns:
      An augmentation of images `[n, height, width, channels]`.
    """
    _check_share("probability", probability)
    for share in area:
        _check_share("area", share)
    if area[0] > area[1]:
        raise ValueError(f"`area` is smallest, then largest share, but got {area}.")

    def erased(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        check_images("erase", x)
        keys, (n, height, width, _) = jax.random.split(key, 4), x.shape
        share = jax.random.uniform(keys[0], (n,), minval=area[0], maxval=area[1])
        limit = jnp.log(0.3)
        root = jnp.exp(jax.random.uniform(keys[1], (n,), minval=limit, maxval=-limit))
        root = jnp.sqrt(root)
        sides = jnp.sqrt(share) * root * height, jnp.sqrt(share) / root * width
        inside = rectangles(keys[2], sides, (height, width))
        hit = jax.random.bernoulli(keys[3], probability, (n, 1, 1))
        return jnp.where((inside & hit)[..., None], jnp.zeros_like(x), x), y

    return erased


def rectangles(key: Array, sides: tuple[Array, Array], size: tuple[int, int]) -> Array:
    """Return masks [n, *size] of rectangles whose centres are anywhere, cut off."""
    inside = None
    keys = jax.random.split(key)
    for axis, (own, length, whole) in enumerate(zip(keys, sides, size, strict=True)):
        centre = jax.random.uniform(own, length.shape, maxval=float(whole))
        pixel = jnp.arange(whole)[None] + 0.5
        along = jnp.abs(pixel - centre[:, None]) < length[:, None] / 2
        along = jnp.expand_dims(along, 2 - axis)
        inside = along if inside is None else inside & along
    assert inside is not None
    return inside


def check_images(name: str, x: Array) -> None:
    """Raise a ValueError unless x is images."""
    if x.ndim != 4:
        raise ValueError(
            f"`{name}` takes images [n, height, width, channels], but got "
            f"{list(x.shape)}. Add the axis that is missing, such as x[..., None]."
        )


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` is between 0 and 1, but got {value}.")
