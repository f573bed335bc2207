"""Group photos that must share a split: by batch, scene, copies, a column, or their names.

Photos of one place resemble one another more than new photos ever will: if TACO is split photo by photo, a predictor
that sees only the labels of a photo's neighbours reaches a macro AP of 0.425. Whatever the rule, copies of one photo
end up in one group: near-duplicates, augmented copies, and photos whose names tell the same source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.config.prepare import PATTERN
from wastelens.data.duplicates.search import NEAR_DUPLICATE_BITS, connected_groups, near_duplicate_links
from wastelens.data.duplicates.warped_copies import warped_copies
from wastelens.data.photos.shrink import area_average, chunks
from wastelens.errors import SplitError
from wastelens.preparing.shared_sources import shared_source_links, stem_of
from wastelens.system.arrays import FloatArray, IntArray, PhotoArray
from wastelens.system.text import natural_key

Histograms = npt.NDArray[np.uint16]

FEWEST_BATCHES = 10  # fewer whole batches cannot give splits with similar shares of materials
# Checked by eye on TACO: neighbours above 0.55 nearly always show one scene, from 0.45 about three in four do, below
# it half do. Of pairs from different batches 3 % reach 0.45, of neighbours 20 %.
SCENE_OVERLAP = 0.45
_LAB_SIDE = 32
_LAB_PIXELS = _LAB_SIDE**2
_LAB_BINS = (8, 10, 10)
_LAB_LOW, _LAB_HIGH = np.array([0.0, -40.0, -40.0]), np.array([100.0, 40.0, 40.0])
_NAMED = 4  # members listed in the name of a merged group


@dataclass(frozen=True)
class Copies:
    """Pairs of photos that have one source, by kind of evidence; row positions, each int64 (pairs, 2)."""

    near_duplicates: IntArray  # as ``near_duplicate_links`` gives them
    warped: IntArray  # as ``warped_copies`` gives them
    named: IntArray  # as ``shared_source_links`` gives them

    @property
    def by_content(self) -> IntArray:
        """All pairs that were found by their pixels."""
        return np.concatenate([self.near_duplicates, self.warped])

    @property
    def pairs(self) -> IntArray:
        """All pairs."""
        return np.concatenate([self.near_duplicates, self.warped, self.named])

    def named_photos(self) -> tuple[int, int]:
        """Return how many photos share a source by their names, and how many sources these are."""
        return len(np.unique(self.named)), len(np.unique(self.named[:, 0]))


@dataclass(frozen=True)
class Groups:
    """The group of each photo."""

    names: npt.NDArray[np.str_]  # (photos,)
    rule: str  # that made the groups, in words for the user
    merged: list[str]  # a sentence for each group that copies merged from several
    copies: Copies


def find_copies(
    source_files: list[str],
    photos: PhotoArray,
    *,
    told_sources: Mapping[str, str] | None = None,
    max_distance: int = NEAR_DUPLICATE_BITS,
    warped: bool = True,
) -> Copies:
    """Find the photos that have one source, by their names and their pixels.

    Args:
        source_files: path of each photo in its dataset, with forward slashes.
        photos: uint8 0–255 RGB (photos, side, side, 3), in the same order; may be a memory map.
        told_sources: path → name of the photo's source, where the annotations tell it.
        max_distance: number of bits in which perceptual hashes of near-duplicates may differ.
        warped: whether to look for augmented copies too.
    """
    named = shared_source_links(source_files, told_sources or {})
    near = near_duplicate_links(photos, max_distance)
    found = warped_copies(photos, np.concatenate([near, named])) if warped else near[:0]
    return Copies(near, found, named)


def assign_groups(
    source_files: list[str],
    photos: PhotoArray,
    copies: Copies,
    group_by: str = "auto",
    column: pd.Series[Any] | None = None,
) -> Groups:
    """Group photos by a rule; under any rule, copies of one source share a group.

    Args:
        source_files: path of each photo in its dataset, with forward slashes.
        photos: uint8 0–255 RGB (photos, side, side, 3), in the same order; may be a memory map.
        copies: as ``find_copies`` finds them.
        group_by: 'batch' (first folder of the path), 'scene' (runs of neighbouring photos that look alike),
            'photo' (copies only), 'auto' (batch if there are ten or more, otherwise scene), 'stem' (names without marks
            of copies and without a last number), 'pattern:REGEX' (what its group finds in the path), or a column.
        column: the value of each photo, needed if group_by is a column's name.

    Raises:
        SplitError: the column has gaps, or the pattern does not match a path.
    """
    if group_by in {"auto", "batch"}:
        groups = _merge([_batch(path) for path in source_files], copies, source_files, "batch")
        batches = len(np.unique(groups.names))
        if group_by == "batch" or batches >= FEWEST_BATCHES:
            return groups
        rule = f"scene (batches: {batches}, fewer than {FEWEST_BATCHES})"
        return _join(source_files, _scene_links(source_files, photos), copies, rule)
    if group_by == "scene":
        return _join(source_files, _scene_links(source_files, photos), copies, "scene")
    if group_by == "photo":
        return _join(source_files, copies.named[:0], copies, "photo")
    is_rule = group_by == "stem" or group_by.startswith(PATTERN)
    values = _by_name(group_by, source_files) if is_rule else _values(column, group_by, source_files)
    return _merge(values, copies, source_files, group_by if is_rule else f"column '{group_by}'")


def coarser_grouping(source_files: Sequence[str], rule: str, *, folders_are_batches: bool) -> str:
    """Return advice on a coarser grouping, for groups by this rule that separate neighbouring photos.

    folders_are_batches: whether the first folder of a photo's path is a batch, as in TACO, rather than a class.
    """
    batches = len({_batch(path) for path in source_files}) if folders_are_batches else 1
    by_scene = rule.startswith("scene")
    if batches >= FEWEST_BATCHES or (by_scene and batches > 1):
        return "use group_by=batch"
    return "name the scenes in a column and group_by it" if by_scene else "use group_by=scene"


def _batch(path: str) -> str:
    """Return the first folder of a path, or '.' if it has none."""
    parts = PurePosixPath(path).parts
    return parts[0] if len(parts) > 1 else "."


def _values(values: pd.Series[Any] | None, group_by: str, source_files: list[str]) -> list[str]:
    if values is None:
        raise ValueError(f"group_by={group_by} is no rule, and no column was given")
    gaps = np.flatnonzero(values.isna() | (values.astype(str).str.strip() == ""))
    if len(gaps):
        raise SplitError(
            f"Column '{group_by}' is empty for {len(gaps):,} of {len(source_files):,} photos, the first "
            f"{source_files[gaps[0]]}. Fill it, or use another group_by."
        )
    return [str(value) for value in values]


def _by_name(group_by: str, source_files: list[str]) -> list[str]:
    """Return the stem of each path, or what the pattern's group finds in it."""
    if group_by == "stem":
        return [stem_of(path) for path in source_files]
    pattern = re.compile(group_by.removeprefix(PATTERN))
    found = [match[1] if (match := pattern.search(path)) else None for path in source_files]
    gaps = [path for path, value in zip(source_files, found, strict=True) if not value]
    if gaps:
        raise SplitError(
            f"group_by={group_by} finds nothing in {len(gaps):,} of {len(source_files):,} paths, the first {gaps[0]}. "
            "Correct the pattern; it is searched for anywhere in the path, and its group in parentheses is the value."
        )
    return [str(value) for value in found]


def _merge(base: list[str], copies: Copies, source_files: list[str], rule: str) -> Groups:
    """Merge named groups that share a source, under a joint name."""
    known = sorted(set(base), key=natural_key)
    position = {name: k for k, name in enumerate(known)}
    group = np.array([position[name] for name in base], dtype=np.int64)
    pairs = copies.pairs
    across = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
    joined = connected_groups(len(known), group[across])
    title, notes = dict(enumerate(known)), []
    for smallest in np.unique(joined).tolist():
        members = [known[k] for k in np.flatnonzero(joined == smallest)]
        if len(members) == 1:
            continue
        more = [f"{len(members) - _NAMED} more"] if len(members) > _NAMED else []
        title[smallest] = "+".join([*members[:_NAMED], *more])
        shared = across[joined[group[across[:, 0]]] == smallest]
        example = " and ".join(sorted((source_files[k] for k in shared[0]), key=natural_key))
        shown = f"{', '.join(members[:_NAMED])}{f' and {more[0]}' if more else ''}"
        notes.append(f"{shown} are one group: {len(shared)} pair(s) of copies join them, such as {example}")
    return Groups(np.array([title[k] for k in joined[group].tolist()]), rule, notes, copies)


def _join(source_files: list[str], links: IntArray, copies: Copies, rule: str) -> Groups:
    """Join copies and linked photos; name each group after its first photo in natural order."""
    order = sorted(range(len(source_files)), key=lambda k: natural_key(source_files[k]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    first = connected_groups(len(order), rank[np.concatenate([links, copies.pairs])])
    names = np.array(source_files)[np.array(order)][first[rank]]
    return Groups(names, rule, [], copies)


def _scene_links(source_files: list[str], photos: PhotoArray) -> IntArray:
    """Return pairs of photos that look alike and are neighbours in a folder, in natural order; int64 (pairs, 2)."""
    order = np.array(sorted(range(len(source_files)), key=lambda k: natural_key(source_files[k])), np.int64)
    folder = [PurePosixPath(source_files[k]).parent for k in order]
    together = np.array([a == b for a, b in pairwise(folder)], dtype=np.bool_)
    links: IntArray = np.column_stack([order[:-1], order[1:]])[together]
    return links[_overlaps(_colour_histograms(photos), links) >= SCENE_OVERLAP]


def _overlaps(histograms: Histograms, links: IntArray, chunk_links: int = 4096) -> FloatArray:
    """Return the intersection of linked photos' histograms, 0 to 1, (links,).

    Swain & Ballard 1991, "Color indexing".
    """
    overlap = np.empty(len(links))
    for start in range(0, len(links), chunk_links):
        first, second = histograms[links[start : start + chunk_links].T]
        overlap[start : start + chunk_links] = np.minimum(first, second).sum(axis=1) / _LAB_PIXELS
    return overlap


def _colour_histograms(photos: PhotoArray) -> Histograms:
    """Count the pixels of each photo, shrunk to 32 × 32, in 8 × 10 × 10 bins of CIE Lab; uint16 (photos, 800).

    The same ground in the same light gives the same colours, whatever is on the ground.
    """
    import cv2

    bins = np.array(_LAB_BINS)
    cells = int(bins.prod())
    histograms = np.empty((len(photos), cells), np.uint16)
    for rows in chunks(len(photos), photos.shape[1]):
        small = area_average(np.asarray(photos[rows]), _LAB_SIDE)
        lab = cv2.cvtColor(small.reshape(-1, _LAB_SIDE, 3) / 255, cv2.COLOR_RGB2Lab).reshape(len(small), _LAB_PIXELS, 3)
        level = (lab - _LAB_LOW) / (_LAB_HIGH - _LAB_LOW) * bins
        lightness, a, b = np.moveaxis(np.clip(level, 0, bins - 1).astype(np.int64), -1, 0)
        cell = (lightness * bins[1] + a) * bins[2] + b + np.arange(len(small))[:, None] * cells
        counts = np.bincount(cell.ravel(), minlength=len(small) * cells)
        histograms[rows] = counts.reshape(len(small), cells)
    return histograms
