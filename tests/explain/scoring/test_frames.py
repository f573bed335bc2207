"""Mapping the network's square back to the photo: places are right, and values stay within their range."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from tests.factories import image_bytes

from wastelens.data.photos.decode import decode
from wastelens.explain.scoring.frames import GRID_SIDE_PX, grid_shape, to_grid

sides = st.integers(1, 24)
maps = arrays.arrays(np.float32, st.tuples(sides, sides), elements=st.floats(-1e3, 1e3, width=32))
# How Pillow turns an upright picture into what a camera stores under an EXIF orientation (TIFF 6.0, tag 274).
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (3264, 2448, (192, 256)),
        (2448, 3264, (256, 192)),
        (100, 100, (256, 256)),
        (9000, 10, (1, 256)),
        (1, 1e6, (256, 1)),
    ],
)
def test_the_grid_has_the_photos_proportions(width, height, shape):
    assert grid_shape(width, height) == shape


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (float("nan"), 10), (10, float("inf"))])
def test_photos_without_a_size_have_no_grid(size):
    with pytest.raises(ValueError, match="no grid"):
        grid_shape(*size)


def slow_axis(values, target):
    """Resize one axis: by the mean over each cell's extent if it shrinks, between the nearest centres if it grows."""
    size = len(values)
    out = []
    for cell in range(target):
        if target < size:
            low, high = cell * size / target, (cell + 1) * size / target
            overlaps = [max(0.0, min(high, k + 1) - max(low, k)) for k in range(size)]
            out.append(sum(o * v for o, v in zip(overlaps, values, strict=True)) / sum(overlaps))
        else:
            out.append(np.interp((cell + 0.5) * size / target, np.arange(size) + 0.5, values))
    return np.array(out)


@given(maps, sides, sides)
def test_each_axis_is_averaged_or_interpolated_and_stays_within_its_values(cells, rows, columns):
    stretched = to_grid(cells, (rows, columns))
    assert stretched.dtype == np.float32
    assert stretched.shape == (rows, columns)
    along_rows = np.apply_along_axis(slow_axis, 0, cells.astype(np.float64), rows)
    expected = np.apply_along_axis(slow_axis, 1, along_rows, columns)
    np.testing.assert_allclose(stretched, expected, rtol=1e-5, atol=1e-3)
    assert cells.min() <= stretched.min() <= stretched.max() <= cells.max()


@given(st.floats(-1e6, 1e6, width=32), sides, sides, sides, sides)
def test_a_constant_stays_exactly_that_constant(value, height, width, rows, columns):
    assert (to_grid(np.full((height, width), value, np.float32), (rows, columns)) == np.float32(value)).all()


def test_growing_maps_agree_with_opencv():
    cells = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    expected = cv2.resize(cells, (256, 192), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(to_grid(cells, (192, 256)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("cells", "shape"), [(np.zeros(4), (2, 2)), (np.zeros((0, 3)), (2, 2)), (np.ones((2, 2)), (0, 2))]
)
def test_anything_but_a_map_is_refused(cells, shape):
    with pytest.raises(ValueError, match="cannot be stretched"):
        to_grid(cells, shape)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("side_px", "cells"), [(160, 160), (160, 40), (512, 512)])
def test_a_mark_comes_back_at_its_place_in_the_upright_photo(orientation, side_px, cells):
    width, height, left, top, right, bottom = 480, 360, 300, 60, 420, 150
    picture = np.full((height, width, 3), 90, np.uint8)
    picture[top:bottom, left:right] = (250, 10, 10)
    upright = Image.fromarray(picture)
    turned = upright if STORED[orientation] is None else upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    photo = decode(image_bytes(turned, exif=exif, quality=95, subsampling=0), side_px)
    square = photo.pixels_0_255.astype(np.float32)
    redness = np.maximum(square[..., 0] - square[..., 1], 0)
    evidence = to_grid(redness, (cells, cells))  # as coarse as a method may be
    shape = grid_shape(photo.width, photo.height)
    assert shape == (192, GRID_SIDE_PX)
    found = to_grid(evidence, shape) > 120
    scale = GRID_SIDE_PX / width
    expected = np.zeros(shape, bool)
    expected[round(top * scale) : round(bottom * scale), round(left * scale) : round(right * scale)] = True
    rows, columns = np.nonzero(found)
    mark_rows, mark_columns = np.nonzero(expected)
    assert rows.mean() == pytest.approx(mark_rows.mean(), abs=1)
    assert columns.mean() == pytest.approx(mark_columns.mean(), abs=1)
    assert (found & expected).sum() / (found | expected).sum() > 0.85
