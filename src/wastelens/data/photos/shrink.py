"""Shrink photos by averaging: to any side, or by a whole factor."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wastelens.data.photos.decode import square
from wastelens.system.arrays import Float32Array, FloatArray, PhotoArray
from wastelens.system.files import reserve

if TYPE_CHECKING:
    from wastelens.data.batches.photo_rows import PhotoRows

_PHOTOS_AT_ONCE = 256
_PIXELS_AT_ONCE = 1 << 22  # 13 MB of uint8, 100 MB of float64


def chunks(photos: int, side_px: int) -> Iterator[slice]:
    """Yield slices of a number of photos that can be computed with in little memory, whatever their side."""
    at_once = min(max(1, _PIXELS_AT_ONCE // side_px**2), _PHOTOS_AT_ONCE)
    for start in range(0, photos, at_once):
        yield slice(start, min(start + at_once, photos))


def area_average(photos: PhotoArray, side: int) -> Float32Array:
    """Shrink photos (photos, s, s, 3) to any side by area averaging; returns float32 0–255 (photos, side, side, 3)."""
    n, size = photos.shape[:2]
    area = area_matrix(size, side).astype(np.float32)
    shrunk = np.empty((n, side, side, 3), dtype=np.float32)
    for chunk in chunks(n, size):
        rows = area @ photos[chunk].reshape(-1, size, size * 3).astype(np.float32)
        shrunk[chunk] = (area @ rows.reshape(-1, size, 3)).reshape(-1, side, side, 3)
    return shrunk


def area_matrix(side: int, samples: int) -> FloatArray:
    """Return each pixel's weight in each sample of an area average, float64 (samples, side); rows sum to 1.

    A pixel counts by the share of it that the sample's area covers.
    """
    edges = np.linspace(0, side, samples + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    matrix: FloatArray = np.clip(covered, 0, None) * samples / side
    return matrix


def shrink_factor(image_side_px: int, side_px: int) -> int:
    """Return the largest whole factor that leaves at least ``side_px``; 1 if photos are already that small."""
    return max(1, image_side_px // side_px)


def shrunk_side(image_side_px: int, side_px: int) -> int:
    """Return the side of the shrunk photos, in pixels; pixels that do not fill a last block are dropped."""
    return image_side_px // shrink_factor(image_side_px, side_px)


def shrink(photos: PhotoArray, side_px: int) -> PhotoArray:
    """Average each block of ``shrink_factor`` × ``shrink_factor`` pixels to one, rounded; uint8 (n, side, side, 3)."""
    factor, side = shrink_factor(photos.shape[1], side_px), shrunk_side(photos.shape[1], side_px)
    blocks = photos[:, : side * factor, : side * factor].reshape(len(photos), side, factor, side, factor, 3)
    sums = blocks.sum(axis=(2, 4), dtype=np.uint32)
    return np.asarray((sums + factor * factor // 2) // (factor * factor), dtype=np.uint8)


def shrunk_photos(
    photos: PhotoRows, side_px: int, folder: Path, progress: Callable[[int], None] = lambda count: None
) -> PhotoArray:
    """Shrink all photos by :func:`shrink` into an unnamed temporary file.

    Returns:
        The file, memory-mapped, uint8 (n, side, side, 3); it disappears with the process.
    """
    side = shrunk_side(photos.side_px, side_px)
    return _in_file(photos, side, lambda chunk: shrink(chunk, side_px), folder, progress)


def photos_at_side(
    photos: PhotoArray | PhotoRows, side_px: int, folder: Path, progress: Callable[[int], None] = lambda count: None
) -> PhotoArray:
    """Shrink all photos to any side as decoding does, into a file as :func:`shrunk_photos` returns it."""
    return _in_file(photos, side_px, lambda chunk: np.stack([square(one, side_px) for one in chunk]), folder, progress)


def _in_file(
    photos: PhotoArray | PhotoRows,
    side: int,
    shrunk_chunk: Callable[[PhotoArray], PhotoArray],
    folder: Path,
    progress: Callable[[int], None],
) -> PhotoArray:
    """Write the shrunk photos, chunk by chunk, into an unnamed temporary file in a folder."""
    shape = (len(photos), side, side, 3)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.truncate(max(1, int(np.prod(shape))))
        reserve(Path(file.name))
        shrunk = np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
    for chunk in chunks(len(photos), photos.shape[1]):
        shrunk[chunk] = shrunk_chunk(photos[chunk])
        progress(chunk.stop - chunk.start)
    return shrunk
