"""Noise on photos: what a denoising autoencoder sees instead of the clean photo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wastelens.config.networks import NoiseConfig

Photos = npt.NDArray[np.uint8]


def add_noise(photos: Photos, config: NoiseConfig, rng: np.random.Generator) -> Photos:
    """Corrupt photos; the same generator state gives the same noise.

    - ``gaussian``: every channel of every pixel gets independent normal noise with a standard deviation of
      ``strength`` times the range (255 · strength grey levels), then is rounded and clipped to 0–255.
    - ``masking``: each pixel, all its channels together, is black with probability ``strength``.
    - ``salt_and_pepper``: each pixel, with probability ``strength``, is black or white by even odds.

    Whole pixels are lost, not single channels: what remains of a pixel would tell its brightness. Each pixel is drawn
    by itself, so that the share of lost pixels is ``strength`` in expectation, and not exactly so in each photo.

    Vincent, Larochelle, Lajoie, Bengio & Manzagol 2010, "Stacked denoising autoencoders", §3.3.

    Args:
        photos: uint8 (n, side, side, 3) in 0–255; never changed.
        config: the kind of noise, and its strength.
        rng: where the noise comes from.

    Returns:
        uint8 of the same shape: a copy, or the very same array where there is no noise to add.
    """
    if config.name == "none" or config.strength == 0:
        return photos
    if config.name == "gaussian":
        return _gaussian(photos, config.strength, rng)
    drawn = rng.random(photos.shape[:-1], dtype=np.float32)
    noisy = photos.copy()
    if config.name == "masking":
        noisy[drawn < config.strength] = 0
        return noisy
    # One draw a pixel decides both whether it is lost and to what.
    noisy[drawn < config.strength] = 255
    noisy[drawn < config.strength / 2] = 0
    return noisy


def _gaussian(photos: Photos, strength: float, rng: np.random.Generator) -> Photos:
    noisy = rng.standard_normal(photos.shape, dtype=np.float32)
    noisy *= np.float32(255 * strength)
    noisy += photos
    # Rounded, as cutting off would darken every photo by half a grey level.
    np.rint(noisy, out=noisy)
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)
