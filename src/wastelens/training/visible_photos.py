"""The photos that learning without labels sees: shrunk once where they are wanted small, with samples to measure on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wastelens.config.networks import ConvAutoencoderConfig, DbnConfig, RbmConfig
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.photos.shrink import shrink, shrunk_photos
from wastelens.models.rbm import RestrictedBoltzmannMachine, visible_statistics
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
    labelled: int,
    folder: Path,
    seed: int,
    progress: Callable[[int], None] = lambda count: None,
) -> VisiblePhotos:
    """Shrink the photos as the learner wants them; the shrunk ones lie in a nameless file in ``folder``.

    The samples are drawn from val and from the first ``labelled`` photos of train, the dataset's own: photos from
    elsewhere would show in their difference as if it were overfitting.
    """
    rng = np.random.default_rng([seed, labelled])
    count = min(MEASURED_PHOTOS, len(val), labelled)
    samples = [
        photos[np.sort(rng.permutation(among)[:count])] for photos, among in ((train, labelled), (val, len(val)))
    ]
    if not isinstance(learner, ConvAutoencoderConfig):
        samples = [shrink(sample, learner.side_px) for sample in samples]
        shrunk = shrunk_photos(train, learner.side_px, folder, progress)
        train = PhotoRows([(shrunk, np.arange(len(shrunk)))])
    return VisiblePhotos(train, samples[0], samples[1], _mean(train))


def pixel_statistics(
    photos: PhotoRows, learner: RbmConfig | DbnConfig, folder: Path
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and scale by which a machine's Gaussian visible units see pixels, float32 (n_visible,) each."""
    shrunk = shrunk_photos(photos, learner.side_px, folder)
    machine = RestrictedBoltzmannMachine(1, learner.visible)
    machine.initialise(visible_statistics(shrunk, learner.visible), seed=0)
    return machine.visible_mean_, machine.visible_scale_


def _mean(photos: PhotoRows) -> npt.NDArray[np.float64]:
    total = np.zeros((photos.side_px, photos.side_px, 3))
    for start in range(0, len(photos), CHUNK_PHOTOS):
        total += photos[start : start + CHUNK_PHOTOS].sum(axis=0, dtype=np.float64)
    return total / (255 * len(photos))
