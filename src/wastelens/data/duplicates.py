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
_THUMBNAIL_PX = 16
_LOOKED_AT_ONCE = 256  # photos in memory,
_CORRELATED_AT_ONCE = 512  # pairs of thumbnails,
_CONFIRMED_AT_ONCE = 2048  # and pairs until it is known which of the others are linked by them
_LISTED_IN_FULL = 16  # photos that are linked to each other


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
    Fleet 2012). The pairs of one picture that is there over and over grow with its square:
    :func:`near_duplicate_links` does not list them all.

    Args:
        hashes: uint64 (photos, 8), from perceptual_hashes.
        max_distance: bits that may differ, 0 to 15.

    Returns:
        int64 (pairs, 2), i < j, sorted.
    """
    found = [_codes(pairs, len(hashes)) for pairs in _near_blocks(hashes, max_distance)]
    return _pairs_of(_each_once(np.concatenate([np.empty(0, np.int64), *found])), len(hashes))


def near_duplicate_links(photos: npt.NDArray[np.uint8], max_distance: int = NEAR_DUPLICATE_BITS) -> IntArray:
    """Pairs of near-duplicates that link every photo to all that it is a near-duplicate of, directly or by others.

    These are the confirmed ones of all pairs, but for those within a set of more than 16 photos that others link
    already: so a picture that is there a thousand times has some thousand pairs, and not half a million.

    Args:
        photos: uint8 0-255 RGB (photos, side, side, 3), side 8 or more; may be a memory map.
        max_distance: bits in which the hashes may differ, 0 to 15.

    Returns:
        int64 (pairs, 2), i < j, sorted.
    """
    if not len(photos):
        return np.empty((0, 2), np.int64)
    looks, sets = Looks(photos), _Sets(len(photos))
    links = [np.empty(0, np.int64)]
    for block in _near_blocks(perceptual_hashes(photos), max_distance, sets):
        waiting = block
        while len(waiting := waiting[~sets.have_linked(waiting[:, 0], waiting[:, 1])]):
            pairs, waiting = waiting[:_CONFIRMED_AT_ONCE], waiting[_CONFIRMED_AT_ONCE:]
            confirmed = pairs[looks.are_one_picture(pairs)]
            sets.join(confirmed)
            links.append(_codes(confirmed, len(photos)))
    return _pairs_of(_each_once(np.concatenate(links)), len(photos))


class _Sets:
    """Which photos are linked, directly or by others."""

    def __init__(self, photos: int) -> None:
        self._set = np.arange(photos)  # of each photo: the smallest photo in it
        self._is_large = np.zeros(photos, np.bool_)  # of each photo: whether its set is not listed in full

    def join(self, pairs: IntArray) -> None:
        """Link pairs of photos, int64 (pairs, 2)."""
        if len(pairs):
            self._set = connected_groups(len(self._set), self._set[pairs])[self._set]
            self._is_large = np.bincount(self._set)[self._set] > _LISTED_IN_FULL

    def have_linked(self, first: IntArray, second: IntArray) -> npt.NDArray[np.bool_]:
        """Which of these photos are in one large set with those."""
        linked: npt.NDArray[np.bool_] = (self._set[first] == self._set[second]) & self._is_large[first]
        return linked

    def have_linked_all(
        self, photos: IntArray, lists: _WordLists, words: npt.NDArray[np.uint16]
    ) -> npt.NDArray[np.bool_]:
        """Which of these photos are in one large set with all that are listed under its word; words: one a photo."""
        filled = np.flatnonzero(lists.sizes)
        of_listed = self._set[lists.photos]
        lowest = np.minimum.reduceat(of_listed, lists.starts[filled])
        highest = np.maximum.reduceat(of_listed, lists.starts[filled])
        shared = np.full(len(lists.sizes), -1)
        shared[filled] = np.where(lowest == highest, lowest, -1)
        linked: npt.NDArray[np.bool_] = (shared[words] == self._set[photos]) & self._is_large[photos]
        return linked


class _WordLists:
    """The photos that have each word of 16 bits, one list behind the other.

    words: one a photo, uint16 (photos,).
    """

    def __init__(self, words: npt.NDArray[np.uint16]) -> None:
        self.photos = np.argsort(words, kind="stable")
        self.sizes = np.bincount(words, minlength=1 << _WORD_BITS)
        self.starts = np.cumsum(self.sizes) - self.sizes


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


def _normalised_thumbnails(photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Thumbnails (photos, 16, 16, 3) whose products add up to their correlation; all zeros for what is flat."""
    small = area_average(photos, _THUMBNAIL_PX).astype(np.float64)
    small -= small.mean(axis=(1, 2), keepdims=True)
    lengths = np.sqrt(np.square(small).sum(axis=(1, 2, 3), keepdims=True))
    normalised: npt.NDArray[np.float32] = (small / np.maximum(lengths, 1e-9)).astype(np.float32)
    return normalised


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


def _near_blocks(hashes: Hashes, max_distance: int, sets: _Sets | None = None) -> Iterator[IntArray]:
    """The pairs of near_duplicate_pairs, int64 (pairs, 2), in blocks, sorted in each; some are in several blocks."""
    if not 0 <= max_distance < 2 * _FREQUENCIES:
        raise ValueError(f"max_distance={max_distance} is outside 0 to 15 bits")
    radius = max_distance // 4
    for word in range(4):
        for i, j in _sharing_word(hashes, word, _flips(radius), sets):
            apart = hashes[i, 0] ^ hashes.ravel()[j]
            near = np.flatnonzero(np.bitwise_count(apart) <= max_distance)
            for earlier in range(word):  # which has brought these
                near = near[np.bitwise_count(_word(apart[near], earlier)) > radius]
            a, b = i[near], j[near] // ORIENTATIONS
            pairs = np.column_stack([np.minimum(a, b), np.maximum(a, b)])[a != b]
            yield _pairs_of(_each_once(_codes(pairs, len(hashes))), len(hashes))


def _codes(pairs: IntArray, photos: int) -> IntArray:
    """One number a pair, in the pairs' order."""
    codes: IntArray = pairs[:, 0] * photos + pairs[:, 1]
    return codes


def _each_once(codes: IntArray) -> IntArray:
    """Sorted, repeats left out: of millions of numbers ``numpy.unique`` does it by hashing, ten times as slowly."""
    ordered = np.sort(codes)
    once: IntArray = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return once


def _pairs_of(codes: IntArray, photos: int) -> IntArray:
    return np.column_stack(np.divmod(codes, max(1, photos)))


def _sharing_word(
    hashes: Hashes, word: int, flips: npt.NDArray[np.uint16], sets: _Sets | None
) -> Iterator[tuple[IntArray, IntArray]]:
    """Photos i and flat positions j in `hashes` whose words differ by one of `flips`, in blocks.

    Of what sets have linked by the time of a block, much is left out of it.
    """
    turned = _word(hashes.ravel(), word)
    lists = _WordLists(_word(hashes[:, 0], word))
    for flip in flips:
        wanted = turned ^ flip
        asking = np.flatnonzero(lists.sizes[wanted])
        ends = np.cumsum(lists.sizes[wanted[asking]])
        cuts = np.searchsorted(ends, np.arange(_JOINED_AT_ONCE, ends[-1] if len(ends) else 0, _JOINED_AT_ONCE))
        for part in np.split(asking, cuts):
            block = part if sets is None else part[~sets.have_linked_all(part // ORIENTATIONS, lists, wanted[part])]
            sizes, starts = lists.sizes[wanted[block]], lists.starts[wanted[block]]
            within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            yield lists.photos[np.repeat(starts, sizes) + within], np.repeat(block, sizes)


def _word(hashes: Hashes, word: int) -> npt.NDArray[np.uint16]:
    shifted = hashes >> np.uint64(word * _WORD_BITS)
    return (shifted & np.uint64(0xFFFF)).astype(np.uint16)
