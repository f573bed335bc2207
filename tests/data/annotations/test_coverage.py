"""Coverage of a grid's cells: equal to averages of pycocotools' masks."""

from __future__ import annotations

import tracemalloc

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from wastelens.data.annotations.coco import Annotation, Image
from wastelens.data.annotations.coverage import ObjectCells, material_coverage, object_cells
from wastelens.data.annotations.segmentation import outline

WIDTH, HEIGHT = 60, 45
PHOTO = Image(0, "a.jpg", WIDTH, HEIGHT)
SQUARE = [10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0]
TRIANGLE = [20.0, 15.0, 55.5, 20.25, 33.0, 44.0]


def usable(segmentation, image=PHOTO, crowd=0, material="glass"):
    decoded = outline(
        Annotation(0, 0, segmentation=msgspec.Raw(msgspec.json.encode(segmentation)), iscrowd=crowd), image
    )
    assert not decoded.problem
    return decoded, material


def blob(seed, size=(HEIGHT, WIDTH)):
    """Draw a ragged mask, uint8 (height, width)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: size[0], : size[1]]
    radius = np.hypot(rows - rng.uniform(0, size[0]), columns - rng.uniform(0, size[1]))
    return np.asfortranarray(radius + rng.normal(0, 2, size) < min(size) / 3, dtype=np.uint8)


def compressed(mask):
    encoded = coco_mask.encode(mask)
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def uncompressed(mask):
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat.astype(int))) + 1
    runs = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def union(segmentations, height=HEIGHT, width=WIDTH):
    """Decode pycocotools' masks one by one and join them by logical or: bool (height, width)."""
    joined = np.zeros((height, width), dtype=bool)
    for one in segmentations:
        parts = one if isinstance(one, list) else [one]
        for part in parts:
            if isinstance(part, list):
                (rle,) = coco_mask.frPyObjects([part], height, width)
            elif isinstance(part["counts"], list):
                rle = coco_mask.frPyObjects(part, height, width)
            else:
                rle = {"size": part["size"], "counts": part["counts"].encode()}
            joined = np.logical_or(joined, np.array(coco_mask.decode(rle)))
    return joined


def averaged(mask, shape):
    """Average a mask whose axes are repeated until cells are whole blocks."""
    cells = mask.astype(float)
    for axis, count in enumerate(shape):
        fine = np.moveaxis(np.repeat(cells, count, axis=axis), axis, 0)
        cells = np.moveaxis(fine.reshape(count, mask.shape[axis], -1).mean(axis=1), 0, axis)
    return cells


CASES = {
    "a polygon": [[SQUARE]],
    "one of several parts": [[SQUARE, TRIANGLE]],
    "overlapping objects": [[SQUARE], [TRIANGLE], [SQUARE]],
    "compressed run lengths": [compressed(blob(1))],
    "uncompressed run lengths": [uncompressed(blob(2))],
    "the whole photo": [uncompressed(np.ones((HEIGHT, WIDTH), np.uint8))],
    "everything at once": [[SQUARE, TRIANGLE], compressed(blob(3)), uncompressed(blob(4)), [TRIANGLE]],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (9, 12), (16, 11), (192, 256), (1, 1), (100, 7)])
def test_coverage_is_the_average_of_pycocotools_union(case, shape):
    coverage = material_coverage([usable(one) for one in CASES[case]], PHOTO, "glass", shape)
    expected = union(CASES[case])
    assert coverage.dtype == np.float32
    np.testing.assert_allclose(coverage, averaged(expected, shape), atol=1e-6)
    assert coverage.mean() == pytest.approx(expected.mean(), abs=1e-5)
    if shape == (HEIGHT, WIDTH):
        np.testing.assert_array_equal(coverage > 0.5, expected)


@settings(deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_any_mask_is_averaged_exactly(height, width, seed, density, rows, columns):
    mask = np.asfortranarray(np.random.default_rng(seed).random((height, width)) < density, dtype=np.uint8)
    mask[-1, -1] = 1  # one pixel at least
    image = Image(0, "a.jpg", width, height)
    coverage = material_coverage([usable(compressed(mask), image)], image, "glass", (rows, columns))
    np.testing.assert_allclose(coverage, averaged(mask, (rows, columns)), atol=1e-6)


def test_runs_as_long_as_in_photos():
    """Decode counts of five and more pieces of five bits, and negative differences between them."""
    mask = np.zeros((3000, 2000), dtype=np.uint8, order="F")
    mask[1000:1800, 700:900], mask[0, 1500], mask[5:9, 1990:] = 1, 1, 1
    image = Image(0, "a.jpg", 2000, 3000)
    coverage = material_coverage([usable(compressed(mask), image)], image, "glass", (30, 20))
    expected = mask.reshape(30, 100, 20, 100).mean(axis=(1, 3))
    np.testing.assert_allclose(coverage, expected, atol=1e-6)


def test_only_the_materials_own_outlines_count_and_crowds_count_too():
    outlines = [usable([SQUARE], crowd=1), usable([TRIANGLE], material="paper")]
    np.testing.assert_array_equal(material_coverage(outlines, PHOTO, "glass", (HEIGHT, WIDTH)) > 0.5, union([[SQUARE]]))
    np.testing.assert_array_equal(
        material_coverage(outlines, PHOTO, "paper", (HEIGHT, WIDTH)) > 0.5, union([[TRIANGLE]])
    )
    assert not material_coverage(outlines, PHOTO, "toxic", (9, 12)).any()
    assert material_coverage([], PHOTO, "glass", (9, 12)).shape == (9, 12)


def test_an_outline_too_small_for_any_pixel_covers_nothing():
    speck = usable([[10.1, 10.1, 10.2, 10.1, 10.2, 10.2]])
    assert not material_coverage([speck], PHOTO, "glass", (9, 12)).any()


def test_annotated_sizes_beyond_any_camera_take_little_memory():
    width, height = 400_000, 300_000  # a mask of 120 GB
    image = Image(0, "a.jpg", width, height)
    corners = [0.25 * width, 0.5 * height, 0.5 * width, 0.5 * height, 0.5 * width, height, 0.25 * width, height]
    tracemalloc.start()
    try:
        coverage = material_coverage([usable([corners], image)], image, "glass", (192, 256))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1e9
    expected = np.zeros((192, 256))
    expected[96:, 64:128] = 1
    assert coverage.mean() == pytest.approx(0.125, abs=1e-4)
    assert np.abs(coverage - expected).mean() < 1e-4


class Outlined:
    """Two photos with objects, and one without."""

    def image(self, name):
        return PHOTO

    def of(self, name):
        return {"a": [usable([SQUARE]), usable([TRIANGLE], material="paper")], "b": [usable([TRIANGLE])], "c": []}[name]


def test_objects_on_cells_are_their_coverage():
    told = []
    found = object_cells(Outlined(), ["a", "b", "c"], ("paper", "glass"), (3, 4), lambda: told.append(1))
    assert len(told) == found.photos == 3
    assert found.photo.tolist() == [0, 0, 1]
    assert found.material.tolist() == [1, 0, 1]
    assert found.boxes == 0
    for one, outline_of in zip(found.coverage, [SQUARE, TRIANGLE, TRIANGLE], strict=True):
        expected = material_coverage([usable([outline_of])], PHOTO, "glass", (3, 4))
        np.testing.assert_allclose(one, expected, atol=1e-6)
    assert not found.litter()[2].any()
    assert object_cells(Outlined(), ["c"], ("paper",), (3, 4)).coverage.shape == (0, 3, 4)


def test_litter_is_the_share_of_the_smaller_of_object_and_cell():
    coverage = np.zeros((3, 2, 2), np.float32)
    coverage[0, 0] = [0.05, 0.05]  # small, astride two cells
    coverage[1] = [[1.0, 1.0], [0.5, 0.0]]  # large
    coverage[2, 1, 1] = 0.02
    found = ObjectCells(2, np.array([0, 0, 1]), np.array([1, 0, 1]), coverage, boxes=0)
    litter = found.litter()
    assert litter.shape == (2, 2, 2)
    for photo, row, column in np.ndindex(litter.shape):
        shares = [
            min(1.0, one[row, column] / min(1.0, one.sum()))
            for one, of in zip(coverage, found.photo, strict=True)
            if of == photo
        ]
        assert litter[photo, row, column] == pytest.approx(max(shares, default=0.0))


def test_polygons_drawn_smaller_cover_about_the_same():
    image = Image(0, "a.jpg", 3000, 2250)
    large = usable([[50 * number for number in TRIANGLE]], image)
    exact, coarse = (material_coverage([large], image, "glass", (9, 12), largest) for largest in (1e9, 1e5))
    np.testing.assert_allclose(exact, coarse, atol=0.02)


def two_objects():
    """Return an object of a quarter of a photo, and in another photo two of one cell each, on four by four cells."""
    coverage = np.zeros((3, 4, 4), np.float32)
    coverage[0, :2, :2] = 1.0
    coverage[1, 3, 3] = 1.0
    coverage[2, 0, 3] = 0.5
    return ObjectCells(2, np.array([0, 1, 1]), np.array([0, 1, 1]), coverage, boxes=0)


def test_centres_are_the_middles_of_the_areas():
    np.testing.assert_allclose(two_objects().centres, [[0.25, 0.25], [0.875, 0.875], [0.125, 0.875]])


def test_litter_is_the_most_of_any_object():
    litter = two_objects().litter()
    assert litter.shape == (2, 4, 4)
    assert litter[0, :2, :2].min() == 1.0
    assert litter[1, 0, 3] == litter[1, 3, 3] == 1.0
    assert litter.sum() == 6.0


@given(st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_windows_hold_what_they_have_in_common_with_objects_as_drawn_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    coverage = np.kron(rng.integers(0, 2, (4, 4, 4)), np.ones((1, 2, 2))).astype(np.float32)
    objects = ObjectCells(3, np.array([0, 0, 1, 2]), rng.integers(0, 3, 4), coverage, boxes=0)
    corners = np.sort(rng.integers(0, 9, (5, 6, 2, 2)), axis=2)
    corners[..., 1, :] = np.maximum(corners[..., 1, :], corners[..., 0, :] + 1)
    windows = corners.reshape(5, 6, 4)  # in cells of 8 by 8; top, left, bottom, right
    photo = rng.integers(0, 3, 5)
    found = objects.in_windows(photo, (windows / 8).astype(np.float32), 3)
    expected = np.zeros((5, 6, 3))
    for row in range(5):
        for number, (top, left, bottom, right) in enumerate(windows[row]):
            inside = np.zeros((8, 8))
            inside[top : min(bottom, 8), left : min(right, 8)] = 1
            for of, material, cells in zip(objects.photo, objects.material, coverage, strict=True):
                smaller = min(inside.sum(), cells.sum())
                if of == photo[row] and smaller:
                    held = (inside * cells).sum() / smaller
                    expected[row, number, material] = max(expected[row, number, material], held)
    np.testing.assert_allclose(found, expected, atol=1e-5)
