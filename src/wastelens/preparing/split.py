"""Split whole groups of photos into train, val and test with shares of materials as equal as possible.

Photos of one place or day resemble one another, so a group (a batch, a scene) is never divided between splits. Up to
18 groups are split by exhaustive search, which finds the optimum. More groups are split by iterative stratification and
a local search (both in ``split_search``) with the same objective: the largest share difference (``group_counts``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt

from wastelens.config.prepare import FractionsConfig
from wastelens.data.prepared.dataset import SPLITS
from wastelens.data.prepared.tables import LabelMatrix
from wastelens.errors import SplitError
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
from wastelens.preparing.split_search import LocalSearch, best_splits, best_val
from wastelens.system.arrays import IndexArray, IntArray

Method = Literal["exact", "iterative stratification", "given"]

EXACT_GROUPS = 18  # 2**18 subsets take 15 MB and at most a few seconds
_FOLD_RANGES = (SIZE_RANGE, (Fraction(1, 2), Fraction(2)))  # the second if whole groups do not fit the first


@dataclass(frozen=True)
class SplitAssignment:
    """The split of each photo."""

    split: npt.NDArray[np.str_]  # 'train', 'val' or 'test', (photos,)
    method: Method  # 'exact' if found by exhaustive search, 'given' if the data came with it
    largest_share_difference: float  # in [0, 1]; times 100, in percentage points


def assign_splits(
    labels: LabelMatrix,
    groups: npt.NDArray[np.str_],
    materials: tuple[str, ...],
    fractions: FractionsConfig,
    rng: np.random.Generator,
) -> SplitAssignment:
    """Split the photos by whole groups so that the largest share difference is as small as possible.

    With at most 18 groups the result is optimal, and `rng` only picks among ties. Every material has a positive in
    every split.

    Args:
        labels: uint8 of 0 and 1, (photos, materials).
        groups: the group of each photo, str (photos,).
        materials: names of the label columns.
        fractions: the wanted shares of the photos. As groups stay whole, val and test may each hold 4/5 to 4/3 of
            theirs; train gets the rest.
        rng: picks among ties, and drives the local search if there are many groups.

    Raises:
        SplitError: a material is in too few groups, or the groups are too large for the fractions.
    """
    counts = count_groups(labels, groups, materials)
    check_materials(counts, needed=len(SPLITS))
    photos = int(counts.total[0])
    limits = [(1, photos), *(size_limits(photos, share) for share in (fractions.val, fractions.test))]
    if len(counts.names) <= EXACT_GROUPS:
        return _assignment(counts, best_splits(counts, limits[1], limits[2], rng), "exact")
    side = LocalSearch(counts.sums, [fractions.train, fractions.val, fractions.test], limits, rng).run()
    check_found(counts, side, limits)
    return _assignment(counts, side, "iterative stratification")


def cross_validation_splits(
    labels: LabelMatrix,
    groups: npt.NDArray[np.str_],
    materials: tuple[str, ...],
    fractions: FractionsConfig,
    *,
    folds: int,
    rng: np.random.Generator,
) -> list[SplitAssignment]:
    """Make cross-validation splits: every photo is in test exactly once, and val is chosen from the other groups.

    Each test part holds 1/folds of the photos (4/5 to 4/3 of that or, if whole groups do not fit, half to twice),
    whatever `fractions.test` is. The test parts come from iterative stratification and local search. If at most 18
    groups are left, val is the best choice for its test part.

    Arguments are as for :func:`assign_splits`; of ``fractions``, only `val` is used. There are at least 3 ``folds``.

    Raises:
        SplitError: there are no such folds; the message names the largest number of folds that works.
    """
    counts = count_groups(labels, groups, materials)
    check_materials(counts, needed=len(SPLITS))
    try:
        sides = _fold_sides(counts, fractions, folds, rng)
    except SplitError as error:
        works = _largest_folds(counts, fractions, folds, rng)
        fix = f" Use folds={works}, which works." if works else ""
        raise SplitError(f"No {folds} folds of whole groups: {error}{fix}") from error
    return [_assignment(counts, side, "iterative stratification") for side in sides]


def given_splits(
    labels: LabelMatrix,
    groups: npt.NDArray[np.str_],
    materials: tuple[str, ...],
    fractions: FractionsConfig,
    given: npt.NDArray[np.str_],
    rng: np.random.Generator,
) -> SplitAssignment:
    """Keep the split that the data came with; if it has no val, or no test, make that of whole groups of train.

    Arguments are as for :func:`assign_splits`; given: the split of each photo, str (photos,).

    Raises:
        SplitError: there is no train, or train alone; a material is in no photo of a split.
    """
    lacking = [name for name in SPLITS if name not in given]
    if "train" in lacking or len(lacking) > 1:
        there = ", ".join(name for name in SPLITS if name in given)
        raise SplitError(f"split=given: the data have {there} only. Give train and val or test, or use split=made.")
    split = given.copy()
    for name in lacking:  # groups with photos in other splits stay in train
        torn = np.unique(groups[given != "train"])
        free = np.flatnonzero(~np.isin(groups, torn))
        if not len(free):
            raise SplitError(
                f"split=given: the data have no {name}, and all of train is elsewhere too. Use split=made."
            )
        rest = count_groups(labels[free], groups[free], materials)
        fixed = count_groups(labels[given != "train"], groups[given != "train"], materials).total
        share = getattr(fractions, name)
        try:
            side = _chosen(rest, fixed, size_limits(len(labels), share), share, rng)
        except SplitError:
            raise SplitError(
                f"split=given: the data have no {name}, and the {len(rest.names):,} groups of train that share nothing "
                f"with other splits cannot make one with every material. Give {name}, or use split=made."
            ) from None
        split[free] = np.where(side[rest.row_group] == 1, name, "train")
    counts = count_groups(labels, split, materials)
    for name, sums in zip(counts.names.tolist(), counts.sums, strict=True):
        for material, found in zip(materials, sums[1:].tolist(), strict=True):
            if not found:
                raise SplitError(
                    f"split=given: no photo in {name} shows '{material}', so it cannot be scored. Use split=made, or "
                    f"map more categories to '{material}'."
                )
    return SplitAssignment(split, "given", float(largest_difference(counts.sums)))


def torn_groups(groups: npt.NDArray[np.str_], splits: Sequence[Collection[str]]) -> dict[str, list[str]]:
    """Return group → its splits, for the groups that are in several; splits: those that each photo was given."""
    found: dict[str, set[str]] = {}
    for group, of_photo in zip(groups.tolist(), splits, strict=True):
        found.setdefault(group, set()).update(of_photo)
    return {group: sorted(of_one, key=SPLITS.index) for group, of_one in found.items() if len(of_one) > 1}


def _assignment(counts: GroupCounts, side: IndexArray, method: Method) -> SplitAssignment:
    """Translate the split of each group, a position in SPLITS, int (groups,), to photos."""
    parts = part_sums(counts.sums, side, len(SPLITS))
    split = np.array(SPLITS)[side][counts.row_group]
    return SplitAssignment(split, method, float(largest_difference(parts)))


def _fold_sides(
    counts: GroupCounts, fractions: FractionsConfig, folds: int, rng: np.random.Generator
) -> list[IndexArray]:
    """Return the split of each group for each fold: the fold is test, and val is chosen from the rest."""
    if folds > len(counts.names):
        raise SplitError(f"There are only {len(counts.names)} groups.")
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
    test: IndexArray,
    val_limits: tuple[int, int],
    fractions: FractionsConfig,
    rng: np.random.Generator,
) -> IndexArray:
    """Return the split of each group, given the groups in test."""
    free = np.setdiff1d(np.arange(len(counts.names)), test)
    fixed = counts.sums[test].sum(axis=0)
    side = np.full(len(counts.names), SPLITS.index("test"), np.intp)
    rest = replace(counts, names=counts.names[free], sums=counts.sums[free])
    side[free] = _chosen(rest, fixed, val_limits, fractions.val, rng)
    return side


def _chosen(
    rest: GroupCounts, fixed: IntArray, limits: tuple[int, int], share: float, rng: np.random.Generator
) -> IndexArray:
    """Choose whole groups for one part, int (groups,): 1 for the part, 0 for train.

    rest: the groups to choose from. fixed: photos and positives of the part that is fixed, int64 (1 + materials,).
    limits: smallest and largest number of photos of the part. share: of all photos, that the part should hold.
    """
    if len(rest.names) <= EXACT_GROUPS:
        return best_val(rest, fixed, limits, rng)
    both = [(1, int(rest.total[0])), limits]
    shares = [1 - share - fixed[0] / (rest.total[0] + fixed[0]), share]
    side = LocalSearch(rest.sums, shares, both, rng, fixed).run()
    check_found(rest, side, both)
    return side


def _largest_folds(counts: GroupCounts, fractions: FractionsConfig, folds: int, rng: np.random.Generator) -> int | None:
    """Return the largest smaller number of folds that works, or None if it is expensive to find."""
    if len(counts.names) > 1_000:
        return None
    for fewer in range(min(folds - 1, int(counts.groups_with.min()), 20), 1, -1):
        try:
            _fold_sides(counts, fractions, fewer, rng)
        except SplitError:
            continue
        return fewer
    return None
