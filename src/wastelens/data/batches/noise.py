"""Add noise to photos: the input of a denoising autoencoder."""

from __future__ import annotations

import numpy as np

from wastelens.config.networks import NoiseConfig
from wastelens.system.arrays import PhotoArray


def add_noise(photos: PhotoArray, config: NoiseConfig, rng: np.random.Generator) -> PhotoArray:
    """Corrupt photos; the same generator state gives the same noise.

    - ``gaussian``: every channel of every pixel gets independent normal noise with a standard deviation of
      ``strength`` times the range (255 · strength grey levels); the result is rounded and clipped to 0–255.
    - ``masking``: each pixel, all channels together, turns black with probability ``strength``.
    - ``salt_and_pepper``: each pixel, with probability ``strength``, turns black or white with equal odds.

    Whole pixels are lost, not single channels: a remaining channel would reveal the pixel's brightness. Pixels are
    drawn independently, so the share of lost pixels is ``strength`` in expectation, but not in each photo.

    Vincent, Larochelle, Lajoie, Bengio & Manzagol 2010, "Stacked denoising autoencoders", §3.3.

    Args:
        photos: uint8 (n, side, side, 3) in 0–255; never modified.
        config: the kind and strength of the noise.
        rng: source of the noise.

    Returns:
        uint8 of the same shape: a copy, or the same array if there is no noise to add.
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
    # One draw decides both whether a pixel is lost and which colour it gets.
    noisy[drawn < config.strength] = 255
    noisy[drawn < config.strength / 2] = 0
    return noisy


def _gaussian(photos: PhotoArray, strength: float, rng: np.random.Generator) -> PhotoArray:
    noisy = rng.standard_normal(photos.shape, dtype=np.float32)
    noisy *= np.float32(255 * strength)
    noisy += photos
    # Rounded, because truncation would darken every photo by half a grey level.
    np.rint(noisy, out=noisy)
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)
