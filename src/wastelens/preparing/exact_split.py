"""The best split of a few groups, by exhaustive search.

With n groups there are 2**n sets that could become val or test. Those of an allowed size are sorted by a lower bound
of the largest share difference, so that most pairs of them are never examined (branch and bound).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wastelens.preparing.group_counts import TIE, GroupCounts, coverage_error, largest_difference, sizes_error
from wastelens.system.arrays import FloatArray, IndexArray, IntArray

_PAIRS_AT_ONCE = 1_000_000
_TIES_KEPT = 100_000


@dataclass(frozen=True)
class _Subsets:
    """Sets of groups that could become one split, the most promising first."""

    mask: IntArray  # bit g is set if the set holds group g, (sets,)
    sums: IntArray  # photos and positives, (sets, 1 + materials)
    bound: FloatArray  # lower bound of the largest share difference of any split with this set, (sets,)

    def upto(self, bound: float) -> _Subsets:
        """Return the sets whose lower bound is at most `bound`."""
        end = int(np.searchsorted(self.bound, bound + TIE, side="right"))
        return _Subsets(self.mask[:end], self.sums[:end], self.bound[:end])


def best_splits(
    counts: GroupCounts, val_limits: tuple[int, int], test_limits: tuple[int, int], rng: np.random.Generator
) -> IndexArray:
    """Return the best split of all groups, int (groups,): 0 for train, 1 for val, 2 for test.

    val_limits, test_limits: smallest and largest number of photos. rng: picks among ties.

    Raises:
        SplitError: no choice of groups has the right sizes, or none has every material in every split.
    """
    every = _subset_sums(counts.sums)
    val = _promising(every, counts.total, val_limits)
    test = _promising(every, counts.total, test_limits)
    if val is None or test is None:
        raise sizes_error(counts, [val_limits, test_limits])
    best = _best_pairs(val, test, counts.total)
    if not len(best):
        size_only = np.concatenate([counts.sums[:, :1]] * 2, axis=1)  # as if every photo showed one material
        fits = [_promising(_subset_sums(size_only), size_only.sum(0), lim) for lim in (val_limits, test_limits)]
        if fits[0] is None or fits[1] is None or not len(_best_pairs(fits[0], fits[1], size_only.sum(0))):
            raise sizes_error(counts, [val_limits, test_limits])
        raise coverage_error(counts)
    val_mask, test_mask = best[rng.integers(len(best))]
    return _side_of(len(counts.names), int(val_mask), int(test_mask))


def best_val(rest: GroupCounts, fixed: IntArray, val_limits: tuple[int, int], rng: np.random.Generator) -> IndexArray:
    """Return the best val for a given test, int (groups,): 0 for train, 1 for val.

    rest: the groups outside test. fixed: photos and positives of test, int64 (1 + materials,). val_limits: smallest
    and largest number of photos. rng: picks among ties.

    Raises:
        SplitError: no choice of groups has the right size, or none has every material in both splits.
    """
    val = _subset_sums(rest.sums)
    train = rest.total - val
    fits = (val[:, 0] >= val_limits[0]) & (val[:, 0] <= val_limits[1]) & (train[:, 0] > 0)
    if not fits.any():
        raise sizes_error(rest, [val_limits])
    usable = np.flatnonzero(fits & (val[:, 1:] >= 1).all(axis=1) & (train[:, 1:] >= 1).all(axis=1))
    if not len(usable):
        raise coverage_error(rest)
    parts = np.stack([train[usable], val[usable], np.broadcast_to(fixed, train[usable].shape)], axis=1)
    difference = largest_difference(parts)
    ties = usable[difference <= difference.min() + TIE]
    return _side_of(len(rest.names), int(ties[rng.integers(len(ties))]), 0)


def _side_of(groups: int, val_mask: int, test_mask: int) -> IndexArray:
    bits = np.arange(groups)
    return np.asarray((val_mask >> bits & 1) + 2 * (test_mask >> bits & 1), dtype=np.intp)


def _subset_sums(sums: IntArray) -> IntArray:
    """Return the sums of every subset of the groups, row b for the subset with bits b: (2**groups, 1 + materials)."""
    every = np.zeros((1, sums.shape[1]), np.int64)
    for group in sums:
        every = np.concatenate([every, every + group])
    return every


def _promising(every: IntArray, total: IntArray, limits: tuple[int, int]) -> _Subsets | None:
    """Return the sets of an allowed size that hold and leave enough of every material; None if no size is allowed."""
    size = every[:, 0]
    # Two splits share the rest, and each must hold a photo, so it has at least two.
    fits = (size >= limits[0]) & (size <= limits[1]) & (size <= total[0] - 2)
    if not fits.any():
        return None
    covered = (every[:, 1:] >= 1).all(axis=1) & (total[1:] - every[:, 1:] >= 2).all(axis=1)
    mask = np.flatnonzero(fits & covered)
    sums = every[mask]
    # The share in the rest lies between those of the two splits it becomes, so the set's distance from it is a
    # lower bound of the largest difference.
    rest = total - sums
    apart = np.abs(sums[:, 1:] / sums[:, :1] - rest[:, 1:] / rest[:, :1]).max(axis=1, initial=0.0)
    order = np.lexsort((mask, apart))
    return _Subsets(mask[order], sums[order], apart[order])


def _best_pairs(val: _Subsets, test: _Subsets, total: IntArray) -> IntArray:
    """Return the masks of val and test of all pairs with the smallest difference, sorted, int64 (ties, 2)."""
    best, ties, kept = math.inf, [np.empty((0, 2), np.int64)], 0
    for pairs, difference in _blocks_of_pairs(val, test, total):
        if not len(pairs):
            continue
        if difference.min() < best - TIE:
            best, ties, kept = float(difference.min()), [], 0
        if kept < _TIES_KEPT:
            ties.append(pairs[difference <= best + TIE])
            kept += len(ties[-1])
        if kept >= _TIES_KEPT and best <= TIE:
            break  # nothing beats no difference
    found = np.concatenate(ties)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def _blocks_of_pairs(val: _Subsets, test: _Subsets, total: IntArray) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield disjoint pairs of sets in blocks, without pairs that cannot match the best one so far."""
    best, start = math.inf, 0
    while start < len(val.mask) and val.bound[start] <= best + TIE:
        test = test.upto(best)
        stop = start + max(1, _PAIRS_AT_ONCE // max(1, len(test.mask)))
        block = _Subsets(val.mask[start:stop], val.sums[start:stop], val.bound[start:stop])
        pairs, difference = _differences(block, test, total, best)
        best = min(best, float(difference.min(initial=math.inf)))
        start = stop
        yield pairs, difference


def _differences(val: _Subsets, test: _Subsets, total: IntArray, best: float) -> tuple[IntArray, FloatArray]:
    """Return the masks and largest share differences of a block's pairs that are disjoint and could be best."""
    i, j = np.nonzero((val.mask[:, None] & test.mask[None, :]) == 0)
    photos = total[0] - val.sums[i, 0] - test.sums[j, 0]
    i, j, photos = i[photos > 0], j[photos > 0], photos[photos > 0]
    difference = np.zeros(len(i))
    for column in range(1, len(total)):  # one material at a time: most pairs are ruled out early
        v, t = val.sums[i, column], test.sums[j, column]
        left = total[column] - v - t
        shares = (v / val.sums[i, 0], t / test.sums[j, 0], left / photos)
        spread = np.maximum(np.maximum(shares[0], shares[1]), shares[2])
        spread -= np.minimum(np.minimum(shares[0], shares[1]), shares[2])
        keep = (left >= 1) & (spread <= best + TIE)
        i, j, photos = i[keep], j[keep], photos[keep]
        difference = np.maximum(difference[keep], spread[keep])
    return np.column_stack([val.mask[i], test.mask[j]]), difference
