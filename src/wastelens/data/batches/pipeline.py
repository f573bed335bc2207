"""Batches of photos: gathered from the cache, shuffled, augmented or corrupted reproducibly, prepared ahead.

An epoch's batches depend on (seed, epoch) alone, so a resumed run sees the same batches as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from wastelens.config.augmentation import PolicyAugmentation
from wastelens.config.networks import NoiseConfig
from wastelens.data.batches.augment import Augmenter
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.prepared.tables import TrainTable
from wastelens.system.arrays import Float32Array, IndexArray, PhotoArray
from wastelens.system.prefetch import prepared_ahead

Batch = tuple[PhotoArray, Float32Array]


class TrainingBatches:
    """The training photos with their labels in batches, in a new order and newly augmented each epoch."""

    def __init__(
        self, table: TrainTable, photos: PhotoArray, *, batch_size: int, policy: PolicyAugmentation | None, seed: int
    ) -> None:
        if not isinstance(table, TrainTable):
            raise TypeError(f"training takes a TrainTable, not a {type(table).__name__}")
        self._rows = table.frame["photo_index"].to_numpy(dtype=np.intp)
        self._labels = table.labels.astype(np.float32)
        self._photos = photos
        self._batch_size = batch_size
        self._augmenter = Augmenter(policy) if policy is not None and policy.transforms else None
        self._seed = seed

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches: photos uint8 (batch, side, side, 3) in 0–255, labels float32 (batch, materials)."""
        pieces = _shuffled(len(self._rows), self._batch_size, self._seed, epoch)
        return prepared_ahead(lambda number: self._batch(pieces[number], epoch, number), len(pieces))

    def _batch(self, piece: IndexArray, epoch: int, number: int) -> Batch:
        photos = self._photos[self._rows[piece]]
        if self._augmenter is not None:
            seed = int(np.random.SeedSequence([self._seed, epoch, number]).generate_state(1)[0])
            photos = self._augmenter(photos, seed)
        return photos, self._labels[piece]


class PhotoBatches:
    """Photos without labels in batches, in a new order and with new noise each epoch: pairs of (noisy, clean)."""

    def __init__(self, photos: PhotoRows, *, batch_size: int, seed: int, noise: NoiseConfig | None = None) -> None:
        self._photos = photos
        self._batch_size = batch_size
        self._seed = seed
        self._noise = noise

    def __len__(self) -> int:
        return math.ceil(len(self._photos) / self._batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[PhotoArray, PhotoArray]]:
        """Yield the batches: (noisy, clean), each uint8 (batch, side, side, 3); without noise, the same array twice.

        Each photo occurs once; the last batch may be smaller.
        """
        pieces = _shuffled(len(self._photos), self._batch_size, self._seed, epoch)

        def batch(number: int) -> tuple[PhotoArray, PhotoArray]:
            clean = self._photos[pieces[number]]
            if self._noise is None:
                return clean, clean
            # From 1: NumPy ignores trailing zeros of a seed, and [seed, epoch] seeds the order.
            rng = np.random.default_rng([self._seed, epoch, number + 1])
            return add_noise(clean, self._noise, rng), clean

        return prepared_ahead(batch, len(pieces))


def _shuffled(rows: int, batch_size: int, seed: int, epoch: int) -> list[IndexArray]:
    """Return the rows of each batch of an epoch; the last batch may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, rows, batch_size)]


def add_noise(photos: PhotoArray, config: NoiseConfig, rng: np.random.Generator) -> PhotoArray:
    """Corrupt photos; the same generator state gives the same noise.

    - ``gaussian``: every channel of every pixel gets independent normal noise with a standard deviation of
      ``strength`` times the range (255 · strength grey levels); the result is rounded and clipped to 0–255.
    - ``masking``: each pixel, all channels together, turns black with probability ``strength``.
    - ``salt_and_pepper``: each pixel, with probability ``strength``, turns black or white with equal odds.

    Whole pixels are lost, not single channels: a remaining channel would reveal the pixel's brightness. Pixels are
    drawn independently, so the share of lost pixels is ``strength`` in expectation, but not in each photo.

    Vincent, Larochelle, Lajoie, Bengio & Manzagol 2010, "Stacked denoising autoencoders", §3.3.

    Photos are uint8 (n, side, side, 3) in 0–255. Returns a copy, or the same array if there is no noise to add.
    """
    if config.name == "none" or config.strength == 0:
        return photos
    if config.name == "gaussian":
        gaussian = rng.standard_normal(photos.shape, dtype=np.float32)
        gaussian *= np.float32(255 * config.strength)
        gaussian += photos
        np.rint(gaussian, out=gaussian)  # rounded, because truncation would darken every photo by half a grey level
        return np.clip(gaussian, 0, 255, out=gaussian).astype(np.uint8)
    drawn = rng.random(photos.shape[:-1], dtype=np.float32)
    noisy = photos.copy()
    if config.name == "masking":
        noisy[drawn < config.strength] = 0
        return noisy
    # One draw decides both whether a pixel is lost and which colour it gets.
    noisy[drawn < config.strength] = 255
    noisy[drawn < config.strength / 2] = 0
    return noisy
