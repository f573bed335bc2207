"""Groups of photos as counts, the limits that their splits must keep, and the errors if they cannot.

A split depends on its groups' counts only (photos, and positives of each material), sorted by name, so neither the
order of the rows nor that of the annotations changes the result.

Every split minimises the *largest share difference*: the range, over the splits, of the share of photos that show a
material, for the material with the largest range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from wastelens.data.prepared.tables import LabelMatrix
from wastelens.errors import SplitError
from wastelens.system.arrays import Array, FloatArray, IndexArray, IntArray

SIZE_RANGE = (Fraction(4, 5), Fraction(4, 3))  # as multiples of a fraction: 12 to 20 % of the photos for 15 %
TIE = 1e-12  # shares closer than this differ by rounding only
_FINER = "Split by smaller groups (group_by=scene, or photo for the smallest)"


@dataclass(frozen=True)
class GroupCounts:
    """Groups as counts, sorted by name."""

    names: npt.NDArray[np.str_]  # (groups,)
    row_group: IndexArray  # the group of each photo, (photos,)
    sums: IntArray  # photos, then positives of each material, (groups, 1 + materials)
    materials: tuple[str, ...]

    @property
    def total(self) -> IntArray:
        """Photos and positives of all groups together, int64 (1 + materials,)."""
        whole: IntArray = self.sums.sum(axis=0)
        return whole

    @property
    def groups_with(self) -> IntArray:
        """Number of groups that show each material, int64 (materials,)."""
        found: IntArray = (self.sums[:, 1:] > 0).sum(axis=0)
        return found


def count_groups(labels: LabelMatrix, groups: npt.NDArray[np.str_], materials: tuple[str, ...]) -> GroupCounts:
    """Count each group's photos and positives, or raise SplitError if there is no photo.

    labels: uint8 of 0 and 1, (photos, materials). groups: the group of each photo, str (photos,).
    """
    if not len(labels):
        raise SplitError("There are no photos to split. See problems.csv for why all were left out.")
    names, row_group = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), 1 + len(materials)), np.int64)
    np.add.at(sums, row_group, np.column_stack([np.ones(len(labels), np.int64), labels != 0]))
    return GroupCounts(names, row_group, sums, materials)


def check_materials(counts: GroupCounts, needed: int) -> None:
    """Raise SplitError if a material is in no photo, or in fewer than ``needed`` groups."""
    for material, found in zip(counts.materials, counts.groups_with.tolist(), strict=True):
        if found == 0:
            raise SplitError(f"No photo shows '{material}'. Map a category that occurs to it, or drop the material.")
        if found < needed:
            raise SplitError(
                f"Material '{material}' is in only {found} group(s) of {len(counts.names)}, but {needed} are "
                f"needed to have it in every split. {_FINER}, or map more categories to '{material}'."
            )


def size_limits(photos: int, share: float, allowed: tuple[Fraction, Fraction] = SIZE_RANGE) -> tuple[int, int]:
    """Return the smallest and largest number of photos for a split of this share (0 to 1 of all photos).

    allowed: both limits as multiples of the share.
    """
    wanted = Fraction(str(share)) * photos
    low, high = math.ceil(wanted * allowed[0]), math.floor(wanted * allowed[1])
    if low > high or high < 1:  # with few photos, there may be no whole number between them
        low = high = max(1, round(wanted))
    return max(1, low), high


def sizes_error(counts: GroupCounts, limits: list[tuple[int, int]]) -> SplitError:
    """Return the error for groups that cannot fill splits of these sizes, in photos (smallest, largest)."""
    photos, biggest = int(counts.total[0]), int(counts.sums[:, 0].argmax())
    wanted = " and ".join(f"{low:,} to {high:,}" for low, high in sorted(set(limits)))
    return SplitError(
        f"Whole groups cannot fill splits of {wanted} photos (the largest of {len(counts.names)} groups, "
        f"'{counts.names[biggest]}', holds {counts.sums[biggest, 0]:,} of {photos:,}). "
        f"{_FINER}, or choose other fractions."
    )


def coverage_error(counts: GroupCounts) -> SplitError:
    """Return the error for groups of which no assignment has every material in every split."""
    rarest = int(counts.groups_with.argmin())
    material, found = counts.materials[rarest], counts.groups_with[rarest]
    return SplitError(
        f"No assignment of {len(counts.names)} whole groups has every material in every split (rarest: "
        f"'{material}', in {found} groups). {_FINER}, or map more categories to '{material}'."
    )


def check_found(counts: GroupCounts, side: IndexArray, limits: list[tuple[int, int]]) -> None:
    """Raise SplitError if a part has too few or too many photos, or lacks a material.

    side: the part of each group, int (groups,). limits: smallest and largest number of photos of each part.
    """
    parts = part_sums(counts.sums, side, len(limits))
    if any(not low <= size <= high for (low, high), size in zip(limits, parts[:, 0].tolist(), strict=True)):
        raise sizes_error(counts, limits[1:])
    if (parts[:, 1:] < 1).any():
        raise coverage_error(counts)


def part_sums(sums: IntArray, side: IndexArray, parts: int) -> IntArray:
    """Return the photos and positives of each part, int64 (parts, 1 + materials).

    sums: those of each group, (groups, 1 + materials). side: the part of each group, int (groups,).
    """
    out = np.zeros((parts, sums.shape[1]), np.int64)
    np.add.at(out, side, sums)
    return out


def largest_difference(parts: Array) -> FloatArray:
    """Return the largest share difference, in [0, 1]; (..., parts, 1 + materials) photos and positives → (...)."""
    shares = parts[..., 1:] / np.maximum(parts[..., :1], 1)
    return np.asarray(np.ptp(shares, axis=-2).max(axis=-1), dtype=np.float64)
