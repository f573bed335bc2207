"""The photos that learning without labels sees: shrunk once where they are wanted small, with samples to measure on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wastelens.config import ConvAutoencoderConfig
from wastelens.data.photo_rows import PhotoRows
from wastelens.data.shrink import shrink, shrunk_photos
from wastelens.models.visible import Learner

Photos = npt.NDArray[np.uint8]
MEASURED_PHOTOS = 512
CHUNK_PHOTOS = 256


@dataclass(frozen=True)
class VisiblePhotos:
    """What is learnt from, and what the learning is measured on.

    Attributes:
        train: the training photos at the learner's size; they stay on disk.
        train_sample: uint8 (at most 512, side, side, 3), as many as of val, drawn once.
        val_sample: the like of val.
        mean_0_1: the mean training photo, float64 (side, side, 3): the least that has to be beaten.
    """

    train: PhotoRows
    train_sample: Photos
    val_sample: Photos
    mean_0_1: npt.NDArray[np.float64]

    @property
    def side_px(self) -> int:
        """The side of the photos, in pixels."""
        return self.train.side_px

    def floor_error(self) -> float:
        """The mean squared error of the mean training photo on val."""
        return float(np.mean(np.square(self.val_sample / 255 - self.mean_0_1)))


def visible_photos(
    train: PhotoRows,
    val: PhotoRows,
    learner: Learner,
    *,
    folder: Path,
    seed: int,
    progress: Callable[[int], None] = lambda count: None,
) -> VisiblePhotos:
    """Shrink the photos as the learner wants them; the shrunk ones lie in a nameless file in ``folder``."""
    rng = np.random.default_rng([seed, len(train)])
    count = min(MEASURED_PHOTOS, len(val), len(train))
    samples = [photos[np.sort(rng.permutation(len(photos))[:count])] for photos in (train, val)]
    if not isinstance(learner, ConvAutoencoderConfig):
        samples = [shrink(sample, learner.side_px) for sample in samples]
        shrunk = shrunk_photos(train, learner.side_px, folder, progress)
        train = PhotoRows([(shrunk, np.arange(len(shrunk)))])
    return VisiblePhotos(train, samples[0], samples[1], _mean(train))


def _mean(photos: PhotoRows) -> npt.NDArray[np.float64]:
    total = np.zeros((photos.side_px, photos.side_px, 3))
    for start in range(0, len(photos), CHUNK_PHOTOS):
        total += photos[start : start + CHUNK_PHOTOS].sum(axis=0, dtype=np.float64)
    return total / (255 * len(photos))
