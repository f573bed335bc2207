"""Chosen photos of several memory-mapped arrays as one, and batches of them: what is learnt from without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config.networks import NoiseConfig
from wastelens.data.batches.noise import add_noise
from wastelens.system.prefetch import prepared_ahead

Photos = npt.NDArray[np.uint8]


class PhotoRows:
    """Chosen rows of one or more arrays of photos, one behind the other; only rows that are asked for are read.

    It stands where an array of photos can: ``len``, ``shape``, and indexing along the photos as NumPy does it. What
    it gives is always a copy. It holds two numbers a photo, and no pixels.
    """

    def __init__(self, sources: Sequence[tuple[Photos | PhotoRows, npt.ArrayLike]]) -> None:
        """Store what is chosen.

        Args:
            sources: arrays of photos, uint8 (n, side, side, 3) with one side for all, memory-mapped or not, or other
                PhotoRows; each with the indices of the chosen rows, integers (m,) from 0 to n − 1, in any order,
                repeats allowed.

        Raises:
            ValueError: there is no source, or they are not arrays of photos of one size.
            IndexError: indices that are no integers, or that are outside their array.
        """
        if not sources:
            raise ValueError("photo rows need at least one array of photos")
        self._photos = [photos for photos, _ in sources]
        for photos in self._photos:
            if photos.dtype != np.uint8 or len(photos.shape) != 4 or photos.shape[1:] != self._photos[0].shape[1:]:
                raise ValueError(f"photos are uint8 (n, side, side, 3) of one side, not {photos.dtype} {photos.shape}")
        indices = [_checked(chosen, len(photos)) for photos, chosen in sources]
        self._index = np.concatenate(indices)
        self._source = np.repeat(np.arange(len(indices)), [len(chosen) for chosen in indices])

    def __len__(self) -> int:
        return len(self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        """(photos, side, side, 3)."""
        return (len(self), *self._photos[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Always uint8."""
        return np.dtype(np.uint8)

    @property
    def side_px(self) -> int:
        """The side of the photos, in pixels."""
        return int(self.shape[1])

    def __getitem__(self, rows: slice | int | npt.ArrayLike) -> Photos:
        """The photos at these rows, in this order, uint8 (rows, side, side, 3); a single one for an integer.

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


def _checked(indices: npt.ArrayLike, photos: int) -> npt.NDArray[np.intp]:
    rows = _as_index(indices)
    if not np.issubdtype(rows.dtype, np.integer) or rows.ndim != 1:
        raise IndexError(f"chosen rows are integers of shape (m,), not {rows.dtype} {rows.shape}")
    # A negative one would be a photo from the end: of another split, perhaps.
    if rows.size and not (rows.min() >= 0 and rows.max() < photos):
        raise IndexError(f"chosen rows reach from {rows.min()} to {rows.max()}, but there are {photos} photos")
    return rows.astype(np.intp)


def _as_index(rows: Any) -> npt.NDArray[Any]:
    """An empty list is an array of floats to NumPy, which indexes with none."""
    index = np.asarray(rows)
    return index.astype(np.intp) if index.size == 0 and index.dtype == np.float64 else index


class PhotoBatches:
    """Photos in batches, another order and other noise each epoch: pairs of (as shown, as wanted).

    An epoch's batches depend on (seed, epoch) alone, so that a resumed run sees what an undisturbed one would have.
    """

    def __init__(self, photos: PhotoRows, *, batch_size: int, seed: int, noise: NoiseConfig | None = None) -> None:
        self._photos = photos
        self._batch_size = batch_size
        self._seed = seed
        self._noise = noise

    def __len__(self) -> int:
        return (len(self._photos) + self._batch_size - 1) // self._batch_size

    def epoch(self, epoch: int) -> Iterator[tuple[Photos, Photos]]:
        """This epoch's batches: (noisy, clean), each uint8 (batch, side, side, 3); one array where there is no noise.

        Each photo comes once; the last batch is what remains.
        """
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._photos))

        def batch(number: int) -> tuple[Photos, Photos]:
            clean = self._photos[order[number * self._batch_size : (number + 1) * self._batch_size]]
            if self._noise is None:
                return clean, clean
            # From 1: a seed that ends in 0 is the seed without it, which is the order's.
            rng = np.random.default_rng([self._seed, epoch, number + 1])
            return add_noise(clean, self._noise, rng), clean

        return prepared_ahead(batch, len(self))
