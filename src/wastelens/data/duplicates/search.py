"""Find near-duplicate photos: the same picture shot twice, saved again, slightly cropped, rotated or mirrored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from wastelens.data.duplicates.correlation import Thumbnails
from wastelens.data.duplicates.perceptual_hash import ORIENTATIONS, Hashes, perceptual_hashes
from wastelens.system.arrays import BoolArray, IntArray, PhotoArray

Words = npt.NDArray[np.uint16]

NEAR_DUPLICATE_BITS = 6  # of 64; finds 97 % of TACO's photos if 30 % brighter, 90 % if cropped by 2 % per side

_MOST_BITS = 15  # with 16, words that differ in four bits would count, which are too many
_WORD_BITS = 16
_CHUNK_CANDIDATES = 4_000_000
_CHUNK_PAIRS = 2048  # confirmed at once; the pairs that they link need no confirmation
_LISTED_IN_FULL = 16  # photos; sets up to this size list every pair


def near_duplicate_pairs(hashes: Hashes, max_distance: int = NEAR_DUPLICATE_BITS) -> IntArray:
    """Return all pairs of photos whose hashes differ in few bits, in any orientation.

    The search is exact. Of the four 16-bit words of two hashes at most d bits apart, one differs in at most d // 4
    bits, so only photos that share such a word are compared (multi-index hashing; Norouzi, Punjani & Fleet 2012).
    The number of pairs grows with the square of the copies of a picture; :func:`near_duplicate_links` lists fewer.

    hashes: uint64 (photos, 8), from perceptual_hashes. max_distance: number of bits that may differ, 0 to 15. Returns
    int64 (pairs, 2), i < j, sorted.
    """
    found = [_encode(pairs, len(hashes)) for pairs in _near_blocks(hashes, max_distance)]
    return _decode(_sorted_unique(np.concatenate([np.empty(0, np.int64), *found])), len(hashes))


def near_duplicate_links(photos: PhotoArray, max_distance: int = NEAR_DUPLICATE_BITS) -> IntArray:
    """Return pairs of near-duplicates that link every photo to its near-duplicates, directly or through others.

    These are all confirmed pairs, except those within a set of more than 16 photos that is already linked. So a
    picture that occurs a thousand times gives a few thousand pairs instead of half a million.

    photos: uint8 0–255 RGB (photos, side, side, 3), side 8 or more; may be a memory map. max_distance: number of bits
    in which the hashes may differ, 0 to 15. Returns int64 (pairs, 2), i < j, sorted.
    """
    if not len(photos):
        return np.empty((0, 2), np.int64)
    thumbnails, sets = Thumbnails(photos), _LinkedSets(len(photos))
    links = [np.empty(0, np.int64)]
    for block in _near_blocks(perceptual_hashes(photos), max_distance, sets):
        waiting = block
        while len(waiting := waiting[~sets.linked(waiting[:, 0], waiting[:, 1])]):
            pairs, waiting = waiting[:_CHUNK_PAIRS], waiting[_CHUNK_PAIRS:]
            confirmed = pairs[thumbnails.near_duplicates(pairs)]
            sets.join(confirmed)
            links.append(_encode(confirmed, len(photos)))
    return _decode(_sorted_unique(np.concatenate(links)), len(photos))


class _LinkedSets:
    """Sets of photos that are linked, directly or through others."""

    def __init__(self, photos: int) -> None:
        self._set = np.arange(photos)  # of each photo: the smallest photo of its set
        self._is_large = np.zeros(photos, np.bool_)  # of each photo: whether its set is not listed in full

    def join(self, pairs: IntArray) -> None:
        """Link pairs of photos, int64 (pairs, 2)."""
        if len(pairs):
            self._set = connected_groups(len(self._set), self._set[pairs])[self._set]
            self._is_large = np.bincount(self._set)[self._set] > _LISTED_IN_FULL

    def linked(self, first: IntArray, second: IntArray) -> BoolArray:
        """Return whether each first photo and its second one are in the same large set."""
        linked: BoolArray = (self._set[first] == self._set[second]) & self._is_large[first]
        return linked

    def linked_to_all(self, photos: IntArray, lists: _WordLists, words: Words) -> BoolArray:
        """Return whether each photo is in the same large set as all photos listed under its word.

        photos: int (photos,). words: uint16 (photos,).
        """
        filled = np.flatnonzero(lists.sizes)
        of_listed = self._set[lists.photos]
        lowest = np.minimum.reduceat(of_listed, lists.starts[filled])
        highest = np.maximum.reduceat(of_listed, lists.starts[filled])
        shared = np.full(len(lists.sizes), -1)
        shared[filled] = np.where(lowest == highest, lowest, -1)
        linked: BoolArray = (shared[words] == self._set[photos]) & self._is_large[photos]
        return linked


class _WordLists:
    """The photos that have each 16-bit word, as concatenated lists.

    words: the word of each photo, uint16 (photos,).
    """

    def __init__(self, words: Words) -> None:
        self.photos = np.argsort(words, kind="stable")
        self.sizes = np.bincount(words, minlength=1 << _WORD_BITS)
        self.starts = np.cumsum(self.sizes) - self.sizes


def connected_groups(n: int, pairs: IntArray) -> IntArray:
    """Join photos that pairs connect, directly or through others.

    n: number of photos. pairs: int64 (pairs, 2). Returns the smallest member of each photo's group, int64 (n,).
    """
    # Imported here because SciPy's graphs take 20 MB and most users of this module join nothing.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = connected_components(links, directed=False)
    _, first = np.unique(component, return_index=True)
    smallest: IntArray = first.astype(np.int64)[component]
    return smallest


def _near_blocks(hashes: Hashes, max_distance: int, sets: _LinkedSets | None = None) -> Iterator[IntArray]:
    """Yield the pairs of near_duplicate_pairs in sorted blocks, int64 (pairs, 2); blocks may share pairs."""
    if not 0 <= max_distance <= _MOST_BITS:
        raise ValueError(f"max_distance={max_distance} is outside 0 to 15 bits")
    radius = max_distance // 4
    words = np.arange(1 << _WORD_BITS, dtype=np.uint16)
    flips = words[np.bitwise_count(words) <= radius]
    for word in range(4):
        for i, j in _sharing_word(hashes, word, flips, sets):
            apart = hashes[i, 0] ^ hashes.ravel()[j]
            near = np.flatnonzero(np.bitwise_count(apart) <= max_distance)
            for earlier in range(word):  # already found by an earlier word
                near = near[np.bitwise_count(_word(apart[near], earlier)) > radius]
            a, b = i[near], j[near] // ORIENTATIONS
            pairs = np.column_stack([np.minimum(a, b), np.maximum(a, b)])[a != b]
            yield _decode(_sorted_unique(_encode(pairs, len(hashes))), len(hashes))


def _encode(pairs: IntArray, photos: int) -> IntArray:
    """Encode each pair as one number; numbers sort as the pairs do."""
    codes: IntArray = pairs[:, 0] * photos + pairs[:, 1]
    return codes


def _sorted_unique(codes: IntArray) -> IntArray:
    """Sort and drop repeats; ``numpy.unique`` hashes, which takes ten times as long on millions of numbers."""
    ordered = np.sort(codes)
    once: IntArray = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return once


def _decode(codes: IntArray, photos: int) -> IntArray:
    """Undo ``_encode``: int64 (pairs, 2)."""
    return np.column_stack(np.divmod(codes, max(1, photos)))


def _sharing_word(
    hashes: Hashes, word: int, flips: Words, sets: _LinkedSets | None
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield blocks of photos i and flat positions j in `hashes` whose words differ by one of `flips`.

    A block skips much of what `sets` has linked by then.
    """
    turned = _word(hashes.ravel(), word)
    lists = _WordLists(_word(hashes[:, 0], word))
    for flip in flips:
        wanted = turned ^ flip
        asking = np.flatnonzero(lists.sizes[wanted])
        ends = np.cumsum(lists.sizes[wanted[asking]])
        cuts = np.searchsorted(ends, np.arange(_CHUNK_CANDIDATES, ends[-1] if len(ends) else 0, _CHUNK_CANDIDATES))
        for part in np.split(asking, cuts):
            block = part if sets is None else part[~sets.linked_to_all(part // ORIENTATIONS, lists, wanted[part])]
            sizes, starts = lists.sizes[wanted[block]], lists.starts[wanted[block]]
            within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            yield lists.photos[np.repeat(starts, sizes) + within], np.repeat(block, sizes)


def _word(hashes: Hashes, word: int) -> Words:
    shifted = hashes >> np.uint64(word * _WORD_BITS)
    return (shifted & np.uint64(0xFFFF)).astype(np.uint16)
