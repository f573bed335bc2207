"""The share of each cell of a grid over a photo that outlines cover: to teach models, and to score their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wastelens.data.annotations.coco import Image
from wastelens.data.annotations.outlines import AnnotatedOutlines
from wastelens.data.annotations.segmentation import LARGEST_MASK_PX, Outline, run_lengths
from wastelens.system.arrays import Float32Array, FloatArray, IndexArray, IntArray

_DRAWN_PX = 1_000_000  # the objects' cells are coarse: polygons need not be drawn at full size


@dataclass(frozen=True)
class ObjectCells:
    """The annotated objects of some photos, on the cells of a map over each square photo.

    Attributes:
        photos: how many photos there are; some may have no objects.
        photo: the object's photo, by its position, (objects,).
        material: the object's material, by its position, (objects,).
        coverage: the share of each cell inside the object's outline, float32 (objects, rows, columns).
        boxes: how many objects have a box instead of an outline.
    """

    photos: int
    photo: IndexArray
    material: IndexArray
    coverage: Float32Array
    boxes: int

    @property
    def held(self) -> Float32Array:
        """How much each cell and object have in common, 0 to 1: their intersection over the smaller of the two.

        1 for a cell that is covered as for one that holds the whole object, however small; float32 like ``coverage``.
        """
        cells = self.coverage.sum(axis=(1, 2), keepdims=True)
        return np.asarray(np.minimum(1.0, self.coverage / np.clip(cells, 1e-9, 1.0)), dtype=np.float32)

    @property
    def centres(self) -> Float32Array:
        """The middle of each object's area, row and column as shares of the photo's side: float32 (objects, 2)."""
        middles = [(np.arange(count) + 0.5) / count for count in self.coverage.shape[1:]]
        area = np.clip(self.coverage.sum(axis=(1, 2)), 1e-9, None)
        found = [self.coverage.sum(axis=other) @ middle / area for other, middle in zip((2, 1), middles, strict=True)]
        return np.stack(found, axis=1).astype(np.float32)

    def in_windows(self, photo: IndexArray, windows: Float32Array, materials: int) -> Float32Array:
        """Return how much windows and objects have in common, as ``held`` does, the most of each material's objects.

        Args:
            photo: the photo of each row of windows, (rows,).
            windows: top, left, bottom and right, as shares of the photo's side, (rows, windows, 4).
            materials: how many there are.

        Returns:
            float32 (rows, windows, materials), 0 to 1.
        """
        row, one = np.nonzero(photo[:, None] == self.photo)  # each object of each row's photo
        coverage, of_object = self.coverage[one], windows[row]
        along = []
        for first, last, count in zip((0, 1), (2, 3), self.coverage.shape[1:], strict=True):
            edges = np.arange(count + 1) / count
            inside = np.clip(edges, of_object[..., first, None], of_object[..., last, None])
            along.append(np.diff(inside, axis=-1) * count)
        common = np.einsum("owr,orc,owc->ow", along[0], coverage, along[1], optimize=True)
        of_windows = along[0].sum(axis=-1) * along[1].sum(axis=-1)
        smaller = np.minimum(of_windows, coverage.sum(axis=(1, 2))[:, None])
        held = np.clip(common / np.clip(smaller, 1e-9, None), 0, 1).astype(np.float32)
        labels = np.zeros((len(windows), materials, windows.shape[1]), dtype=np.float32)
        np.maximum.at(labels, (row, self.material[one]), held)
        return labels.transpose(0, 2, 1)

    def litter(self) -> Float32Array:
        """Return the largest ``held`` of each cell and any object: float32 (photos, rows, columns)."""
        labels = np.zeros((self.photos, *self.coverage.shape[1:]), dtype=np.float32)
        np.maximum.at(labels, self.photo, self.held)
        return labels


def object_cells(
    outlines: AnnotatedOutlines,
    file_names: Sequence[str],
    materials: Sequence[str],
    shape: tuple[int, int],
    progress: Callable[[], None] = lambda: None,
) -> ObjectCells:
    """Return the objects of these photos on maps of this (rows, columns); those too small for any pixel are left out.

    Args:
        outlines: of the dataset.
        file_names: flat names of the photos, in their order.
        materials: names, in the order of the labels.
        shape: of the map.
        progress: called for each photo.
    """
    found: list[tuple[int, int, Float32Array]] = []
    boxes = 0
    for number, name in enumerate(file_names):
        image = outlines.image(name)
        for one, material in outlines.of(name):
            coverage = material_coverage([(one, material)], image, material, shape, _DRAWN_PX)
            if coverage.any():
                found.append((number, materials.index(material), coverage))
                boxes += one.is_box
        progress()
    return ObjectCells(
        len(file_names),
        np.array([photo for photo, _, _ in found], dtype=np.intp),
        np.array([material for _, material, _ in found], dtype=np.intp),
        np.array([coverage for _, _, coverage in found], dtype=np.float32).reshape(-1, *shape),
        boxes,
    )


def material_coverage(
    outlines: Sequence[tuple[Outline, str]],
    image: Image,
    material: str,
    shape: tuple[int, int],
    largest_px: float = LARGEST_MASK_PX,
) -> Float32Array:
    """Return the share of each cell inside the union of one material's outlines; crowds are litter too.

    Outlines are drawn by pycocotools at the annotated size, then averaged by area. No mask is ever unpacked to one
    byte per pixel: the average is computed from the run lengths, exactly.

    Args:
        outlines: usable outlines with their materials (``AnnotatedOutlines.of``).
        image: the photo as annotated.
        material: the material whose outlines count.
        shape: (rows, columns) of the grid over the photo.
        largest_px: polygons on larger photos are drawn at this number of pixels.

    Returns:
        float32 (rows, columns) in 0 to 1; all zeros if the material has no outline, or only ones too small to cover any
        pixel's centre.
    """
    from pycocotools import mask

    # By default smaller than annotated only where no camera takes photos that large; run-length masks cannot shrink.
    has_mask = any(one.rle is not None for one, of in outlines if of == material)
    shrunk = 1.0 if has_mask else min(1.0, (largest_px / (image.width * image.height)) ** 0.5)
    size = max(1, int(image.height * shrunk)), max(1, int(image.width * shrunk))
    encoded = [rle for one, of in outlines if of == material for rle in _encoded(one, image, size)]
    if not encoded:
        return np.zeros(shape, dtype=np.float32)
    return _averaged(run_lengths(mask.merge(encoded)["counts"]), size, shape)


def _encoded(outline: Outline, image: Image, size: tuple[int, int]) -> list[Any]:
    """Return the run-length encodings of an outline's parts, in pycocotools' format."""
    from pycocotools import mask

    if outline.rle is not None:
        return [outline.rle]
    height, width = size
    scale = np.array([width / image.width, height / image.height])
    return list(mask.frPyObjects([(polygon * scale).ravel().tolist() for polygon in outline.polygons], height, width))


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
