"""Rasterise outlines: the share of each grid cell that a material's outlines cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wastelens.data.annotations.coco import LARGEST_MASK_PX, Image, Outline
from wastelens.system.arrays import Float32Array, FloatArray, IntArray


def material_coverage(
    outlines: Sequence[tuple[Outline, str]], image: Image, material: str, shape: tuple[int, int]
) -> Float32Array:
    """Return the share of each cell inside the union of one material's outlines; crowds are litter too.

    Outlines are drawn by pycocotools at the annotated size, then averaged by area. No mask is ever unpacked to one
    byte per pixel: the average is computed from the run lengths, exactly.

    Args:
        outlines: usable outlines with their materials (``AnnotatedOutlines.of``).
        image: the photo as annotated.
        material: the material whose outlines count.
        shape: (rows, columns) of the grid over the photo.

    Returns:
        float32 (rows, columns) in 0 to 1; all zeros if the material has no outline, or only ones too small to cover any
        pixel's centre.
    """
    from pycocotools import mask

    size = _drawn_size(image)
    encoded = [rle for one, of in outlines if of == material for rle in _encoded(one, image, size)]
    if not encoded:
        return np.zeros(shape, dtype=np.float32)
    return _averaged(_run_lengths(mask.merge(encoded)["counts"]), size, shape)


def _drawn_size(image: Image) -> tuple[int, int]:
    """Return the (height, width) to draw at: as annotated, or smaller where no camera takes photos that large.

    Such sizes have polygons only: ``coco.outline`` accepts no run-length encoding for them.
    """
    shrunk = min(1.0, (LARGEST_MASK_PX / (image.width * image.height)) ** 0.5)
    return max(1, int(image.height * shrunk)), max(1, int(image.width * shrunk))


def _encoded(outline: Outline, image: Image, size: tuple[int, int]) -> list[Any]:
    """Return the run-length encodings of an outline's parts, in pycocotools' format."""
    from pycocotools import mask

    if outline.rle is not None:
        return [outline.rle]
    height, width = size
    scale = np.array([width / image.width, height / image.height])
    return list(mask.frPyObjects([(polygon * scale).ravel().tolist() for polygon in outline.polygons], height, width))


def _run_lengths(counts: bytes) -> IntArray:
    """Decode COCO's mask text to runs of pixels outside, inside, outside …, column by column: int64 (runs,).

    Each number is stored in pieces of five bits, lowest first; the bit of 32 marks that more pieces follow, and the
    highest bit of the last piece is the sign. From the fourth number on, each is the difference from the one two
    before it (maskApi.c of pycocotools, rleFrString).
    """
    pieces = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(pieces & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(pieces)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((pieces & 31) << 5 * place, starts)
    numbers -= np.where(pieces[ends] & 16, 1 << 5 * (place[ends] + 1), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _averaged(runs: IntArray, size: tuple[int, int], shape: tuple[int, int]) -> Float32Array:
    """Average a mask, given as runs, by area from its (height, width) to (rows, columns)."""
    (height, width), (rows, columns) = size, shape
    of_columns = _inside_columns(runs, size, rows)
    before = np.concatenate([np.zeros((1, rows)), np.cumsum(of_columns, axis=0)])
    edges = np.arange(columns + 1) * width / columns
    whole = np.minimum(edges.astype(np.intp), width - 1)
    up_to = before[whole] + (edges - whole)[:, None] * of_columns[whole]
    share = np.diff(up_to, axis=0).T / (height / rows * width / columns)
    return np.clip(share, 0, 1).astype(np.float32)


def _inside_columns(runs: IntArray, size: tuple[int, int], rows: int) -> FloatArray:
    """Count the inside pixels, and parts of pixels, of each column in each row of the grid: (width, rows).

    Along the run lengths that count grows piecewise linearly: by one per pixel inside, by nothing outside.
    """
    height, width = size
    some = np.flatnonzero(runs)
    boundaries = np.concatenate([[0], np.cumsum(runs[some])])
    inside_before = np.concatenate([[0], np.cumsum(np.where(some % 2, runs[some], 0))])
    edges = np.arange(rows + 1) * height / rows
    places = np.arange(width)[:, None] * height + edges
    inside: FloatArray = np.diff(np.interp(places, boundaries, inside_before), axis=1)
    return inside
