"""Photos shrunk by a whole factor, by averaging: what dense networks and Boltzmann machines learn from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wastelens.system.disk import reserve

CHUNK_PHOTOS = 256
Photos = npt.NDArray[np.uint8]


class Rows(Protocol):
    """Photos, uint8 (n, side, side, 3), of which rows can be asked for."""

    @property
    def side_px(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice) -> Photos: ...


def shrink_factor(image_side_px: int, side_px: int) -> int:
    """The largest whole factor that leaves ``side_px`` or a little more; 1 where photos are that small already."""
    return max(1, image_side_px // side_px)


def shrunk_side(image_side_px: int, side_px: int) -> int:
    """The side that photos then have, in pixels; what does not fill a last square is left off."""
    return image_side_px // shrink_factor(image_side_px, side_px)


def shrink(photos: Photos, side_px: int) -> Photos:
    """Photos, uint8 (n, side, side, 3), each square of ``shrink_factor`` pixels averaged to one, rounded."""
    factor, side = shrink_factor(photos.shape[1], side_px), shrunk_side(photos.shape[1], side_px)
    squares = photos[:, : side * factor, : side * factor].reshape(len(photos), side, factor, side, factor, 3)
    sums = squares.sum(axis=(2, 4), dtype=np.uint32)
    return np.asarray((sums + factor * factor // 2) // (factor * factor), dtype=np.uint8)


def shrunk_photos(
    photos: Rows, side_px: int, folder: Path, progress: Callable[[int], None] = lambda count: None
) -> Photos:
    """All photos shrunk, uint8 (n, side, side, 3), mapped from a file without a name that ends with the process."""
    side = shrunk_side(photos.side_px, side_px)
    shape = (len(photos), side, side, 3)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.truncate(max(1, int(np.prod(shape))))
        reserve(Path(file.name))
        shrunk = np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
    for start in range(0, len(photos), CHUNK_PHOTOS):
        chunk = photos[start : start + CHUNK_PHOTOS]
        shrunk[start : start + len(chunk)] = shrink(chunk, side_px)
        progress(len(chunk))
    return shrunk
