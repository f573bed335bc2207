"""Near-duplicate photos: the same picture shot twice, saved again, cropped a little, turned or mirrored.

Perceptual hashing (pHash; Zauner 2010, "Implementation and benchmarking of perceptual image hash
functions"): the 8 x 8 lowest frequencies of the grey photo, each one bit, set where it is above their median.
Of TACO's 1,156 photos at hand four pairs come within 6 bits, and two of them are false: a bright thing in the
middle of a dark ground, whatever the thing. Comparing small colour pictures of the pairs tells them apart
(correlations 1.00 and 0.996 against 0.75 at most, and 0.84 up to 14 bits), so a pair needs both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Hashes = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

ORIENTATIONS = 8  # four rotations, each also mirrored
NEAR_DUPLICATE_BITS = 6  # of 64; finds 97 % of TACO's photos made 30 % brighter, 90 % cropped by 2 % a side
NEAR_DUPLICATE_CORRELATION = 0.9  # of colour thumbnails; the same crops stay above 0.91 in 99 of 100 photos

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
_SAMPLES = 32  # the photo is averaged to 32 x 32 ...
_FREQUENCIES = 8  # ... and its 8 x 8 lowest frequencies kept
_FLAT_GREY_LEVELS = 2.0  # less contrast than this in the kept frequencies is noise
_WORD_BITS = 16
_JOINED_AT_ONCE = 4_000_000


def perceptual_hashes(photos: npt.NDArray[np.uint8], chunk_photos: int = 256) -> Hashes:
    """64-bit perceptual hashes of each photo in its 8 orientations.

    Turning or mirroring a photo transposes its frequencies and flips signs of the odd ones, so all 8 come
    from one cosine transform. A nearly flat photo (a contrast below 2 grey levels) has no picture to
    compare: its hash is a digest of its pixels, so that only pixelwise equal ones are near-duplicates.

    Args:
        photos: uint8 0-255 RGB, (photos, side, side, 3), side 8 or more; a memory map is read in chunks.
        chunk_photos: photos in memory at once.

    Returns:
        uint64 (photos, 8); the first column is the photo as it is.
    """
    transform = _area_cosine(photos.shape[1])
    hashes = np.empty((len(photos), ORIENTATIONS), np.uint64)
    for start in range(0, len(photos), chunk_photos):
        chunk = np.asarray(photos[start : start + chunk_photos])
        frequencies = transform @ (chunk @ _GREY) @ transform.T
        rows = slice(start, start + len(chunk))
        for k, turned in enumerate(_orientations(frequencies)):
            hashes[rows, k] = _bits(turned)
        for i in np.flatnonzero(_contrast(frequencies) < _FLAT_GREY_LEVELS):
            digest = hashlib.blake2b(chunk[i].tobytes(), digest_size=8).digest()
            hashes[start + i] = np.frombuffer(digest, np.uint64)[0]
    return hashes


def near_duplicate_pairs(hashes: Hashes, max_distance: int = NEAR_DUPLICATE_BITS) -> IntArray:
    """All pairs of photos whose hashes differ in few bits, in any orientation.

    Exact: split into four words of 16 bits, two hashes at most d bits apart have a word at most d // 4
    bits apart, so only photos that share such a word are compared (multi-index hashing; Norouzi, Punjani &
    Fleet 2012).

    Args:
        hashes: uint64 (photos, 8), from perceptual_hashes.
        max_distance: bits that may differ, 0 to 15.

    Returns:
        int64 (pairs, 2), i < j, sorted.
    """
    if not 0 <= max_distance < 2 * _FREQUENCIES:
        raise ValueError(f"max_distance={max_distance} is outside 0 to 15 bits")
    found = [np.empty(0, np.int64)]
    flips = _flips(max_distance // 4)
    for word in range(4):
        for i, j in _sharing_word(hashes, word, flips):
            near = np.bitwise_count(hashes[i, 0] ^ hashes.ravel()[j]) <= max_distance
            a, b = i[near], j[near] // ORIENTATIONS
            low, high = np.minimum(a, b), np.maximum(a, b)
            found.append(np.unique((low * len(hashes) + high)[low < high]))
    codes = np.unique(np.concatenate(found))
    return np.column_stack(np.divmod(codes, max(1, len(hashes))))


def confirmed_pairs(
    photos: npt.NDArray[np.uint8],
    pairs: IntArray,
    min_correlation: float = NEAR_DUPLICATE_CORRELATION,
    chunk_pairs: int = 512,
) -> IntArray:
    """Of these pairs, those whose 16 x 16 colour thumbnails correlate, in the best of 8 orientations.

    The correlation is over all pixels and channels, each channel less its mean. Pixelwise equal photos are
    confirmed whatever they show, flat ones only if equal.

    photos: uint8 (photos, side, side, 3). pairs: int64 (pairs, 2). Returns the rows of `pairs` that hold.
    """
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), chunk_pairs):
        chunk = pairs[start : start + chunk_pairs]
        first, second = (np.asarray(photos[chunk[:, side]]) for side in (0, 1))
        equal = (first == second).all(axis=(1, 2, 3))
        correlation = _thumbnail_correlation(area_average(first, 16), area_average(second, 16))
        kept.append(chunk[equal | (correlation >= min_correlation)])
    return np.concatenate(kept)


def pair_likeness(
    photos: npt.NDArray[np.uint8], pairs: IntArray, chunk_pairs: int = 512
) -> tuple[IntArray, FloatArray]:
    """How alike pairs of photos are: what the two rules of near-duplicates look at.

    photos: uint8 (photos, side, side, 3). pairs: int64 (pairs, 2). Returns the bits in which their hashes differ, in
    the best of 8 orientations, int64 (pairs,), and the correlation of their 16 x 16 colour thumbnails, (pairs,).
    """
    bits, correlations = [np.empty(0, np.int64)], [np.empty(0)]
    for start in range(0, len(pairs), chunk_pairs):
        first, second = (np.asarray(photos[pairs[start : start + chunk_pairs, side]]) for side in (0, 1))
        turned = np.bitwise_count(perceptual_hashes(first)[:, :1] ^ perceptual_hashes(second))
        bits.append(turned.min(axis=1).astype(np.int64))
        correlations.append(_thumbnail_correlation(area_average(first, 16), area_average(second, 16)))
    return np.concatenate(bits), np.concatenate(correlations)


def area_average(photos: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.float32]:
    """Photos (photos, s, s, 3) shrunk by area averaging, float32 0-255 (photos, side, side, 3)."""
    n, size = photos.shape[:2]
    area = _area_matrix(size, side).astype(np.float32)
    rows = area @ photos.reshape(n, size, size * 3).astype(np.float32)
    shrunk: npt.NDArray[np.float32] = area @ rows.reshape(n * side, size, 3)
    return shrunk.reshape(n, side, side, 3)


def connected_groups(n: int, pairs: IntArray) -> IntArray:
    """Join photos that pairs connect, directly or through others.

    n: number of photos. pairs: int64 (pairs, 2). Returns the smallest member of each photo's group, (n,).
    """
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = connected_components(links, directed=False)
    _, first = np.unique(component, return_index=True)
    smallest: IntArray = first.astype(np.int64)[component]
    return smallest


def _area_cosine(side: int) -> FloatArray:
    """Area averaging to 32 samples, then the 8 lowest cosines (orthonormal DCT-II), float64 (8, side)."""
    k, x = np.arange(_FREQUENCIES)[:, None], np.arange(_SAMPLES)
    cosine = np.cos(np.pi * k * (2 * x + 1) / (2 * _SAMPLES)) * np.sqrt(2 / _SAMPLES)
    cosine[0] /= np.sqrt(2)
    matrix: FloatArray = cosine @ _area_matrix(side, _SAMPLES)
    return matrix


def _area_matrix(side: int, samples: int) -> FloatArray:
    """Share of each pixel in each sample of an area average, float64 (samples, side); rows add up to 1."""
    edges = np.linspace(0, side, samples + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    matrix: FloatArray = np.clip(covered, 0, None) * samples / side
    return matrix


def _thumbnail_correlation(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> FloatArray:
    """Correlation of thumbnails (pairs, 16, 16, 3) in the orientation that suits them best, (pairs,)."""
    a, b = (t - t.mean(axis=(1, 2), keepdims=True, dtype=np.float64) for t in (first, second))
    scale = np.sqrt(np.square(a).sum(axis=(1, 2, 3)) * np.square(b).sum(axis=(1, 2, 3)))
    best = np.full(len(a), -np.inf)
    for mirrored in (b, b[:, :, ::-1]):
        for quarter in range(4):
            product = (a * np.rot90(mirrored, quarter, axes=(1, 2))).sum(axis=(1, 2, 3))
            best = np.maximum(best, product)
    correlation: FloatArray = best / np.maximum(scale, 1e-9)
    return correlation


def _orientations(frequencies: FloatArray) -> Iterator[FloatArray]:
    """The frequencies (photos, 8, 8) of the photo mirrored and transposed in all 8 ways, itself first."""
    odd = np.where(np.arange(_FREQUENCIES) % 2, -1.0, 1.0)
    for turned in (frequencies, frequencies.swapaxes(1, 2)):
        for rows in (np.ones(_FREQUENCIES), odd):
            for columns in (np.ones(_FREQUENCIES), odd):
                yield turned * rows[:, None] * columns


def _bits(frequencies: FloatArray) -> Hashes:
    """One bit a frequency: above the median of all but the mean, (photos, 8, 8) → uint64 (photos,)."""
    flat = frequencies.reshape(len(frequencies), -1)
    median = np.median(flat[:, 1:], axis=1, keepdims=True)  # the first is the photo's brightness
    packed = np.packbits(flat > median, axis=1)
    return packed.view(np.uint64)[:, 0]


def _contrast(frequencies: FloatArray) -> FloatArray:
    """Standard deviation, in grey levels, of the picture the kept frequencies draw; (photos,)."""
    energy = np.square(frequencies).sum(axis=(1, 2)) - np.square(frequencies[:, 0, 0])
    level: FloatArray = np.sqrt(np.maximum(energy, 0)) / _SAMPLES
    return level


def _flips(radius: int) -> npt.NDArray[np.uint16]:
    """All 16-bit words with at most `radius` bits set."""
    words = np.arange(1 << _WORD_BITS, dtype=np.uint16)
    return words[np.bitwise_count(words) <= radius]


def _sharing_word(hashes: Hashes, word: int, flips: npt.NDArray[np.uint16]) -> Iterator[tuple[IntArray, IntArray]]:
    """Photos i and flat positions j in `hashes` whose words differ by one of `flips`, in blocks."""
    plain = _word(hashes[:, 0], word)
    turned = _word(hashes.ravel(), word)
    by_word = np.argsort(plain, kind="stable")
    per_word = np.bincount(plain, minlength=1 << _WORD_BITS)
    first = np.cumsum(per_word) - per_word
    for flip in flips:
        wanted = turned ^ flip
        sizes = per_word[wanted]
        asking = np.flatnonzero(sizes)
        ends = np.cumsum(sizes[asking])
        pairs = int(ends[-1]) if len(ends) else 0
        cuts = np.searchsorted(ends, np.arange(_JOINED_AT_ONCE, pairs, _JOINED_AT_ONCE))
        for block in np.split(asking, cuts):
            size, start = sizes[block], first[wanted[block]]
            within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            yield by_word[np.repeat(start, size) + within], np.repeat(block, size)


def _word(hashes: Hashes, word: int) -> npt.NDArray[np.uint16]:
    shifted = hashes >> np.uint64(word * _WORD_BITS)
    return (shifted & np.uint64(0xFFFF)).astype(np.uint16)
