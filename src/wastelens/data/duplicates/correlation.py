"""Correlation of colour thumbnails: tells near-duplicates from photos whose perceptual hashes match by chance.

Among 1,156 photos of TACO, four pairs come within 6 bits of each other, and two of them are false: both photos show
some bright object in the middle of a dark ground. Small colour thumbnails tell them apart: true pairs correlate at
1.00 and 0.996, false ones at 0.75 at most (0.84 for pairs up to 14 bits apart). So a pair must pass both tests.
"""

from __future__ import annotations

import hashlib

import numpy as np

from wastelens.data.duplicates.perceptual_hash import ORIENTATIONS, Hashes, perceptual_hashes
from wastelens.data.photos.shrink import area_average, chunks
from wastelens.system.arrays import BoolArray, Float32Array, FloatArray, IntArray, PhotoArray

NEAR_DUPLICATE_CORRELATION = 0.9  # cropped by 2 % per side, 99 of 100 photos stay above 0.91

_THUMBNAIL_PX = 16
_CHUNK_PAIRS = 512


class Thumbnails:
    """A 16 × 16 colour thumbnail and a digest of each photo, computed once, on first use.

    Args:
        photos: uint8 0–255 RGB (photos, side, side, 3); may be a memory map.
    """

    def __init__(self, photos: PhotoArray) -> None:
        self._photos = photos
        self._row = np.full(len(photos), -1, np.int64)  # each photo's row in the arrays below; -1: not computed yet
        self._thumbnails = np.empty((0, _THUMBNAIL_PX, _THUMBNAIL_PX, 3), np.float32)
        self._digests = np.empty(0, "U32")

    def near_duplicates(self, pairs: IntArray) -> BoolArray:
        """Return whether each pair's thumbnails correlate at 0.9 or more, or its photos are equal pixel by pixel."""
        correlated = self.correlation(pairs) >= NEAR_DUPLICATE_CORRELATION
        first, second = self._digests[self._row[pairs.T]]
        same: BoolArray = correlated | (first == second)
        return same

    def correlation(self, pairs: IntArray) -> FloatArray:
        """Return the correlation of each pair's thumbnails over all pixels and channels, each channel less its mean.

        pairs: int64 (pairs, 2). Returns float64 (pairs,), for the best of 8 orientations.
        """
        self._compute(np.unique(pairs))
        found = [np.empty(0)]
        for start in range(0, len(pairs), _CHUNK_PAIRS):
            chunk = pairs[start : start + _CHUNK_PAIRS]
            a, b = self._thumbnails[self._row[chunk.T]]
            turned = (np.rot90(b[:, :, ::step], quarter, axes=(1, 2)) for step in (1, -1) for quarter in range(4))
            found.append(np.max([np.einsum("pijc,pijc->p", a, one) for one in turned], axis=0).astype(np.float64))
        return np.concatenate(found)

    def _compute(self, which: IntArray) -> None:
        new = which[self._row[which] < 0]
        thumbnails, digests = [self._thumbnails], [self._digests]
        for rows in chunks(len(new), self._photos.shape[1]):
            chunk = np.asarray(self._photos[new[rows]])
            thumbnails.append(_normalised_thumbnails(chunk))
            digests.append(np.array([hashlib.blake2b(photo.data, digest_size=16).hexdigest() for photo in chunk]))
        self._row[new] = len(self._thumbnails) + np.arange(len(new))
        self._thumbnails, self._digests = np.concatenate(thumbnails), np.concatenate(digests)


def confirmed_pairs(photos: PhotoArray, pairs: IntArray) -> IntArray:
    """Return those of the pairs, int64 (pairs, 2), that :meth:`Thumbnails.near_duplicates` confirms."""
    confirmed: IntArray = pairs[Thumbnails(photos).near_duplicates(pairs)]
    return confirmed


def pair_similarity(photos: PhotoArray, pairs: IntArray) -> tuple[IntArray, FloatArray]:
    """Return how similar pairs of photos are by the two measures that define near-duplicates.

    photos: uint8 (photos, side, side, 3). pairs: int64 (pairs, 2). Returns the number of bits in which their hashes
    differ, for the best of 8 orientations of either, int64 (pairs,), and the correlation of their 16 × 16 colour
    thumbnails, float64 (pairs,).
    """
    used, place = np.unique(pairs, return_inverse=True)
    parts = [perceptual_hashes(photos[used[rows]]) for rows in chunks(len(used), photos.shape[1])]
    hashes = [np.empty((0, ORIENTATIONS), np.uint64), *parts]
    first, second = np.concatenate(hashes)[place.reshape(-1, 2).T]
    bits = np.minimum(_bits_apart(first, second), _bits_apart(second, first))
    return bits, Thumbnails(photos).correlation(pairs)


def _bits_apart(plain: Hashes, turned: Hashes) -> IntArray:
    """Count differing bits between the first, unturned, and the best orientation of the second; both (pairs, 8)."""
    bits: IntArray = np.bitwise_count(plain[:, :1] ^ turned).min(axis=1).astype(np.int64)
    return bits


def _normalised_thumbnails(photos: PhotoArray) -> Float32Array:
    """Return thumbnails (photos, 16, 16, 3) whose dot product is their correlation; all zeros for flat photos."""
    small = area_average(photos, _THUMBNAIL_PX).astype(np.float64)
    small -= small.mean(axis=(1, 2), keepdims=True)
    lengths = np.sqrt(np.square(small).sum(axis=(1, 2, 3), keepdims=True))
    normalised: Float32Array = (small / np.maximum(lengths, 1e-9)).astype(np.float32)
    return normalised
