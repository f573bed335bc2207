"""The outline of an annotated object: polygons, a run-length mask or a box, decoded on demand and turned upright."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from wastelens.data.annotations.coco import LARGEST_COORDINATE_PX, NOT_READABLE, Annotation, Image
from wastelens.data.photos.files import SIDEWAYS
from wastelens.system.arrays import ByteArray, FloatArray, IntArray
from wastelens.system.text import reason_of

LARGEST_MASK_PX = 200_000_000  # as many as the largest photo has that prepare takes by default
LARGEST_DRAWN_PX = 50_000_000  # of a mask that is unpacked to a byte per pixel
_PIECES_OF_A_RUN = 7  # of five bits each: enough for any run of LARGEST_MASK_PX


@dataclass(frozen=True)
class Outline:
    """An annotation's segmentation or box, in pixels of the annotated size of the upright photo."""

    polygons: tuple[FloatArray, ...]  # each (points, 2), x and y; empty for run-length encodings
    rle: Mapping[str, Any] | None  # the run-length encoding in pycocotools' form
    area_share: float  # the fraction of the photo it covers, 0 to 1
    problem: str = ""  # why the outline cannot be used
    is_box: bool = False  # whether it was annotated as a box, which says less than an outline along the object
    left_out: str = ""  # why a part of it is left out


def outline(annotation: Annotation, image: Image) -> Outline:
    """Decode an annotation's segmentation, or its box where it has none, and turn it upright with its photo.

    One that cannot be used is returned with its ``problem``.
    """
    if image.misfit:
        return _broken(image.misfit)
    if image.orientation == 1:
        return _annotated_outline(annotation, image)
    sideways = image.orientation in SIDEWAYS
    stored = msgspec.structs.replace(image, width=image.height, height=image.width) if sideways else image
    return _turned(_annotated_outline(annotation, stored), stored, image.orientation)


def _annotated_outline(annotation: Annotation, image: Image) -> Outline:
    try:
        segmentation = msgspec.json.decode(annotation.segmentation)
        box = msgspec.json.decode(annotation.bbox)
    except NOT_READABLE as error:
        return _broken(f"its outline cannot be read ({reason_of(error)})")
    if isinstance(segmentation, dict) and segmentation:
        return _run_length_outline(segmentation, image)
    polygons = parts(segmentation) if isinstance(segmentation, list) else []
    if polygons:
        found = _polygon_outline(polygons, image)
        return replace(found, is_box=_is_flat(segmentation) and _is_rectangle(found.polygons))
    return _box_outline(box, image) if box and not isinstance(segmentation, str) else _broken("it has no outline")


def _broken(problem: str) -> Outline:
    return Outline(polygons=(), rle=None, area_share=0.0, problem=problem)


def parts(segmentation: list[Any]) -> list[list[Any]]:
    """Return the parts of a segmentation, each as x, y, x, y, …; points may also be pairs, and one part its own list.

    COCO's form is ``[[x, y, x, y, …], …]``; others are ``[x, y, …]``, ``[[x, y], …]`` and ``[[[x, y], …], …]``.
    """
    if segmentation and _is_flat(segmentation):
        return [segmentation]
    if len(segmentation) > 2 and all(_is_pair(one) for one in segmentation):
        return [_joined_pairs(segmentation)]
    found = (_joined_pairs(one) if isinstance(one, list) and all(map(_is_pair, one)) else one for one in segmentation)
    return [part for part in found if part != []]


def _is_flat(segmentation: list[Any]) -> bool:
    return not any(isinstance(one, list) for one in segmentation)


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_flat(value)


def _joined_pairs(pairs: list[list[Any]]) -> list[Any]:
    return [number for pair in pairs for number in pair]


def _polygon_outline(parts: list[Any], image: Image) -> Outline:
    """Return the outline of the usable parts, clipped to the photo."""
    problems, drawn = [], []
    size = np.array([image.width, image.height])
    for part in parts:
        problem = _problem_of_part(part)
        inside = _within(np.asarray(part, dtype=np.float64).reshape(-1, 2), size) if not problem else np.empty((0, 2))
        if len(inside) > 2:
            drawn.append(inside)
        problems.append(problem)
    problem = next((one for one in problems if one), "")
    area = sum(polygon_area(polygon) for polygon in drawn)
    if area <= 0:
        return _broken(problem or "its polygon lies outside the photo or covers nothing")
    share = min(1.0, area / (image.width * image.height))
    return Outline(tuple(drawn), None, share, left_out=problem)


def _problem_of_part(part: object) -> str:
    if not isinstance(part, list) or len(part) % 2 or len(part) < 6:
        return "its polygon has fewer than three points, or half a point"
    if not all(_is_finite(number) for number in part):
        return "its polygon holds something that is not a finite number"
    return ""


def _is_rectangle(polygons: Sequence[FloatArray]) -> bool:
    """Return whether an outline is one upright rectangle; its first point may be repeated at the end.

    Scripts that turn boxes into polygons write such ones as flat lists. In COCO's form, one may have been drawn so.
    """
    if len(polygons) != 1:
        return False
    points = polygons[0][:-1] if len(polygons[0]) == 5 and (polygons[0][0] == polygons[0][-1]).all() else polygons[0]
    if len(points) != 4:
        return False
    steps = np.roll(points, -1, axis=0) - points
    level = steps == 0  # (4, 2): along an edge, either x or y stays
    return bool((level.sum(axis=1) == 1).all() and (level[0] == level[2]).all() and (level[1] == level[3]).all())


def _box_outline(box: object, image: Image) -> Outline:
    """Return the outline of a box: x and y of its upper left corner, width, height."""
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(number) for number in box):
        return _broken("it has no outline, and its box is not four numbers: x, y, width, height")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return _broken("it has no outline, and its box covers nothing")
    found = _polygon_outline([[x, y, x + width, y, x + width, y + height, x, y + height]], image)
    outside = "it has no outline, and its box lies outside the photo"
    return _broken(outside) if found.problem else replace(found, is_box=True)


def _turned(outline: Outline, stored: Image, orientation: int) -> Outline:
    """Turn an outline in a photo as stored upright, as EXIF's orientation tells."""
    size = np.array([stored.width, stored.height])
    upright = size[::-1] if orientation in SIDEWAYS else size
    if outline.rle is None:
        turned = (turned_points(polygon / size, orientation) * upright for polygon in outline.polygons)
        return replace(outline, polygons=tuple(turned))
    from pycocotools import mask

    pixels = mask_pixels(outline.rle)
    if pixels is None:
        return _broken(f"its run-length encoding has more than {LARGEST_DRAWN_PX:,} pixels, too many to turn")
    return replace(outline, rle=mask.encode(np.asfortranarray(turned_pixels(pixels, orientation))))


def turned_points(points: FloatArray, orientation: int) -> FloatArray:
    """Turn points, (points, 2), in fractions of a photo as stored, as EXIF's orientation tells (EXIF 2.32)."""
    x, y = points[:, 0], points[:, 1]
    turned = {
        1: (x, y),
        2: (1 - x, y),
        3: (1 - x, 1 - y),
        4: (x, 1 - y),
        5: (y, x),
        6: (1 - y, x),
        7: (1 - y, 1 - x),
        8: (y, 1 - x),
    }
    return np.stack(turned[orientation], axis=1)


def turned_pixels(pixels: ByteArray, orientation: int) -> ByteArray:
    """Turn a mask, (height, width), from a photo as stored to upright."""
    turned = pixels.T if orientation in SIDEWAYS else pixels
    mirrored_rows = orientation in (3, 4, 7, 8)
    mirrored_columns = orientation in (2, 3, 6, 7)
    return turned[:: -1 if mirrored_rows else 1, :: -1 if mirrored_columns else 1]


def mask_pixels(rle: Mapping[str, Any], step: int = 1) -> ByteArray | None:
    """Return every ``step``-th row and column of a mask, 0 or 1, (rows, columns); None above LARGEST_DRAWN_PX."""
    height, width = rle["size"]
    rows, columns = np.arange(0, height, step), np.arange(0, width, step)
    if len(rows) * len(columns) > LARGEST_DRAWN_PX:
        return None
    runs = run_lengths(rle["counts"])
    if step == 1:
        inside: ByteArray = np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs)
        return inside.reshape(width, height).T
    # Counted, not expanded: a run of an odd number is inside.
    run = np.searchsorted(np.cumsum(runs), columns[:, None] * height + rows, side="right")
    sampled: ByteArray = (run % 2).astype(np.uint8)
    return sampled.T


def _is_finite(number: object) -> bool:
    try:
        return isinstance(number, int | float) and math.isfinite(number) and abs(number) <= LARGEST_COORDINATE_PX
    except OverflowError:  # an integer of hundreds of digits
        return False


def _within(polygon: FloatArray, size: FloatArray) -> FloatArray:
    """Clip a polygon, (points, 2), to the photo; the result may be empty (Sutherland & Hodgman 1974)."""
    for axis in (0, 1):
        for sign, limit in ((1.0, 0.0), (-1.0, -size[axis])):
            depth = sign * polygon[:, axis] - limit
            if (depth >= 0).all():
                continue
            points = []
            steps = zip(polygon, np.roll(polygon, -1, axis=0), depth, np.roll(depth, -1), strict=True)
            for point, ahead, here, there in steps:
                if here >= 0:
                    points.append(point)
                if (here >= 0) != (there >= 0):
                    points.append(point + (ahead - point) * (here / (here - there)))
            polygon = np.array(points, dtype=np.float64).reshape(-1, 2)
    return polygon


def polygon_area(polygon: FloatArray) -> float:
    """Return the area of a polygon, (points, 2), in square pixels by the shoelace formula."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _run_length_outline(segmentation: dict[str, Any], image: Image) -> Outline:
    from pycocotools import mask

    size = [int(image.height), int(image.width)]
    runs, problem = _checked_runs(segmentation, size)
    if problem:
        return _broken(problem)
    area = int(runs[1::2].sum())
    if area <= 0:
        return _broken("its run-length encoding covers nothing")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        rle = mask.frPyObjects({"size": size, "counts": counts}, *size)
    else:
        rle = {"size": size, "counts": counts.encode()}
    return Outline((), rle, min(1.0, area / (image.width * image.height)))


def _checked_runs(segmentation: dict[str, Any], size: list[int]) -> tuple[IntArray, str]:
    """Return the runs of a mask, or why it does not fit a photo of this (height, width): pycocotools checks nothing."""
    none = np.zeros(0, dtype=np.int64)
    counts, pixels = segmentation.get("counts"), size[0] * size[1]
    if segmentation.get("size") != size:
        return none, f"its run-length encoding has size {_short(segmentation.get('size'))}, the photo has {size}"
    if pixels > LARGEST_MASK_PX:
        return none, f"its run-length encoding has {pixels:,} pixels, more than any photo"
    if not isinstance(counts, list | str) or not counts:
        return none, "its run-length encoding has no counts"
    runs = run_lengths(counts.encode("utf-8", "replace")) if isinstance(counts, str) else _counted(counts, pixels)
    if not len(runs) or (runs < 0).any() or (runs > pixels).any() or int(runs.sum()) != pixels:
        return none, "its run-length counts do not add up to the photo's pixels"
    return runs, ""


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _counted(counts: list[Any], pixels: int) -> IntArray:
    """Return uncompressed run lengths as an array; empty if one is no whole number, or larger than the photo."""
    if not all(type(run) is int and 0 <= run <= pixels for run in counts):
        return np.zeros(0, dtype=np.int64)
    return np.array(counts, dtype=np.int64)


def run_lengths(text: bytes) -> IntArray:
    """Decode COCO's mask text to runs of pixels outside, inside, outside …, column by column: int64 (runs,).

    Each number is stored in pieces of five bits, lowest first; the bit of 32 marks that more pieces follow, and the
    highest bit of the last piece is the sign. From the fourth number on, each is the difference from the one two
    before it (maskApi.c of pycocotools, rleFrString). Broken text, and text with numbers that no photo has, gives none.
    """
    pieces = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not len(pieces) or (pieces < 0).any() or (pieces >= 64).any() or pieces[-1] & 32:
        return np.zeros(0, dtype=np.int64)
    ends = np.flatnonzero(pieces & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(pieces)) - np.repeat(starts, ends - starts + 1)
    if place.max() >= _PIECES_OF_A_RUN:
        return np.zeros(0, dtype=np.int64)
    numbers = np.add.reduceat((pieces & 31) << 5 * place, starts)
    numbers -= np.where(pieces[ends] & 16, 1 << 5 * (place[ends] + 1), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
