"""Training, validation and test splits of whole groups of photos, as alike in their materials as possible.

Photos of one place or day resemble one another, so a group (a batch, a scene) never straddles two splits.
Few groups: every choice of groups is tried, and the best is the best there is. Many groups: iterative
stratification (Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification of multi-label data"), taken
over to whole groups, and a local search on the same objective.

The objective is the *largest share difference*: of a material's share of the photos, the highest less the
lowest of the splits, for the material where that is largest. Groups enter as counts, sorted by name, so
neither the order of the rows nor that of the annotations changes the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wastelens.data.tables import LabelMatrix
from wastelens.errors import SplitError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Method = Literal["exact", "iterative stratification"]

SPLIT_NAMES = ("train", "val", "test")
EXACT_GROUPS = 18  # 2**18 subsets: 15 MB of sums and at most a few seconds
_SIZE_RANGE = (Fraction(4, 5), Fraction(4, 3))  # of a fraction: 12 to 20 % of the photos for 15 %
_FOLD_RANGES = (_SIZE_RANGE, (Fraction(1, 2), Fraction(2)))  # the second where whole groups leave no choice
_TIE = 1e-12  # shares closer than this are the same fraction, rounded differently
_PAIRS_AT_ONCE = 1_000_000
_TIES_KEPT = 100_000
_CANDIDATES = 12_000
_SIZE_WEIGHT = 0.01  # val and test 5 points too large each cost 0.2 points of largest difference
_FINER = "Split by smaller groups (group_by=scene or photo)"


@dataclass(frozen=True)
class SplitFractions:
    """Shares of the photos wanted in each split; they add up to 1.

    Val and test may each hold 4/5 to 4/3 of their fraction, because groups stay whole; train gets the rest.
    """

    train: float = 0.70
    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        """Check the fractions.

        Raises:
            SplitError: a fraction is not above 0, or they do not add up to 1.
        """
        values = (self.train, self.val, self.test)
        if min(values) <= 0 or abs(sum(values) - 1) > 1e-9:
            raise SplitError(
                f"Split fractions train={self.train}, val={self.val}, test={self.test} do not fit: "
                "give three numbers above 0 that add up to 1."
            )


@dataclass(frozen=True)
class SplitAssignment:
    """Which split each photo is in.

    Attributes:
        split: 'train', 'val' or 'test', str, shape (photos,).
        method: 'exact' where every choice of groups was tried.
        largest_share_difference: in [0, 1]; times 100, it is in percentage points.
    """

    split: npt.NDArray[np.str_]
    method: Method
    largest_share_difference: float


@dataclass(frozen=True)
class _Counts:
    """Groups as counts, sorted by name.

    Attributes:
        names: str (groups,).
        row_group: the group of each photo, int (photos,).
        sums: photos, then positives of each material, int64 (groups, 1 + materials).
        materials: names of the materials.
    """

    names: npt.NDArray[np.str_]
    row_group: npt.NDArray[np.intp]
    sums: IntArray
    materials: tuple[str, ...]

    @property
    def total(self) -> IntArray:
        """Photos and positives of all groups together, (1 + materials,)."""
        whole: IntArray = self.sums.sum(axis=0)
        return whole

    @property
    def groups_with(self) -> IntArray:
        """Number of groups that show each material, (materials,)."""
        found: IntArray = (self.sums[:, 1:] > 0).sum(axis=0)
        return found


def assign_splits(
    labels: LabelMatrix,
    groups: npt.NDArray[np.str_],
    materials: tuple[str, ...],
    fractions: SplitFractions,
    rng: np.random.Generator,
) -> SplitAssignment:
    """Split the photos by whole groups, with the smallest largest share difference.

    With at most 18 groups that minimum is exact, and `rng` only picks among choices that tie. Every
    material has a positive in every split.

    Args:
        labels: uint8 of 0 and 1, (photos, materials).
        groups: the group of each photo, str (photos,).
        materials: names of the label columns.
        fractions: shares of the photos wanted.
        rng: picks among ties, and drives the local search where there are many groups.

    Raises:
        SplitError: a material is in too few groups, or the groups are too large for the fractions.
    """
    counts = _count(labels, groups, materials)
    _check_materials(counts, needed=len(SPLIT_NAMES))
    photos = int(counts.total[0])
    limits = [(1, photos), *(_limits(photos, share) for share in (fractions.val, fractions.test))]
    if len(counts.names) <= EXACT_GROUPS:
        return _assignment(counts, _search_all(counts, limits[1], limits[2], rng), "exact")
    wanted = [fractions.train, fractions.val, fractions.test]
    search = _LocalSearch(counts.sums, wanted, limits, rng)
    side = search.run()
    _check_found(counts, side, limits)
    return _assignment(counts, side, "iterative stratification")


def cross_validation_splits(
    labels: LabelMatrix,
    groups: npt.NDArray[np.str_],
    materials: tuple[str, ...],
    fractions: SplitFractions,
    *,
    folds: int,
    rng: np.random.Generator,
) -> list[SplitAssignment]:
    """Splits in which every photo is in test exactly once; val comes from the groups left over.

    The test parts are 1/folds of the photos each (4/5 to 4/3 of that or, where whole groups allow nothing
    better, half to twice), whatever `fractions.test` says. They come from iterative stratification and
    local search; with at most 18 groups left over, the choice of val is the best one for its test part.

    Args:
        labels: uint8 of 0 and 1, (photos, materials).
        groups: the group of each photo, str (photos,).
        materials: names of the label columns.
        fractions: only `val` is used.
        folds: number of splits, 2 or more.
        rng: picks among ties and drives the local search.

    Raises:
        SplitError: no such folds exist; the message names the largest number of folds that does.
    """
    if folds < 2:
        raise SplitError(f"folds={folds} is too few for cross-validation: give 2 or more.")
    counts = _count(labels, groups, materials)
    _check_materials(counts, needed=len(SPLIT_NAMES))
    try:
        sides = _fold_sides(counts, fractions, folds, rng)
    except SplitError as error:
        works = _largest_folds(counts, fractions, folds, rng)
        fix = f" Use folds={works}, which works." if works else ""
        raise SplitError(f"No {folds} folds of whole groups: {error}{fix}") from error
    return [_assignment(counts, side, "iterative stratification") for side in sides]


# --- counting and checking -----------------------------------------------------------------------------


def _count(labels: LabelMatrix, groups: npt.NDArray[np.str_], materials: tuple[str, ...]) -> _Counts:
    if not len(labels):
        raise SplitError("There is no photo to split. Check problems.csv for why all were left out.")
    if labels.shape != (len(groups), len(materials)):
        raise ValueError(f"labels {labels.shape} do not fit {len(groups)} groups, {len(materials)} materials")
    names, row_group = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), 1 + len(materials)), np.int64)
    np.add.at(sums, row_group, np.column_stack([np.ones(len(labels), np.int64), labels != 0]))
    return _Counts(names, row_group, sums, materials)


def _check_materials(counts: _Counts, needed: int) -> None:
    for material, found in zip(counts.materials, counts.groups_with.tolist(), strict=True):
        if found == 0:
            raise SplitError(
                f"No photo shows '{material}'. Map a category that occurs to it, or leave the material out."
            )
        if found < needed:
            raise SplitError(
                f"Material '{material}' is in only {found} group(s) of {len(counts.names)}, and {needed} are "
                f"needed to have it in every split. {_FINER}, or map more categories to '{material}'."
            )


def _limits(photos: int, share: float, allowed: tuple[Fraction, Fraction] = _SIZE_RANGE) -> tuple[int, int]:
    """The fewest and the most photos a split of this share may hold."""
    wanted = Fraction(str(share)) * photos
    low, high = math.ceil(wanted * allowed[0]), math.floor(wanted * allowed[1])
    if low > high or high < 1:  # so few photos that no whole number lies between
        low = high = max(1, round(wanted))
    return max(1, low), high


def _sizes_error(counts: _Counts, limits: list[tuple[int, int]]) -> SplitError:
    photos, biggest = int(counts.total[0]), int(counts.sums[:, 0].argmax())
    wanted = " and ".join(f"{low:,} to {high:,}" for low, high in sorted(set(limits)))
    return SplitError(
        f"Whole groups cannot fill splits of {wanted} photos (the largest of {len(counts.names)} groups, "
        f"'{counts.names[biggest]}', holds {counts.sums[biggest, 0]:,} of {photos:,}). "
        f"{_FINER}, or choose other fractions."
    )


def _coverage_error(counts: _Counts) -> SplitError:
    rarest = int(counts.groups_with.argmin())
    material, found = counts.materials[rarest], counts.groups_with[rarest]
    return SplitError(
        f"No split of {len(counts.names)} whole groups has every material in every part (rarest: "
        f"'{material}', in {found} groups). {_FINER}, or map more categories to '{material}'."
    )


def _check_found(counts: _Counts, side: npt.NDArray[np.intp], limits: list[tuple[int, int]]) -> None:
    """Raise if this choice of a split per group misses the sizes or a material."""
    parts = _part_sums(counts.sums, side, len(limits))
    if any(not low <= size <= high for (low, high), size in zip(limits, parts[:, 0].tolist(), strict=True)):
        raise _sizes_error(counts, limits[1:])
    if (parts[:, 1:] < 1).any():
        raise _coverage_error(counts)


def _part_sums(sums: IntArray, side: npt.NDArray[np.intp], parts: int) -> IntArray:
    """Photos and positives of each part, (parts, 1 + materials)."""
    out = np.zeros((parts, sums.shape[1]), np.int64)
    np.add.at(out, side, sums)
    return out


def _largest_difference(parts: npt.NDArray[Any]) -> FloatArray:
    """Largest share difference of parts (..., parts, 1 + materials) → (...)."""
    shares = parts[..., 1:] / np.maximum(parts[..., :1], 1)
    return np.asarray(np.ptp(shares, axis=-2).max(axis=-1), dtype=np.float64)


def _assignment(counts: _Counts, side: npt.NDArray[np.intp], method: Method) -> SplitAssignment:
    parts = _part_sums(counts.sums, side, len(SPLIT_NAMES))
    split = np.array(SPLIT_NAMES)[side][counts.row_group]
    return SplitAssignment(split, method, float(_largest_difference(parts)))


# --- every choice of groups ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subsets:
    """Sets of groups that may become one split, the most promising first.

    Attributes:
        mask: bit g is set where the set holds group g, int64 (sets,).
        sums: photos and positives, int64 (sets, 1 + materials).
        bound: no split that uses the set has a smaller largest share difference, float64 (sets,).
    """

    mask: IntArray
    sums: IntArray
    bound: FloatArray

    def upto(self, bound: float) -> _Subsets:
        """The sets that can still do as well as `bound`."""
        end = int(np.searchsorted(self.bound, bound + _TIE, side="right"))
        return _Subsets(self.mask[:end], self.sums[:end], self.bound[:end])


def _search_all(
    counts: _Counts, val_limits: tuple[int, int], test_limits: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """The split of each group, as a position in SPLIT_NAMES, that is best of all."""
    every = _subset_sums(counts.sums)
    val = _promising(every, counts.total, val_limits)
    test = _promising(every, counts.total, test_limits)
    if val is None or test is None:
        raise _sizes_error(counts, [val_limits, test_limits])
    best = _best_pairs(val, test, counts.total)
    if not len(best):
        size_only = np.concatenate([counts.sums[:, :1]] * 2, axis=1)  # "every photo" as the one material
        fits = [_promising(_subset_sums(size_only), size_only.sum(0), lim) for lim in (val_limits, test_limits)]
        if fits[0] is None or fits[1] is None or not len(_best_pairs(fits[0], fits[1], size_only.sum(0))):
            raise _sizes_error(counts, [val_limits, test_limits])
        raise _coverage_error(counts)
    val_mask, test_mask = best[rng.integers(len(best))]
    return _side_of(len(counts.names), int(val_mask), int(test_mask))


def _side_of(groups: int, val_mask: int, test_mask: int) -> npt.NDArray[np.intp]:
    bits = np.arange(groups)
    return np.asarray((val_mask >> bits & 1) + 2 * (test_mask >> bits & 1), dtype=np.intp)


def _subset_sums(sums: IntArray) -> IntArray:
    """Sums of every subset of the groups, row b for the one with bits b: (2**groups, 1 + materials)."""
    every = np.zeros((1, sums.shape[1]), np.int64)
    for group in sums:
        every = np.concatenate([every, every + group])
    return every


def _promising(every: IntArray, total: IntArray, limits: tuple[int, int]) -> _Subsets | None:
    """Sets of a fitting size that have every material and leave enough of it; None where no size fits."""
    size = every[:, 0]
    # Two parts share what is left, and each must hold a photo, so the complement has at least two.
    fits = (size >= limits[0]) & (size <= limits[1]) & (size <= total[0] - 2)
    if not fits.any():
        return None
    covered = (every[:, 1:] >= 1).all(axis=1) & (total[1:] - every[:, 1:] >= 2).all(axis=1)
    mask = np.flatnonzero(fits & covered)
    sums = every[mask]
    # The complement's share lies between those of the two parts it is made of, so the set's distance from
    # it is a lower bound of the largest difference.
    rest = total - sums
    apart = np.abs(sums[:, 1:] / sums[:, :1] - rest[:, 1:] / rest[:, :1]).max(axis=1, initial=0.0)
    order = np.lexsort((mask, apart))
    return _Subsets(mask[order], sums[order], apart[order])


def _best_pairs(val: _Subsets, test: _Subsets, total: IntArray) -> IntArray:
    """Masks of val and test of all pairs with the smallest difference, sorted, int64 (ties, 2)."""
    best, ties, kept = math.inf, [np.empty((0, 2), np.int64)], 0
    for pairs, difference in _blocks_of_pairs(val, test, total):
        if not len(pairs):
            continue
        if difference.min() < best - _TIE:
            best, ties, kept = float(difference.min()), [], 0
        if kept < _TIES_KEPT:
            ties.append(pairs[difference <= best + _TIE])
            kept += len(ties[-1])
        if kept >= _TIES_KEPT and best <= _TIE:
            break  # nothing is better than no difference
    found = np.concatenate(ties)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def _blocks_of_pairs(val: _Subsets, test: _Subsets, total: IntArray) -> Iterator[tuple[IntArray, FloatArray]]:
    """Disjoint pairs of sets, block by block, without those that cannot reach the best one so far."""
    best, start = math.inf, 0
    while start < len(val.mask) and val.bound[start] <= best + _TIE:
        test = test.upto(best)
        stop = start + max(1, _PAIRS_AT_ONCE // max(1, len(test.mask)))
        block = _Subsets(val.mask[start:stop], val.sums[start:stop], val.bound[start:stop])
        pairs, difference = _differences(block, test, total, best)
        best = min(best, float(difference.min(initial=math.inf)))
        start = stop
        yield pairs, difference


def _differences(val: _Subsets, test: _Subsets, total: IntArray, best: float) -> tuple[IntArray, FloatArray]:
    """Pairs of a block that are disjoint and may be best: their masks and largest share differences."""
    i, j = np.nonzero((val.mask[:, None] & test.mask[None, :]) == 0)
    photos = total[0] - val.sums[i, 0] - test.sums[j, 0]
    i, j, photos = i[photos > 0], j[photos > 0], photos[photos > 0]
    difference = np.zeros(len(i))
    for column in range(1, len(total)):  # one material at a time: most pairs fall out early
        v, t = val.sums[i, column], test.sums[j, column]
        left = total[column] - v - t
        shares = (v / val.sums[i, 0], t / test.sums[j, 0], left / photos)
        spread = np.maximum(np.maximum(shares[0], shares[1]), shares[2])
        spread -= np.minimum(np.minimum(shares[0], shares[1]), shares[2])
        keep = (left >= 1) & (spread <= best + _TIE)
        i, j, photos = i[keep], j[keep], photos[keep]
        difference = np.maximum(difference[keep], spread[keep])
    return np.column_stack([val.mask[i], test.mask[j]]), difference


# --- many groups ---------------------------------------------------------------------------------------


class _LocalSearch:
    """Iterative stratification of groups, then moves and swaps of groups that lower the largest difference.

    Groups with the same counts are interchangeable, so the search moves counts of alike groups: photos
    split one by one are at most 2**materials kinds, however many there are.
    """

    def __init__(
        self,
        sums: IntArray,
        shares: list[float],
        limits: list[tuple[int, int]],
        rng: np.random.Generator,
        fixed: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Store the problem.

        sums: (groups, 1 + materials). shares, limits: one a part. fixed: sums of a further part that no
        group enters or leaves, (1 + materials,); it counts in the differences.
        """
        self.sums, self.shares, self.rng, self.fixed = sums, np.array(shares, dtype=np.float64), rng, fixed
        self.low, self.high = np.array(limits, dtype=np.int64).T
        self.kinds, self.kind_of = np.unique(sums, axis=0, return_inverse=True)
        self.photos = int(sums[:, 0].sum())
        self.wanted = self.shares / self.shares.sum()

    def run(self) -> npt.NDArray[np.intp]:
        """The part of each group, int (groups,): the best found from several starts."""
        start = np.zeros((len(self.kinds), len(self.shares)), np.int64)
        np.add.at(start, (self.kind_of, self._stratify()), 1)
        best, best_energy = self._descend(start)
        for _ in range(40 if len(self.sums) <= 60 else 2):
            state, energy = self._descend(self._shake(best))
            if energy < best_energy - _TIE:
                best, best_energy = state, energy
        return self._deal(best)

    def _deal(self, state: IntArray) -> npt.NDArray[np.intp]:
        """Give the groups of each kind, shuffled, the parts counted in `state` (kinds, parts)."""
        side = np.empty(len(self.sums), np.intp)
        shuffled = self.rng.permutation(len(self.sums))
        by_kind = shuffled[np.argsort(self.kind_of[shuffled], kind="stable")]
        parts = np.tile(np.arange(state.shape[1]), len(state))
        side[by_kind] = np.repeat(parts, state.ravel())
        return side

    def _stratify(self) -> npt.NDArray[np.intp]:
        """Iterative stratification: the rarest material first, its groups to the part that lacks it most."""
        side = np.full(len(self.sums), -1, np.intp)
        room = self.high.tolist()
        lacking = np.outer(self.wanted, self.sums.sum(axis=0)).T.tolist()  # (1 + m, parts)
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
        """The part that lacks most of the material, then of photos; its needs are lowered by the group."""
        fits = [p for p in range(len(room)) if room[p] >= group[0]] or [int(np.argmax(room))]
        part = max(fits, key=lambda p: (lacking[column][p], lacking[0][p]))
        room[part] -= group[0]
        for row, amount in zip(lacking, group, strict=True):
            row[part] -= amount
        return part

    def _shake(self, state: IntArray) -> IntArray:
        """A copy with about a tenth of the groups moved to parts drawn at random."""
        shaken = state.copy()
        moves = max(2, len(self.sums) // 10) if len(self.sums) <= 5_000 else 50
        for _ in range(moves):
            kind, source = _draw_filled(shaken, self.rng)
            shaken[kind, source] -= 1
            shaken[kind, self.rng.integers(state.shape[1])] += 1
        return shaken

    def _descend(self, state: IntArray, steps: int = 1_000, patience: int = 10) -> tuple[IntArray, float]:
        """Take the best candidate while it lowers the energy; returns the state and its energy."""
        state = state.copy()
        parts: IntArray = state.T @ self.kinds
        energy = float(self._energy(parts[None])[0])
        idle = 0
        for _ in range(steps):
            changes, all_of_them = self._candidates(state)
            if not len(changes):
                break
            energies = self._energy(parts[None] + self._effects(changes, len(parts)))
            best = int(energies.argmin())
            if energies[best] < energy - _TIE:
                kind_a, source, kind_b, target = changes[best]
                _apply(state, kind_a, source, target)
                if kind_b >= 0:
                    _apply(state, kind_b, target, source)
                parts, energy, idle = state.T @ self.kinds, float(energies[best]), 0
                continue
            idle += 1
            if all_of_them or idle >= patience:
                break
        return state, energy

    def _candidates(self, state: IntArray) -> tuple[IntArray, bool]:
        """Changes to try, (candidates, 4), and whether these are all there are.

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
        """What each candidate changes in the parts' sums, int64 (candidates, parts, 1 + materials)."""
        kind_a, source, kind_b, target = changes.T
        net = self.kinds[kind_a] - np.where(kind_b[:, None] >= 0, self.kinds[kind_b], 0)
        effect = np.zeros((len(changes), parts, self.kinds.shape[1]), np.int64)
        rows = np.arange(len(changes))
        effect[rows, source] -= net
        effect[rows, target] += net
        return effect

    def _energy(self, parts: IntArray) -> FloatArray:
        """Largest share difference, plus much more for sizes out of bounds and materials without a photo.

        parts: (states, parts, 1 + materials) → (states,).
        """
        size = parts[..., 0]
        outside = np.maximum(self.low - size, 0) + np.maximum(size - self.high, 0)
        missing = (parts[..., 1:] < 1).sum(axis=(1, 2))
        if self.fixed is not None:
            fixed = np.broadcast_to(self.fixed, (len(parts), 1, parts.shape[2]))
            parts = np.concatenate([parts, fixed], axis=1)
        difference = _largest_difference(parts)
        # A little of the mean difference leads across plateaus of the largest one.
        shares = parts[..., 1:] / np.maximum(parts[..., :1], 1)
        mean = np.ptp(shares, axis=1).mean(axis=-1)
        off = np.abs(size / self.photos - self.wanted).sum(axis=1)
        broken = 1e3 * outside.sum(axis=1) / self.photos + 10.0 * missing
        energy: FloatArray = broken + difference + 1e-3 * mean + _SIZE_WEIGHT * off
        return energy


def _apply(state: IntArray, kind: int, source: int, target: int) -> None:
    state[kind, source] -= 1
    state[kind, target] += 1


def _draw_filled(state: IntArray, rng: np.random.Generator) -> tuple[int, int]:
    """A kind and a part, drawn in proportion to the groups there."""
    flat = int(np.searchsorted(state.cumsum(), rng.integers(state.sum()), side="right"))
    kind, part = divmod(flat, int(state.shape[1]))
    return kind, part


# --- cross-validation ----------------------------------------------------------------------------------


def _fold_sides(
    counts: _Counts, fractions: SplitFractions, folds: int, rng: np.random.Generator
) -> list[npt.NDArray[np.intp]]:
    """For each fold the split of each group: the fold is test, and val is chosen from the rest."""
    if folds > len(counts.names):
        raise SplitError(f"there are only {len(counts.names)} groups.")
    _check_materials(counts, needed=folds)
    photos = int(counts.total[0])
    for allowed in _FOLD_RANGES:
        limits = [_limits(photos, 1 / folds, allowed)] * folds
        fold = _LocalSearch(counts.sums, [1 / folds] * folds, limits, rng).run()
        sizes = np.bincount(fold, weights=counts.sums[:, 0], minlength=folds)
        if ((sizes >= limits[0][0]) & (sizes <= limits[0][1])).all():
            break
    _check_found(counts, fold, limits)
    val_limits = _limits(photos, fractions.val)
    return [_with_val(counts, np.flatnonzero(fold == k), val_limits, fractions, rng) for k in range(folds)]


def _with_val(
    counts: _Counts,
    test: npt.NDArray[np.intp],
    val_limits: tuple[int, int],
    fractions: SplitFractions,
    rng: np.random.Generator,
) -> npt.NDArray[np.intp]:
    """The split of each group, given the groups in test."""
    free = np.setdiff1d(np.arange(len(counts.names)), test)
    fixed = counts.sums[test].sum(axis=0)
    side = np.full(len(counts.names), SPLIT_NAMES.index("test"), np.intp)
    rest = replace(counts, names=counts.names[free], sums=counts.sums[free])
    if len(free) <= EXACT_GROUPS:
        side[free] = _best_val(rest, fixed, val_limits, rng)
        return side
    limits = [(1, int(rest.total[0])), val_limits]
    shares = [1 - fractions.val - fixed[0] / counts.total[0], fractions.val]
    side[free] = _LocalSearch(rest.sums, shares, limits, rng, fixed).run()
    _check_found(rest, side[free], limits)
    return side


def _best_val(
    rest: _Counts, fixed: IntArray, val_limits: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Best choice of val among all subsets of these groups, for a given test: 0 for train, 1 for val."""
    val = _subset_sums(rest.sums)
    train = rest.total - val
    fits = (val[:, 0] >= val_limits[0]) & (val[:, 0] <= val_limits[1]) & (train[:, 0] > 0)
    if not fits.any():
        raise _sizes_error(rest, [val_limits])
    usable = np.flatnonzero(fits & (val[:, 1:] >= 1).all(axis=1) & (train[:, 1:] >= 1).all(axis=1))
    if not len(usable):
        raise _coverage_error(rest)
    parts = np.stack([train[usable], val[usable], np.broadcast_to(fixed, train[usable].shape)], axis=1)
    difference = _largest_difference(parts)
    ties = usable[difference <= difference.min() + _TIE]
    return _side_of(len(rest.names), int(ties[rng.integers(len(ties))]), 0)


def _largest_folds(counts: _Counts, fractions: SplitFractions, folds: int, rng: np.random.Generator) -> int | None:
    """The largest smaller number of folds that works, where it is cheap to find."""
    if len(counts.names) > 1_000:
        return None
    for fewer in range(min(folds - 1, int(counts.groups_with.min()), 20), 1, -1):
        try:
            _fold_sides(counts, fractions, fewer, rng)
        except SplitError:
            continue
        return fewer
    return None
