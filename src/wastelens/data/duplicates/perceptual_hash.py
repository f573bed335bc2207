"""Perceptual hashes of photos: one bit for each of the 8 × 8 lowest grey frequencies, set if above their median.

This is pHash: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from wastelens.data.photos.shrink import area_matrix, chunks
from wastelens.system.arrays import FloatArray, PhotoArray

Hashes = npt.NDArray[np.uint64]

ORIENTATIONS = 8  # four rotations, each with its mirror image

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
_SAMPLES = 32  # the photo is averaged to 32 × 32 …
_FREQUENCIES = 8  # … and its 8 × 8 lowest frequencies kept
_FLAT_GREY_LEVELS = 2.0  # contrast below this in the kept frequencies is noise


def perceptual_hashes(photos: PhotoArray) -> Hashes:
    """Compute a 64-bit perceptual hash of each photo in each of its 8 orientations.

    Rotating or mirroring a photo transposes its frequencies and flips the signs of the odd ones, so all 8 hashes
    come from one cosine transform. A nearly flat photo (contrast below 2 grey levels) shows nothing to compare: its
    hash is a digest of its pixels, so that only identical flat photos match.

    photos: uint8 0–255 RGB (photos, side, side, 3), side 8 or more; a memory map is read in chunks. Returns uint64
    (photos, 8); the first column is the photo unturned.
    """
    transform = _area_cosine(photos.shape[1])
    hashes = np.empty((len(photos), ORIENTATIONS), np.uint64)
    for rows in chunks(len(photos), photos.shape[1]):
        chunk = np.asarray(photos[rows])
        frequencies = transform @ (chunk @ _GREY) @ transform.T
        for k, turned in enumerate(_orientations(frequencies)):
            hashes[rows, k] = _bits(turned)
        for i in np.flatnonzero(_contrast(frequencies) < _FLAT_GREY_LEVELS):
            digest = hashlib.blake2b(chunk[i].tobytes(), digest_size=8).digest()
            hashes[rows.start + i] = np.frombuffer(digest, np.uint64)[0]
    return hashes


def _area_cosine(side: int) -> FloatArray:
    """Return the matrix that averages to 32 samples and takes their 8 lowest cosines (DCT-II), float64 (8, side)."""
    k, x = np.arange(_FREQUENCIES)[:, None], np.arange(_SAMPLES)
    cosine = np.cos(np.pi * k * (2 * x + 1) / (2 * _SAMPLES)) * np.sqrt(2 / _SAMPLES)
    cosine[0] /= np.sqrt(2)
    matrix: FloatArray = cosine @ area_matrix(side, _SAMPLES)
    return matrix


def _orientations(frequencies: FloatArray) -> Iterator[FloatArray]:
    """Yield the frequencies (photos, 8, 8) of all 8 orientations, the original first."""
    odd = np.where(np.arange(_FREQUENCIES) % 2, -1.0, 1.0)
    for turned in (frequencies, frequencies.swapaxes(1, 2)):
        for rows in (np.ones(_FREQUENCIES), odd):
            for columns in (np.ones(_FREQUENCIES), odd):
                yield turned * rows[:, None] * columns


def _bits(frequencies: FloatArray) -> Hashes:
    """Set one bit per frequency above the median, (photos, 8, 8) → uint64 (photos,)."""
    flat = frequencies.reshape(len(frequencies), -1)
    median = np.median(flat[:, 1:], axis=1, keepdims=True)  # the first is the mean brightness
    packed = np.packbits(flat > median, axis=1)
    return packed.view(np.uint64)[:, 0]


def _contrast(frequencies: FloatArray) -> FloatArray:
    """Return the standard deviation, in grey levels, of the picture the kept frequencies draw; (photos,)."""
    energy = np.square(frequencies).sum(axis=(1, 2)) - np.square(frequencies[:, 0, 0])
    level: FloatArray = np.sqrt(np.maximum(energy, 0)) / _SAMPLES
    return level
