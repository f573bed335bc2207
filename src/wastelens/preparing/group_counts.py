"""Groups of photos as counts, the limits that splits of them must keep, and the errors where none can.

Groups enter a split as counts only (photos, and positives of each material), sorted by name, so neither the
order of the rows nor that of the annotations changes the result.

The objective of every split is the *largest share difference*: of a material's share of the photos, the
highest less the lowest of the splits, for the material where that is largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.data.prepared.tables import LabelMatrix
from wastelens.errors import SplitError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

SIZE_RANGE = (Fraction(4, 5), Fraction(4, 3))  # of a fraction: 12 to 20 % of the photos for 15 %
TIE = 1e-12  # shares closer than this are the same fraction, rounded differently
_FINER = "Split by smaller groups (group_by=scene, or photo, which makes the smallest)"


@dataclass(frozen=True)
class GroupCounts:
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


def count_groups(labels: LabelMatrix, groups: npt.NDArray[np.str_], materials: tuple[str, ...]) -> GroupCounts:
    """Count each group's photos and positives.

    labels: uint8 of 0 and 1, (photos, materials). groups: the group of each photo, str (photos,).

    Raises:
        SplitError: there is no photo.
        ValueError: the shapes do not fit.
    """
    if not len(labels):
        raise SplitError("There is no photo to split. Check problems.csv for why all were left out.")
    if labels.shape != (len(groups), len(materials)):
        raise ValueError(f"labels {labels.shape} do not fit {len(groups)} groups, {len(materials)} materials")
    names, row_group = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), 1 + len(materials)), np.int64)
    np.add.at(sums, row_group, np.column_stack([np.ones(len(labels), np.int64), labels != 0]))
    return GroupCounts(names, row_group, sums, materials)


def check_materials(counts: GroupCounts, needed: int) -> None:
    """Check that each material is in enough groups to be in every part.

    Raises:
        SplitError: a material is in no photo, or in fewer than ``needed`` groups.
    """
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


def size_limits(photos: int, share: float, allowed: tuple[Fraction, Fraction] = SIZE_RANGE) -> tuple[int, int]:
    """The fewest and the most photos a split of this share (0 to 1 of all photos) may hold.

    allowed: both as multiples of the share.
    """
    wanted = Fraction(str(share)) * photos
    low, high = math.ceil(wanted * allowed[0]), math.floor(wanted * allowed[1])
    if low > high or high < 1:  # so few photos that no whole number lies between
        low = high = max(1, round(wanted))
    return max(1, low), high


def sizes_error(counts: GroupCounts, limits: list[tuple[int, int]]) -> SplitError:
    """What to raise where whole groups cannot give parts of these sizes, in photos (fewest, most)."""
    photos, biggest = int(counts.total[0]), int(counts.sums[:, 0].argmax())
    wanted = " and ".join(f"{low:,} to {high:,}" for low, high in sorted(set(limits)))
    return SplitError(
        f"Whole groups cannot fill splits of {wanted} photos (the largest of {len(counts.names)} groups, "
        f"'{counts.names[biggest]}', holds {counts.sums[biggest, 0]:,} of {photos:,}). "
        f"{_FINER}, or choose other fractions."
    )


def coverage_error(counts: GroupCounts) -> SplitError:
    """What to raise where no choice of groups has every material in every part."""
    rarest = int(counts.groups_with.argmin())
    material, found = counts.materials[rarest], counts.groups_with[rarest]
    return SplitError(
        f"No split of {len(counts.names)} whole groups has every material in every part (rarest: "
        f"'{material}', in {found} groups). {_FINER}, or map more categories to '{material}'."
    )


def check_found(counts: GroupCounts, side: npt.NDArray[np.intp], limits: list[tuple[int, int]]) -> None:
    """Check a choice of a part per group.

    side: the part of each group, int (groups,). limits: the fewest and the most photos of each part.

    Raises:
        SplitError: a part has too few or too many photos, or lacks a material.
    """
    parts = part_sums(counts.sums, side, len(limits))
    if any(not low <= size <= high for (low, high), size in zip(limits, parts[:, 0].tolist(), strict=True)):
        raise sizes_error(counts, limits[1:])
    if (parts[:, 1:] < 1).any():
        raise coverage_error(counts)


def part_sums(sums: IntArray, side: npt.NDArray[np.intp], parts: int) -> IntArray:
    """Photos and positives of each part, int64 (parts, 1 + materials).

    sums: of each group, (groups, 1 + materials). side: the part of each group, int (groups,).
    """
    out = np.zeros((parts, sums.shape[1]), np.int64)
    np.add.at(out, side, sums)
    return out


def largest_difference(parts: npt.NDArray[Any]) -> FloatArray:
    """Largest share difference, in [0, 1], of parts' photos and positives (..., parts, 1 + materials) → (...)."""
    shares = parts[..., 1:] / np.maximum(parts[..., :1], 1)
    return np.asarray(np.ptp(shares, axis=-2).max(axis=-1), dtype=np.float64)
