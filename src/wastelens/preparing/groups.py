"""Group photos that must share a split: by batch, scene, near-duplicates or a column.

Photos of one place resemble one another more than new photos ever will: if TACO is split photo by photo, a predictor
that sees only the labels of a photo's neighbours reaches a macro AP of 0.425. Whatever the rule, near-duplicates end
up in one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.duplicates.search import NEAR_DUPLICATE_BITS, connected_groups, near_duplicate_links
from wastelens.data.photos.shrink import area_average
from wastelens.errors import SplitError
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
class Groups:
    """The group of each photo."""

    names: npt.NDArray[np.str_]  # (photos,)
    rule: str  # that made the groups, in words for the user
    merged: list[str]  # a sentence for each group that near-duplicates merged from several
    near_duplicate_pairs: IntArray  # row positions, (pairs, 2), as ``near_duplicate_links`` gives them


def assign_groups(
    source_files: list[str],
    photos: PhotoArray,
    group_by: str = "auto",
    column: pd.Series[Any] | None = None,
    max_distance: int = NEAR_DUPLICATE_BITS,
) -> Groups:
    """Group photos by a rule; under any rule, near-duplicates share a group.

    Args:
        source_files: path of each photo in its dataset, with forward slashes.
        photos: uint8 0–255 RGB (photos, side, side, 3), in the same order; may be a memory map.
        group_by: 'batch' (first folder of the path), 'scene' (runs of neighbouring photos that look alike),
            'photo' (near-duplicates only), 'auto' (batch if there are ten or more, otherwise scene), or a column.
        column: the value of each photo, needed if group_by is a column's name.
        max_distance: number of bits in which perceptual hashes of near-duplicates may differ.

    Raises:
        SplitError: the column has gaps.
    """
    pairs = near_duplicate_links(photos, max_distance)
    if group_by in {"auto", "batch"}:
        groups = _merge([_batch(path) for path in source_files], pairs, source_files, "batch")
        batches = len(np.unique(groups.names))
        if group_by == "batch" or batches >= FEWEST_BATCHES:
            return groups
        rule = f"scene (batches: {batches}, fewer than {FEWEST_BATCHES})"
        return _join(source_files, _scene_links(source_files, photos), pairs, rule)
    if group_by == "scene":
        return _join(source_files, _scene_links(source_files, photos), pairs, "scene")
    if group_by == "photo":
        return _join(source_files, pairs[:0], pairs, "photo")
    return _merge(_values(column, group_by, source_files), pairs, source_files, f"column '{group_by}'")


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


def _merge(base: list[str], pairs: IntArray, source_files: list[str], rule: str) -> Groups:
    """Merge named groups that share a near-duplicate, under a joint name."""
    known = sorted(set(base), key=natural_key)
    position = {name: k for k, name in enumerate(known)}
    group = np.array([position[name] for name in base], dtype=np.int64)
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
        notes.append(
            f"{', '.join(members)} are one group: {len(shared)} near-duplicate pair(s) join them, such as {example}"
        )
    return Groups(np.array([title[k] for k in joined[group].tolist()]), rule, notes, pairs)


def _join(source_files: list[str], links: IntArray, pairs: IntArray, rule: str) -> Groups:
    """Join near-duplicates and linked photos; name each group after its first photo in natural order."""
    order = sorted(range(len(source_files)), key=lambda k: natural_key(source_files[k]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    first = connected_groups(len(order), rank[np.concatenate([links, pairs])])
    names = np.array(source_files)[np.array(order)][first[rank]]
    return Groups(names, rule, [], pairs)


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


def _colour_histograms(photos: PhotoArray, chunk_photos: int = 256) -> Histograms:
    """Count the pixels of each photo, shrunk to 32 × 32, in 8 × 10 × 10 bins of CIE Lab; uint16 (photos, 800).

    The same ground in the same light gives the same colours, whatever is on the ground.
    """
    import cv2

    bins = np.array(_LAB_BINS)
    cells = int(bins.prod())
    histograms = np.empty((len(photos), cells), np.uint16)
    for start in range(0, len(photos), chunk_photos):
        small = area_average(np.asarray(photos[start : start + chunk_photos]), _LAB_SIDE)
        lab = cv2.cvtColor(small.reshape(-1, _LAB_SIDE, 3) / 255, cv2.COLOR_RGB2Lab).reshape(len(small), _LAB_PIXELS, 3)
        level = (lab - _LAB_LOW) / (_LAB_HIGH - _LAB_LOW) * bins
        lightness, a, b = np.moveaxis(np.clip(level, 0, bins - 1).astype(np.int64), -1, 0)
        cell = (lightness * bins[1] + a) * bins[2] + b + np.arange(len(small))[:, None] * cells
        counts = np.bincount(cell.ravel(), minlength=len(small) * cells)
        histograms[start : start + len(small)] = counts.reshape(len(small), cells)
    return histograms
