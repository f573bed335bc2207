"""The photos that a new one must not repeat: those a model is judged on, and those already in the folder."""

from __future__ import annotations

import tempfile
import weakref
from typing import cast

import numpy as np

from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.duplicates.correlation import confirmed_pairs
from wastelens.data.duplicates.perceptual_hash import Hashes, perceptual_hashes
from wastelens.data.photos.decode import Photo
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.system.arrays import IndexArray, PhotoArray


def judged_photos(dataset: PreparedDataset) -> PhotoRows:
    """Return the photos that are in val or test, in the single split or in any fold."""
    splits = [dataset.split(fold) for fold in range(int(dataset.manifest["split"]["folds"]) + 1)]
    rows = [part.frame["photo_index"] for split in splits for part in (split.val, split.test)]
    return PhotoRows([(dataset.photos, np.unique(np.concatenate(rows)).astype(np.intp))])


class KnownPhotos:
    """Finds near-duplicates, also rotated or mirrored ones; holds 64 bytes per photo in memory, and no pixels.

    Args:
        judged: val and test photos of the prepared dataset.
        collected: photos of the folder, of the same side.
        names: the names of ``collected`` below their folder.
        max_distance: bits of the perceptual hash that may differ.
    """

    def __init__(self, judged: PhotoRows, collected: PhotoRows, names: list[str], max_distance: int) -> None:
        self._photos = _joined(judged, collected)
        # Written to a file and then mapped: a map that is written to, on a full disk, would kill the process.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed with this object
        weakref.finalize(self, self._file.close)
        self._added: PhotoArray = np.empty((0, *self._photos.shape[1:]), np.uint8)
        self._judged = len(judged)
        self._names = list(names)
        self._max_distance = max_distance
        self._hashes = perceptual_hashes(cast(PhotoArray, self._photos))

    @property
    def side_px(self) -> int:
        """The side of the photos that it compares."""
        return self._photos.side_px

    def repeated_by(self, photo: Photo) -> str:
        """Return which known photo a photo repeats, as a reason; empty: none. Photo: uint8 (side, side, 3)."""
        near = self._near(perceptual_hashes(photo[np.newaxis])[0])
        both = _joined(photo[np.newaxis], self._photos, self._added)
        confirmed = confirmed_pairs(cast(PhotoArray, both), np.stack([np.zeros_like(near), 1 + near], axis=1))
        if not len(confirmed):
            return ""
        row = int(confirmed[0, 1]) - 1 - self._judged
        return f"near-duplicate: of {'a val or test photo' if row < 0 else self._names[row]}"

    def repeat_judged(self) -> int:
        """Count the folder's photos that repeat val or test photos, as those of another split or dataset may."""
        pairs = [
            (row, judged)
            for row in range(self._judged, len(self._hashes))
            for judged in self._near(self._hashes[row])
            if judged < self._judged
        ]
        confirmed = confirmed_pairs(cast(PhotoArray, self._photos), np.array(pairs, dtype=np.int64).reshape(-1, 2))
        return len(np.unique(confirmed[:, 0]))

    def add(self, name: str, photo: Photo) -> None:
        """Add a photo, uint8 (side, side, 3), whose file has that name below the folder."""
        self._hashes = np.concatenate([self._hashes, perceptual_hashes(photo[np.newaxis])])
        self._names.append(name)
        self._file.write(photo.tobytes())
        self._file.flush()
        self._added = np.memmap(self._file, np.uint8, "r", shape=(len(self._added) + 1, *photo.shape))

    def _near(self, hashes: Hashes) -> IndexArray:
        """Return the rows of known photos whose hashes come near; hashes: uint64 (8,), one per orientation.

        They are the pairs that ``near_duplicate_pairs`` would find, which compares many photos with each other.
        """
        turned_them = np.bitwise_count(self._hashes ^ hashes[0]) <= self._max_distance
        turned_it = np.bitwise_count(self._hashes[:, :1] ^ hashes) <= self._max_distance
        return np.flatnonzero((turned_them | turned_it).any(axis=1))


def _joined(*sources: PhotoArray | PhotoRows) -> PhotoRows:
    return PhotoRows([(photos, np.arange(len(photos))) for photos in sources])
