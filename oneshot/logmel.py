"""Log-mel features of sound, on the device.

The filterbank is HTK's (Young et al., The HTK Book): mel(f) = 2595 log10(1 + f / 700),
and triangles of height 1 that are evenly spaced in mel. Slaney's, which is linear below
1 kHz and has triangles of equal area, is another one: features do not mix.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def log_mel(
    waves: jax.Array,
    rate: int,
    *,
    mels: int = 40,
    window: float = 0.025,
    hop: float = 0.010,
    low: float = 20.0,
    high: float | None = None,
    floor: float = 1e-6,
) -> jax.Array:
    """Return the logarithm of the energy in mel bands.

    Frames are those that lie whole inside the sound; each is weighted by a periodic
    Hann window and filled up with zeros to a power of two for its Fourier transform.

    Args:
      waves: `[n, samples]`, floating point, -1 to 1.
      rate: Samples a second.
      mels: Bands.
      window: Length of a frame, seconds.
      hop: From one frame to the next, seconds.
      low: Lower end of the first band, Hz.
      high: Upper end of the last band, Hz; None is half the rate.
      floor: What energies are raised to before the logarithm, so that silence stays
        finite.

    Returns:
      `[n, 1 + (samples - window) // hop, mels]`, float32, natural logarithms.

    Raises:
      ValueError: If the sound is shorter than a frame, or the bands are empty.

    Example:
      >>> log_mel(jnp.zeros((1, 8000)), 8000).shape
      (1, 98, 40)
    """
    size, step = round(window * rate), round(hop * rate)
    if waves.ndim != 2 or waves.shape[1] < size or step < 1:
        raise ValueError(
            f"`waves` is [n, samples] with at least {size} samples, one frame of "
            f"{window} s at {rate} a second, but got {list(waves.shape)}, and a hop of "
            f"{step} samples."
        )
    power = spectrogram(waves, size, step)
    bins = 2 * (power.shape[-1] - 1)
    bank = mel_filters(mels, bins, rate, low=low, high=high)
    energy = power.reshape(-1, power.shape[-1]) @ jnp.asarray(bank)
    return jnp.log(jnp.maximum(energy, floor)).reshape(*power.shape[:2], mels)


def spectrogram(waves: jax.Array, size: int, step: int) -> jax.Array:
    """Return the squared magnitudes of a short-time Fourier transform.

    Args:
      waves: `[n, samples]`.
      size: Samples of a frame.
      step: From one frame to the next, samples.

    Returns:
      `[n, frames, bins // 2 + 1]`, float32, `bins` the power of two from `size` up.
    """
    bins = 1 << (size - 1).bit_length()
    frames = 1 + (waves.shape[1] - size) // step
    places = np.arange(frames)[:, None] * step + np.arange(size)[None]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    framed = jnp.asarray(waves, jnp.float32)[:, places]
    framed = framed * jnp.asarray(hann, jnp.float32)[None, None]
    return jnp.square(jnp.abs(jnp.fft.rfft(framed, bins)))


def mel_filters(
    mels: int, bins: int, rate: int, *, low: float = 20.0, high: float | None = None
) -> np.ndarray:
    """Return HTK's triangular filters.

    Args:
      mels: Bands.
      bins: Points of the Fourier transform.
      rate: Samples a second.
      low: Lower end of the first band, Hz.
      high: Upper end of the last band, Hz; None is half the rate.

    Returns:
      `[bins // 2 + 1, mels]`, float32.

    Raises:
      ValueError: If the ends are out of order, or a band is too narrow to hold a
        frequency of the transform, so that its energy would be 0.
    """
    high = rate / 2 if high is None else high
    if not 0 <= low < high <= rate / 2:
        raise ValueError(
            f"Bands lie in 0 to {rate / 2} Hz, half the rate, but go from {low} to "
            f"{high}."
        )
    ends = np.linspace(_mel(low), _mel(high), mels + 2)
    frequencies = 700 * (10 ** (ends / 2595) - 1)
    left, centre, right = (frequencies[i : mels + i][None] for i in range(3))
    points = np.linspace(0, rate / 2, bins // 2 + 1)[:, None]
    rising = (points - left) / (centre - left)
    falling = (right - points) / (right - centre)
    bank = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    if (empty := bank.sum(0) == 0).any():
        raise ValueError(
            f"Band {int(np.argmax(empty))} of {mels} holds none of the transform's "
            f"frequencies, which are {rate / bins:.0f} Hz apart. Take fewer bands, a "
            "longer window or a higher lower end."
        )
    return bank


def _mel(frequency: float) -> float:
    return 2595 * np.log10(1 + frequency / 700)
