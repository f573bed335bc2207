"""Search for good splits of groups: exhaustively for a few of them, locally for many.

With n groups there are 2**n sets that could become val or test. Those of an allowed size are sorted by a lower bound
of the largest share difference, so that most pairs of them are never examined (branch and bound).

Many groups are stratified iteratively (Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification of multi-label
data"). The local search then lowers the largest share difference by moving and swapping groups, from several starting
points.
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


_CANDIDATES = 12_000
_SIZE_WEIGHT = 0.01  # val and test each 5 points too large cost 0.2 points of largest difference


class LocalSearch:
    """Iterative stratification of groups, then moves and swaps of groups that lower the largest share difference.

    Groups with the same counts are interchangeable, so the search works on the number of groups of each kind in each
    part. Photos split one by one have at most 2**materials kinds, however many photos there are.
    """

    def __init__(
        self,
        sums: IntArray,
        shares: list[float],
        limits: list[tuple[int, int]],
        rng: np.random.Generator,
        fixed: IntArray | None = None,
    ) -> None:
        """Store the problem.

        sums: photos and positives, int64 (groups, 1 + materials). shares, limits: for each part, the wanted share
        of the photos, and the smallest and largest number it may hold. fixed: sums of a further part that no group
        enters or leaves, (1 + materials,), which counts in the differences.
        """
        self.sums, self.shares, self.rng, self.fixed = sums, np.array(shares, dtype=np.float64), rng, fixed
        self.low, self.high = np.array(limits, dtype=np.int64).T
        self.kinds, self.kind_of = np.unique(sums, axis=0, return_inverse=True)
        self.photos = int(sums[:, 0].sum())
        self.wanted = self.shares / self.shares.sum()

    def run(self) -> IndexArray:
        """Return the part of each group, int (groups,), of the best state found from several starting points."""
        start = np.zeros((len(self.kinds), len(self.shares)), np.int64)
        np.add.at(start, (self.kind_of, self._stratify()), 1)
        best, best_energy = self._descend(start)
        for _ in range(40 if len(self.sums) <= 60 else 2):
            state, energy = self._descend(self._shake(best))
            if energy < best_energy - TIE:
                best, best_energy = state, energy
        return self._assign(best)

    def _assign(self, state: IntArray) -> IndexArray:
        """Assign the groups of each kind at random to the parts, in the numbers of `state` (kinds, parts)."""
        side = np.empty(len(self.sums), np.intp)
        shuffled = self.rng.permutation(len(self.sums))
        by_kind = shuffled[np.argsort(self.kind_of[shuffled], kind="stable")]
        parts = np.tile(np.arange(state.shape[1]), len(state))
        side[by_kind] = np.repeat(parts, state.ravel())
        return side

    def _stratify(self) -> IndexArray:
        """Stratify iteratively: take the rarest material first and give its groups to the part that lacks it most."""
        side = np.full(len(self.sums), -1, np.intp)
        room = self.high.tolist()
        lacking = np.outer(self.wanted, self.sums.sum(axis=0)).T.tolist()  # (1 + materials, parts)
        order = self.rng.permutation(len(self.sums))
        order = order[np.argsort(-self.sums[order, 0], kind="stable")]  # large groups are the hardest to place
        left = order
        while len(left):
            remaining = self.sums[left, 1:].sum(axis=0)
            column = 1 + int(np.where(remaining > 0, remaining, np.iinfo(np.int64).max).argmin())
            chosen = left[self.sums[left, column] > 0] if remaining.any() else left
            if not remaining.any():
                column = 0
            for group in chosen.tolist():
                side[group] = self._neediest(self.sums[group].tolist(), column, lacking, room)
            left = left[side[left] < 0]
        return side

    @staticmethod
    def _neediest(group: list[int], column: int, lacking: list[list[float]], room: list[int]) -> int:
        """Return the part that lacks most of the material, then of photos, and deduct the group from its needs."""
        fits = [p for p in range(len(room)) if room[p] >= group[0]] or [int(np.argmax(room))]
        part = max(fits, key=lambda p: (lacking[column][p], lacking[0][p]))
        room[part] -= group[0]
        for row, amount in zip(lacking, group, strict=True):
            row[part] -= amount
        return part

    def _shake(self, state: IntArray) -> IntArray:
        """Return a copy with about a tenth of the groups moved to random parts."""
        shaken = state.copy()
        moves = max(2, len(self.sums) // 10) if len(self.sums) <= 5_000 else 50
        for _ in range(moves):
            filled = np.searchsorted(shaken.cumsum(), self.rng.integers(shaken.sum()), side="right")
            kind, source = divmod(int(filled), shaken.shape[1])  # drawn in proportion to the groups there
            shaken[kind, source] -= 1
            shaken[kind, self.rng.integers(state.shape[1])] += 1
        return shaken

    def _descend(self, state: IntArray, steps: int = 1_000, patience: int = 10) -> tuple[IntArray, float]:
        """Apply the best candidate as long as it lowers the energy; returns the state and its energy."""
        state = state.copy()
        parts: IntArray = state.T @ self.kinds
        energy = float(self._energy(parts[None])[0])
        idle = 0
        for _ in range(steps):
            changes, exhaustive = self._candidates(state)
            if not len(changes):
                break
            energies = self._energy(parts[None] + self._effects(changes, len(parts)))
            best = int(energies.argmin())
            if energies[best] < energy - TIE:
                kind_a, source, kind_b, target = changes[best]
                _apply(state, kind_a, source, target)
                if kind_b >= 0:
                    _apply(state, kind_b, target, source)
                parts, energy, idle = state.T @ self.kinds, float(energies[best]), 0
                continue
            idle += 1
            if exhaustive or idle >= patience:
                break
        return state, energy

    def _candidates(self, state: IntArray) -> tuple[IntArray, bool]:
        """Return changes to try, (candidates, 4), and whether they are all possible ones.

        Moves are (kind, source, -1, target), swaps (kind, source, other kind, target).
        """
        kind, source = np.nonzero(state)
        parts = state.shape[1]
        moves = [np.column_stack([kind, source, np.full(len(kind), -1), np.full(len(kind), t)]) for t in range(parts)]
        every_move = np.concatenate(moves)
        every_move = every_move[every_move[:, 1] != every_move[:, 3]]
        whole = len(kind) ** 2 <= _CANDIDATES
        if whole:
            a, b = (grid.ravel() for grid in np.indices((len(kind), len(kind))))
        else:
            a, b = self.rng.integers(len(kind), size=(2, _CANDIDATES))
        if len(every_move) > _CANDIDATES:
            every_move = every_move[self.rng.choice(len(every_move), _CANDIDATES, replace=False)]
        keep = (source[a] < source[b]) & (kind[a] != kind[b])
        if not whole:
            keep = (source[a] != source[b]) & (kind[a] != kind[b])
        swaps = np.column_stack([kind[a], source[a], kind[b], source[b]])[keep]
        return np.concatenate([every_move, swaps]), whole

    def _effects(self, changes: IntArray, parts: int) -> IntArray:
        """Return the change of the parts' sums by each candidate, int64 (candidates, parts, 1 + materials)."""
        kind_a, source, kind_b, target = changes.T
        net = self.kinds[kind_a] - np.where(kind_b[:, None] >= 0, self.kinds[kind_b], 0)
        effect = np.zeros((len(changes), parts, self.kinds.shape[1]), np.int64)
        rows = np.arange(len(changes))
        effect[rows, source] -= net
        effect[rows, target] += net
        return effect

    def _energy(self, parts: IntArray) -> FloatArray:
        """Return the largest share difference, plus large penalties for sizes out of bounds and missing materials.

        parts: (states, parts, 1 + materials) → (states,).
        """
        size = parts[..., 0]
        outside = np.maximum(self.low - size, 0) + np.maximum(size - self.high, 0)
        missing = (parts[..., 1:] < 1).sum(axis=(1, 2))
        if self.fixed is not None:
            fixed = np.broadcast_to(self.fixed, (len(parts), 1, parts.shape[2]))
            parts = np.concatenate([parts, fixed], axis=1)
        difference = largest_difference(parts)
        # A small weight on the mean difference leads across plateaus of the largest one.
        shares = parts[..., 1:] / np.maximum(parts[..., :1], 1)
        mean = np.ptp(shares, axis=1).mean(axis=-1)
        off = np.abs(size / self.photos - self.wanted).sum(axis=1)
        broken = 1e3 * outside.sum(axis=1) / self.photos + 10.0 * missing
        energy: FloatArray = broken + difference + 1e-3 * mean + _SIZE_WEIGHT * off
        return energy


def _apply(state: IntArray, kind: int, source: int, target: int) -> None:
    state[kind, source] -= 1
    state[kind, target] += 1
