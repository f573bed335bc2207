"""Training, validation and test splits of whole groups of photos, as alike in their materials as possible.

Photos of one place or day resemble one another, so a group (a batch, a scene) never straddles two splits.
Few groups: every choice of groups is tried (``exact_split``), and the best is the best there is. Many groups:
iterative stratification, taken over to whole groups, and a local search on the same objective
(``local_search``).

The objective is the *largest share difference*: of a material's share of the photos, the highest less the
lowest of the splits, for the material where that is largest. Groups enter as counts (``group_counts``), sorted
by name, so neither the order of the rows nor that of the annotations changes the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from wastelens.data.prepared.tables import LabelMatrix
from wastelens.errors import SplitError
from wastelens.preparing.exact_split import best_splits, best_val
from wastelens.preparing.group_counts import (
    SIZE_RANGE,
    GroupCounts,
    check_found,
    check_materials,
    count_groups,
    largest_difference,
    part_sums,
    size_limits,
)
from wastelens.preparing.local_search import LocalSearch

Method = Literal["exact", "iterative stratification"]

SPLIT_NAMES = ("train", "val", "test")
EXACT_GROUPS = 18  # 2**18 subsets: 15 MB of sums and at most a few seconds
_FOLD_RANGES = (SIZE_RANGE, (Fraction(1, 2), Fraction(2)))  # the second where whole groups leave no choice


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
    counts = count_groups(labels, groups, materials)
    check_materials(counts, needed=len(SPLIT_NAMES))
    photos = int(counts.total[0])
    limits = [(1, photos), *(size_limits(photos, share) for share in (fractions.val, fractions.test))]
    if len(counts.names) <= EXACT_GROUPS:
        return _assignment(counts, best_splits(counts, limits[1], limits[2], rng), "exact")
    wanted = [fractions.train, fractions.val, fractions.test]
    search = LocalSearch(counts.sums, wanted, limits, rng)
    side = search.run()
    check_found(counts, side, limits)
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
    counts = count_groups(labels, groups, materials)
    check_materials(counts, needed=len(SPLIT_NAMES))
    try:
        sides = _fold_sides(counts, fractions, folds, rng)
    except SplitError as error:
        works = _largest_folds(counts, fractions, folds, rng)
        fix = f" Use folds={works}, which works." if works else ""
        raise SplitError(f"No {folds} folds of whole groups: {error}{fix}") from error
    return [_assignment(counts, side, "iterative stratification") for side in sides]


def _assignment(counts: GroupCounts, side: npt.NDArray[np.intp], method: Method) -> SplitAssignment:
    """side: the split of each group, as a position in SPLIT_NAMES, int (groups,)."""
    parts = part_sums(counts.sums, side, len(SPLIT_NAMES))
    split = np.array(SPLIT_NAMES)[side][counts.row_group]
    return SplitAssignment(split, method, float(largest_difference(parts)))


def _fold_sides(
    counts: GroupCounts, fractions: SplitFractions, folds: int, rng: np.random.Generator
) -> list[npt.NDArray[np.intp]]:
    """For each fold the split of each group: the fold is test, and val is chosen from the rest."""
    if folds > len(counts.names):
        raise SplitError(f"there are only {len(counts.names)} groups.")
    check_materials(counts, needed=folds)
    photos = int(counts.total[0])
    for allowed in _FOLD_RANGES:
        limits = [size_limits(photos, 1 / folds, allowed)] * folds
        fold = LocalSearch(counts.sums, [1 / folds] * folds, limits, rng).run()
        sizes = np.bincount(fold, weights=counts.sums[:, 0], minlength=folds)
        if ((sizes >= limits[0][0]) & (sizes <= limits[0][1])).all():
            break
    check_found(counts, fold, limits)
    val_limits = size_limits(photos, fractions.val)
    return [_with_val(counts, np.flatnonzero(fold == k), val_limits, fractions, rng) for k in range(folds)]


def _with_val(
    counts: GroupCounts,
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
        side[free] = best_val(rest, fixed, val_limits, rng)
        return side
    limits = [(1, int(rest.total[0])), val_limits]
    shares = [1 - fractions.val - fixed[0] / counts.total[0], fractions.val]
    side[free] = LocalSearch(rest.sums, shares, limits, rng, fixed).run()
    check_found(rest, side[free], limits)
    return side


def _largest_folds(counts: GroupCounts, fractions: SplitFractions, folds: int, rng: np.random.Generator) -> int | None:
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
