"""Scores of a map against outlines: equal to slow loops, and at chance for maps without information."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as Picture
from tests.factories import image_bytes

from wastelens.data.photos.decode import decode
from wastelens.explain.scoring.localisation import (
    GRID_SIDE_PX,
    centre_map,
    grid_shape,
    is_empty,
    localise,
    to_grid,
)

shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))


@st.composite
def cases(draw):
    """Draw evidence with many ties and both signs, and the coverage of its cells."""
    shape = draw(shapes)
    evidence = draw(arrays.arrays(np.float32, shape, elements=st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 1.5, 7.0])))
    coverage = draw(arrays.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.125, 0.5, 1.0])))
    assume(coverage.any())
    return evidence, coverage


def slow_iou(evidence, coverage):
    """Try every threshold on every cell: (best, all)."""
    scores = {}
    for threshold in sorted(set(evidence.ravel().tolist())):
        intersection = selected = 0.0
        for value, inside in zip(evidence.ravel(), coverage.ravel(), strict=True):
            if value >= threshold:
                selected += 1
                intersection += float(inside)
        scores[threshold] = intersection / (selected + float(coverage.sum()) - intersection)
    return max(scores.values()), scores


@settings(deadline=None)
@given(cases())
def test_scores_are_those_of_slow_loops(case):
    evidence, coverage = case
    positive = [[max(0.0, float(value)) for value in row] for row in evidence]
    found = localise(evidence, coverage)
    share = float(coverage.astype(float).mean())
    assert found.area_share == pytest.approx(share)
    flat = [value for row in positive for value in row]
    if len(set(flat)) == 1:
        assert found.empty
        assert is_empty(evidence)
        assert (found.energy, found.pointing, found.iou) == (1.0, found.area_share, found.area_share)
        assert np.isnan(found.iou_threshold)
        return
    assert not found.empty
    pairs = list(zip(flat, coverage.ravel().tolist(), strict=True))
    assert found.energy == pytest.approx(sum(v * c for v, c in pairs) / sum(flat) / share)
    at_maximum = [c for v, c in pairs if v == max(flat)]
    assert found.pointing == pytest.approx(sum(at_maximum) / len(at_maximum))
    best, scores = slow_iou(np.array(positive), coverage)
    assert found.iou == pytest.approx(best)
    nearest = min(scores, key=lambda threshold: abs(threshold - found.iou_threshold * max(flat)))
    assert scores[nearest] == pytest.approx(best)


def ring(rows=48, columns=64):
    """Return the coverage of a disc, with partly covered cells at its rim."""
    y, x = np.ogrid[:rows, :columns]
    return np.clip(10.5 - np.hypot(y - 20, x - 40), 0, 1).astype(np.float32)


@pytest.mark.parametrize("value", [0.0, 0.3, 5.0, -1.0])
def test_a_map_that_is_the_same_everywhere_is_chance(value):
    coverage = ring()
    found = localise(np.full(coverage.shape, value, np.float32), coverage)
    assert found.empty
    share = coverage.astype(float).mean()
    assert (found.energy, found.pointing, found.iou) == (1.0, pytest.approx(share), pytest.approx(share))


def test_all_the_energy_inside_is_the_maximum():
    coverage = ring()
    evidence = np.where(coverage == 1, np.random.default_rng(0).uniform(1, 2, coverage.shape), 0).astype(np.float32)
    found = localise(evidence, coverage)
    assert found.energy == pytest.approx(1 / found.area_share)
    assert found.pointing == 1
    assert localise(np.float32(1) - (coverage > 0), coverage).energy == 0


def test_the_outlines_themselves_are_found_whole_and_at_any_scale():
    inside = (ring() > 0.5).astype(np.float32)
    found = localise(inside, inside)
    assert (found.iou, found.iou_threshold, found.pointing) == (1.0, 1.0, 1.0)
    half = np.where(inside > 0, np.float32(3e-6), np.float32(1e-6))  # as small as gradients are
    found = localise(half, inside)
    assert found.iou == 1.0
    assert found.energy == pytest.approx(3 / (1 + 2 * found.area_share))


def test_noise_is_at_chance_on_average():
    rng = np.random.default_rng(3)
    coverage = ring()
    found = [localise(rng.random(coverage.shape, dtype=np.float32), coverage) for _ in range(400)]
    assert np.mean([one.energy for one in found]) == pytest.approx(1, abs=0.01)
    assert np.mean([one.pointing for one in found]) == pytest.approx(found[0].area_share, abs=0.06)


def test_evidence_against_the_material_does_not_count():
    coverage = ring()
    evidence = np.random.default_rng(1).normal(size=coverage.shape).astype(np.float32)
    assert localise(evidence, coverage) == localise(np.maximum(evidence, 0), coverage)


@pytest.mark.parametrize(
    ("evidence", "coverage", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), "coverage"),
        (np.array([[1.0, np.nan]]), np.ones((1, 2)), "finite"),
        (np.array([[1.0, np.inf]]), np.ones((1, 2)), "finite"),
        (np.ones((2, 3)), np.zeros((2, 3)), "cover nothing"),
    ],
)
def test_maps_that_cannot_be_scored_are_refused(evidence, coverage, message):
    with pytest.raises(ValueError, match=message):
        localise(evidence.astype(np.float32), coverage.astype(np.float32))


@pytest.mark.parametrize("shape", [(192, 256), (256, 1), (7, 9)])
def test_the_control_stands_in_the_middle_whatever_the_photo(shape):
    control = centre_map(shape)
    assert control.dtype == np.float32
    assert control.shape == shape
    np.testing.assert_array_equal(control, control[::-1, ::-1])
    for axis, side in enumerate(shape):
        profile = control.sum(axis=1 - axis)
        assert profile.argmax() in ((side - 1) // 2, side // 2)
        one_deviation = np.interp(0.25, (np.arange(side) + 0.5) / side, profile) / profile.max()
        if side > 100:
            assert one_deviation == pytest.approx(np.exp(-0.5), abs=0.01)


def test_the_control_is_above_chance_in_the_middle_and_below_in_a_corner():
    shape = (48, 64)
    middle, corner = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    middle[20:28, 28:36], corner[:8, :8] = 1, 1
    assert localise(centre_map(shape), middle).energy > 2
    assert localise(centre_map(shape), corner).energy < 0.5


sides = st.integers(1, 24)
maps = arrays.arrays(np.float32, st.tuples(sides, sides), elements=st.floats(-1e3, 1e3, width=32))
# How Pillow turns an upright picture into what a camera stores under an EXIF orientation (TIFF 6.0, tag 274).
STORED = {
    1: None,
    2: Picture.Transpose.FLIP_LEFT_RIGHT,
    3: Picture.Transpose.ROTATE_180,
    4: Picture.Transpose.FLIP_TOP_BOTTOM,
    5: Picture.Transpose.TRANSPOSE,
    6: Picture.Transpose.ROTATE_90,
    7: Picture.Transpose.TRANSVERSE,
    8: Picture.Transpose.ROTATE_270,
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
    upright = Picture.fromarray(picture)
    turned = upright if STORED[orientation] is None else upright.transpose(STORED[orientation])
    exif = Picture.Exif()
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
