"""What photos look like, to tell near-duplicates from photos whose perceptual hashes are alike by chance.

Of TACO's 1,156 photos at hand four pairs come within 6 bits, and two of them are false: a bright thing in the
middle of a dark ground, whatever the thing. Comparing small colour pictures of the pairs tells them apart
(correlations 1.00 and 0.996 against 0.75 at most, and 0.84 up to 14 bits), so a pair needs both.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from wastelens.data.duplicates.perceptual_hash import ORIENTATIONS, Hashes, perceptual_hashes
from wastelens.data.photos.area_average import area_average

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

NEAR_DUPLICATE_CORRELATION = 0.9  # of colour thumbnails; cropped by 2 % a side, 99 of 100 photos stay above 0.91

_THUMBNAIL_PX = 16
_LOOKED_AT_ONCE = 256  # photos in memory,
_CORRELATED_AT_ONCE = 512  # and pairs of thumbnails


class Looks:
    """What photos look like: a colour thumbnail of 16 x 16 and a digest of each, made once, when it is asked for.

    Args:
        photos: uint8 0-255 RGB (photos, side, side, 3); may be a memory map.
    """

    def __init__(self, photos: npt.NDArray[np.uint8]) -> None:
        self._photos = photos
        self._row = np.full(len(photos), -1, np.int64)  # of a photo's thumbnail among those that are made
        self._thumbnails = np.empty((0, _THUMBNAIL_PX, _THUMBNAIL_PX, 3), np.float32)
        self._digests = np.empty(0, "U32")

    def are_one_picture(self, pairs: IntArray) -> npt.NDArray[np.bool_]:
        """Whether thumbnails correlate by 0.9 or more. Photos that are equal are one picture whatever they show.

        pairs: int64 (pairs, 2). Returns bool (pairs,).
        """
        correlated = self.correlation(pairs) >= NEAR_DUPLICATE_CORRELATION
        first, second = self._digests[self._row[pairs.T]]
        same: npt.NDArray[np.bool_] = correlated | (first == second)
        return same

    def correlation(self, pairs: IntArray) -> FloatArray:
        """Correlation of the thumbnails over all pixels and channels, each channel less its mean.

        pairs: int64 (pairs, 2). Returns float64 (pairs,), in the best of 8 orientations.
        """
        self._look_at(np.unique(pairs))
        found = [np.empty(0)]
        for start in range(0, len(pairs), _CORRELATED_AT_ONCE):
            chunk = pairs[start : start + _CORRELATED_AT_ONCE]
            a, b = self._thumbnails[self._row[chunk.T]]
            turned = (np.rot90(b[:, :, ::step], quarter, axes=(1, 2)) for step in (1, -1) for quarter in range(4))
            found.append(np.max([np.einsum("pijc,pijc->p", a, one) for one in turned], axis=0).astype(np.float64))
        return np.concatenate(found)

    def _look_at(self, which: IntArray) -> None:
        new = which[self._row[which] < 0]
        thumbnails, digests = [self._thumbnails], [self._digests]
        for start in range(0, len(new), _LOOKED_AT_ONCE):
            chunk = np.asarray(self._photos[new[start : start + _LOOKED_AT_ONCE]])
            thumbnails.append(_normalised_thumbnails(chunk))
            digests.append(np.array([hashlib.blake2b(photo.data, digest_size=16).hexdigest() for photo in chunk]))
        self._row[new] = len(self._thumbnails) + np.arange(len(new))
        self._thumbnails, self._digests = np.concatenate(thumbnails), np.concatenate(digests)


def confirmed_pairs(photos: npt.NDArray[np.uint8], pairs: IntArray) -> IntArray:
    """Of these pairs, those that are one picture by :meth:`Looks.are_one_picture`.

    photos: uint8 (photos, side, side, 3). pairs: int64 (pairs, 2). Returns the rows of `pairs` that hold.
    """
    confirmed: IntArray = pairs[Looks(photos).are_one_picture(pairs)]
    return confirmed


def pair_likeness(photos: npt.NDArray[np.uint8], pairs: IntArray) -> tuple[IntArray, FloatArray]:
    """How alike pairs of photos are: what the two rules of near-duplicates look at.

    photos: uint8 (photos, side, side, 3). pairs: int64 (pairs, 2). Returns the bits in which their hashes differ, in
    the best of 8 orientations of either, int64 (pairs,), and the correlation of their 16 x 16 colour thumbnails,
    (pairs,).
    """
    used, place = np.unique(pairs, return_inverse=True)
    chunks = [used[start : start + _LOOKED_AT_ONCE] for start in range(0, len(used), _LOOKED_AT_ONCE)]
    hashes = [np.empty((0, ORIENTATIONS), np.uint64), *(perceptual_hashes(photos[chunk]) for chunk in chunks)]
    first, second = np.concatenate(hashes)[place.reshape(-1, 2).T]
    bits = np.minimum(_bits_apart(first, second), _bits_apart(second, first))
    return bits, Looks(photos).correlation(pairs)


def _bits_apart(plain: Hashes, turned: Hashes) -> IntArray:
    """Of the first as they are and the second in the best of their orientations; both (pairs, 8), gives (pairs,)."""
    bits: IntArray = np.bitwise_count(plain[:, :1] ^ turned).min(axis=1).astype(np.int64)
    return bits


def _normalised_thumbnails(photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Thumbnails (photos, 16, 16, 3) whose products add up to their correlation; all zeros for what is flat."""
    small = area_average(photos, _THUMBNAIL_PX).astype(np.float64)
    small -= small.mean(axis=(1, 2), keepdims=True)
    lengths = np.sqrt(np.square(small).sum(axis=(1, 2, 3), keepdims=True))
    normalised: npt.NDArray[np.float32] = (small / np.maximum(lengths, 1e-9)).astype(np.float32)
    return normalised
