"""The photos that a new one must not repeat: those a model is judged on, and those that are in the folder already."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from typing import cast

import numpy as np
import numpy.typing as npt

from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.duplicates.correlation import confirmed_pairs
from wastelens.data.duplicates.perceptual_hash import Hashes, perceptual_hashes
from wastelens.data.photos.decode import Photo
from wastelens.data.prepared.dataset import PreparedDataset

Photos = npt.NDArray[np.uint8]

_CONFIRMED_AT_ONCE = 64
_HASHED_AT_ONCE = 32


def judged_photos(dataset: PreparedDataset) -> PhotoRows:
    """The photos that are in val or test, in the one split or in any fold."""
    splits = [dataset.split(fold) for fold in range(int(dataset.manifest["split"]["folds"]) + 1)]
    rows = [part.frame["photo_index"] for split in splits for part in (split.val, split.test)]
    return PhotoRows([(dataset.photos, np.unique(np.concatenate(rows)).astype(np.intp))])


class KnownPhotos:
    """Finds near-duplicates, turned or mirrored ones too; holds 64 bytes a photo, and no pixels.

    Args:
        judged: val and test photos of the prepared dataset.
        collected: photos of the folder, of the same side.
        names: the names of ``collected`` below their folder.
        max_distance: bits of the perceptual hash that may differ.
    """

    def __init__(self, judged: PhotoRows, collected: PhotoRows, names: list[str], max_distance: int) -> None:
        self._photos = _one_behind_the_other(judged, collected)
        self._added = _AddedPhotos(self._photos.side_px)
        self._judged = len(judged)
        self._names = list(names)
        self._max_distance = max_distance
        self._hashes = perceptual_hashes(cast(Photos, self._photos), _HASHED_AT_ONCE)

    @property
    def side_px(self) -> int:
        """The side of the photos that it compares."""
        return self._photos.side_px

    def repeated_by(self, photo: Photo) -> str:
        """Which of them a photo repeats, as a reason; empty: none. Photo: uint8 (side, side, 3)."""
        near = self._near(perceptual_hashes(photo[np.newaxis])[0])
        both = _one_behind_the_other(photo[np.newaxis], self._photos, cast(Photos, self._added))
        for start in range(0, len(near), _CONFIRMED_AT_ONCE):  # the first that is confirmed is enough
            pairs = np.array([(0, 1 + row) for row in near[start : start + _CONFIRMED_AT_ONCE]], dtype=np.int64)
            confirmed = confirmed_pairs(cast(Photos, both), pairs)
            if len(confirmed):
                return self._reason(int(confirmed[0, 1]) - 1)
        return ""

    def repeat_judged(self) -> int:
        """How many photos of the folder repeat val or test photos, as those of another split or dataset may."""
        pairs = [
            (row, judged)
            for row in range(self._judged, len(self._hashes))
            for judged in self._near(self._hashes[row])
            if judged < self._judged
        ]
        confirmed = [
            confirmed_pairs(cast(Photos, self._photos), np.array(pairs[start : start + _CONFIRMED_AT_ONCE]))
            for start in range(0, len(pairs), _CONFIRMED_AT_ONCE)
        ]
        return len({int(row) for some in confirmed for row in some[:, 0]})

    def _near(self, hashes: Hashes) -> npt.NDArray[np.intp]:
        """The known photos whose hashes come near; hashes: uint64 (8,).

        These are the pairs of ``near_duplicate_pairs``, which looks for those among many known photos too.
        """
        turned_them = np.bitwise_count(self._hashes ^ hashes[0]) <= self._max_distance
        turned_it = np.bitwise_count(self._hashes[:, :1] ^ hashes) <= self._max_distance
        return np.flatnonzero((turned_them | turned_it).any(axis=1))

    def _reason(self, row: int) -> str:
        if row < self._judged:
            return "near-duplicate: of a val or test photo"
        return f"near-duplicate: of {self._names[row - self._judged]}"

    def add(self, name: str, photo: Photo) -> None:
        """From now on a photo is known, uint8 (side, side, 3), whose file has that name below the folder."""
        self._hashes = np.concatenate([self._hashes, perceptual_hashes(photo[np.newaxis])])
        self._names.append(name)
        self._added.add(photo)


def _one_behind_the_other(*sources: Photos | PhotoRows) -> PhotoRows:
    return PhotoRows([(photos, np.arange(len(photos))) for photos in sources])


class _AddedPhotos:
    """Photos that stand for an array, uint8 (photos, side, side, 3), and wait in a temporary file."""

    dtype = np.dtype(np.uint8)

    def __init__(self, side_px: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it ends with this object
        weakref.finalize(self, self._file.close)
        self._count = 0
        self._of_one = (side_px, side_px, 3)

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._count, *self._of_one)

    def add(self, photo: Photo) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(photo.tobytes())
        self._count += 1

    def __getitem__(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        return np.stack([self._photo(row) for row in rows.tolist()])

    def _photo(self, row: int) -> Photo:
        size_bytes = math.prod(self._of_one)
        self._file.seek(row * size_bytes)
        return np.frombuffer(self._file.read(size_bytes), np.uint8).reshape(self._of_one)
