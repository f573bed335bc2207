"""The photos that learning without labels sees: shrunk once where it wants them small, with samples to measure on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wastelens.config.networks import ContrastiveDivergenceConfig, LearnerConfig
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.photos.shrink import shrink, shrunk_photos
from wastelens.models.rbm import RestrictedBoltzmannMachine
from wastelens.system.arrays import Float32Array, FloatArray, PhotoArray

MEASURED_PHOTOS = 512
CHUNK_PHOTOS = 256


@dataclass(frozen=True)
class VisiblePhotos:
    """Photos to learn from and to measure the learning on.

    Attributes:
        train: the training photos at the learner's size; they stay on disk.
        train_sample: uint8 (at most 512, side, side, 3), as many as of val, drawn once.
        val_sample: the same of val.
        mean_0_1: the mean training photo, float64 (side, side, 3).
    """

    train: PhotoRows
    train_sample: PhotoArray
    val_sample: PhotoArray
    mean_0_1: FloatArray

    @property
    def side_px(self) -> int:
        """The side of the photos, in pixels."""
        return self.train.side_px

    def floors(self, code_width: int) -> dict[str, float]:
        """Return errors on val to be beaten: of the mean training photo, of each photo's mean colour, and of a PCA.

        Args:
            code_width: numbers of a photo's code. The PCA's is as wide, or has one number fewer than there are photos
                to fit it to.
        """
        from sklearn.decomposition import PCA

        train, val = (_vectors_0_1(photos) for photos in (self.train_sample, self.val_sample))
        mean_colours = self.val_sample.mean(axis=(1, 2), keepdims=True, dtype=np.float32) / 255
        pca = PCA(min(code_width, len(train) - 1, train.shape[1]), random_state=0).fit(train)
        linear = pca.inverse_transform(pca.transform(val)).reshape(self.val_sample.shape)
        return {
            "floor/reconstruction_error": squared_error(self.mean_0_1, self.val_sample),
            "floor/mean_colour_reconstruction_error": squared_error(mean_colours, self.val_sample),
            "floor/pca_reconstruction_error": squared_error(linear, self.val_sample),
        }


def _vectors_0_1(photos: PhotoArray) -> Float32Array:
    return (photos.reshape(len(photos), -1) / 255).astype(np.float32)


def squared_error(rebuilt_0_1: npt.NDArray[np.floating], photos_0_255: PhotoArray) -> float:
    """Return the mean over photos, pixels and channels of (rebuilt − photo)², the photo in [0, 1]."""
    return float(np.mean(np.square(rebuilt_0_1 - photos_0_255.astype(np.float32) / 255)))


def visible_photos(
    train: PhotoRows,
    val: PhotoRows,
    learner: LearnerConfig,
    *,
    labelled: int,
    folder: Path,
    seed: int,
) -> VisiblePhotos:
    """Shrink the photos to the learner's size, into an unnamed file in ``folder``.

    The samples are drawn from val and from the first ``labelled`` photos of train, the dataset's own: photos from
    elsewhere would make the difference between the two look like overfitting.
    """
    rng = np.random.default_rng([seed, labelled])
    count = min(MEASURED_PHOTOS, len(val), labelled)
    samples = [
        photos[np.sort(rng.permutation(among)[:count])] for photos, among in ((train, labelled), (val, len(val)))
    ]
    side_px = learner.visible_side_px(train.side_px)
    if side_px < train.side_px:
        samples = [shrink(sample, side_px) for sample in samples]
        shrunk = shrunk_photos(train, side_px, folder)
        train = PhotoRows([(shrunk, np.arange(len(shrunk)))])
    total = np.zeros((train.side_px, train.side_px, 3))
    for start in range(0, len(train), CHUNK_PHOTOS):
        total += train[start : start + CHUNK_PHOTOS].sum(axis=0, dtype=np.float64)
    return VisiblePhotos(train, samples[0], samples[1], total / (255 * len(train)))


def pixel_statistics(
    photos: PhotoRows, learner: ContrastiveDivergenceConfig, folder: Path
) -> tuple[Float32Array, Float32Array]:
    """Return mean and scale by which a machine's Gaussian visible units see pixels, float32 (n_visible,) each."""
    shrunk = shrunk_photos(photos, learner.side_px, folder)
    machine = RestrictedBoltzmannMachine(1, learner.visible)
    machine.initialise(shrunk, seed=0)
    return machine.visible_mean_, machine.visible_scale_
