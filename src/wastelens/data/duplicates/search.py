"""Near-duplicate photos: the same picture shot twice, saved again, cropped a little, turned or mirrored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from wastelens.data.duplicates.correlation import Looks
from wastelens.data.duplicates.perceptual_hash import ORIENTATIONS, Hashes, perceptual_hashes

IntArray = npt.NDArray[np.int64]

NEAR_DUPLICATE_BITS = 6  # of 64; finds 97 % of TACO's photos made 30 % brighter, 90 % cropped by 2 % a side

_MOST_BITS = 15  # with 16, words that differ in four bits would have to be looked for, of which there are too many
_WORD_BITS = 16
_JOINED_AT_ONCE = 4_000_000
_CONFIRMED_AT_ONCE = 2048  # pairs, until it is known which of the others are linked by them
_LISTED_IN_FULL = 16  # photos that are linked to each other


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


def connected_groups(n: int, pairs: IntArray) -> IntArray:
    """Join photos that pairs connect, directly or through others.

    n: number of photos. pairs: int64 (pairs, 2). Returns the smallest member of each photo's group, (n,).
    """
    # Here, as most who need this file join nothing, and SciPy's graphs take 20 MB.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = connected_components(links, directed=False)
    _, first = np.unique(component, return_index=True)
    smallest: IntArray = first.astype(np.int64)[component]
    return smallest


def _flips(radius: int) -> npt.NDArray[np.uint16]:
    """All 16-bit words with at most `radius` bits set."""
    words = np.arange(1 << _WORD_BITS, dtype=np.uint16)
    return words[np.bitwise_count(words) <= radius]


def _near_blocks(hashes: Hashes, max_distance: int, sets: _Sets | None = None) -> Iterator[IntArray]:
    """The pairs of near_duplicate_pairs, int64 (pairs, 2), in blocks, sorted in each; some are in several blocks."""
    if not 0 <= max_distance <= _MOST_BITS:
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
