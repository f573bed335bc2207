"""Selected photos of several memory-mapped arrays, read as if they were one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.system.arrays import Array, IndexArray, PhotoArray


class PhotoRows:
    """Selected rows of one or more arrays of photos, concatenated; only the rows asked for are read.

    It can replace an array of photos: it has ``len`` and ``shape``, and is indexed along the photos as in NumPy.
    Indexing always copies. It holds two numbers per photo, and no pixels.
    """

    def __init__(self, sources: Sequence[tuple[PhotoArray | PhotoRows, npt.ArrayLike]]) -> None:
        """Select rows of arrays of photos, uint8 (n, side, side, 3) with one side for all, or of other PhotoRows.

        Each comes with the indices of its selected rows: integers (m,) from 0 to n − 1, in any order, repeats allowed.

        Raises:
            ValueError: there is no source, or they are not arrays of photos of one size.
            IndexError: the indices are not integers, or are out of range.
        """
        if not sources:
            raise ValueError("photo rows need at least one array of photos")
        self._photos = [photos for photos, _ in sources]
        for photos in self._photos:
            if photos.dtype != np.uint8 or len(photos.shape) != 4 or photos.shape[1:] != self._photos[0].shape[1:]:
                raise ValueError(f"photos are uint8 (n, side, side, 3) of one side, not {photos.dtype} {photos.shape}")
        indices = [_checked(rows, len(photos)) for photos, rows in sources]
        self._index = np.concatenate(indices)
        self._source = np.repeat(np.arange(len(indices)), [len(rows) for rows in indices])

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        """(photos, side, side, 3)."""
        return (len(self), *self._photos[0].shape[1:])

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read all photos into memory."""
        return np.asarray(self[:], dtype=dtype)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Always uint8."""
        return np.dtype(np.uint8)

    @property
    def side_px(self) -> int:
        """The side of the photos, in pixels."""
        return int(self.shape[1])

    def __getitem__(self, rows: slice | int | npt.ArrayLike) -> PhotoArray:
        """Return the photos at these rows, in this order, uint8 (rows, side, side, 3); for an integer, one photo.

        Raises:
            IndexError: there is no such row.
        """
        wanted: Any = rows if isinstance(rows, slice) else _as_index(rows)
        index, source = np.asarray(self._index[wanted]), np.asarray(self._source[wanted])
        gathered = np.empty((*index.shape, *self.shape[1:]), dtype=np.uint8)
        for number in np.unique(source):
            chosen = source == number
            gathered[chosen] = self._photos[number][index[chosen]]
        return gathered


def _checked(indices: npt.ArrayLike, photos: int) -> IndexArray:
    rows = _as_index(indices)
    if not np.issubdtype(rows.dtype, np.integer) or rows.ndim != 1:
        raise IndexError(f"selected rows are integers of shape (m,), not {rows.dtype} {rows.shape}")
    # A negative index would count from the end and might select a photo of another split.
    if rows.size and not (rows.min() >= 0 and rows.max() < photos):
        raise IndexError(f"selected rows range from {rows.min()} to {rows.max()}, but there are {photos} photos")
    return rows.astype(np.intp)


def _as_index(rows: Any) -> Array:
    """Return the rows as an array; NumPy makes an empty list one of floats, which cannot index."""
    index = np.asarray(rows)
    return index.astype(np.intp) if index.size == 0 and index.dtype == np.float64 else index
