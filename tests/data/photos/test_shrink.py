"""Photos shrink to averages of areas: to any side, or by a whole factor in square blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.photos.shrink import (
    area_average,
    chunks,
    photos_at_side,
    shrink,
    shrink_factor,
    shrunk_photos,
    shrunk_side,
)


def photos(count, side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("side", "wanted", "factor", "shrunk"), [(160, 32, 5, 32), (96, 32, 3, 32), (100, 32, 3, 33), (16, 32, 1, 16)]
)
def test_factor_leaves_the_side_or_a_little_more(side, wanted, factor, shrunk):
    assert (shrink_factor(side, wanted), shrunk_side(side, wanted)) == (factor, shrunk)


@given(st.integers(4, 40), st.integers(4, 40))
def test_each_pixel_is_the_rounded_mean_of_its_square(side, wanted):
    picture = photos(2, side)
    factor, smaller = shrink_factor(side, wanted), shrunk_side(side, wanted)
    small = shrink(picture, wanted)
    assert small.shape == (2, smaller, smaller, 3)
    for row in range(smaller):
        square = picture[1, row * factor : (row + 1) * factor, :factor].astype(float).mean(axis=(0, 1))
        assert np.abs(small[1, row, 0] - square).max() <= 0.5


@pytest.mark.parametrize(("side", "wanted"), [(60, 20), (60, 27), (60, 59), (47, 16), (16, 8)])
def test_to_any_side_each_pixel_is_the_mean_of_its_area(side, wanted, tmp_path):
    picture = photos(2, side)
    small = photos_at_side(picture, wanted, tmp_path)
    assert (small.shape, small.dtype) == ((2, wanted, wanted, 3), np.uint8)
    assert np.abs(small - area_average(picture, wanted)).max() <= 0.51


def test_photos_are_shrunk_in_chunks_and_no_file_remains(tmp_path):
    source = photos(600, 12)
    rows = np.arange(599, -1, -1)
    done = []
    small = shrunk_photos(PhotoRows([(source, rows)]), 4, tmp_path, done.append)
    np.testing.assert_array_equal(small, shrink(source[rows], 4))
    assert sum(done) == 600
    assert len(done) > 1
    assert list(tmp_path.iterdir()) == []
    small[:] = 0  # writable


@pytest.mark.parametrize(("side", "at_once"), [(12, 256), (128, 256), (512, 16), (4096, 1)])
def test_chunks_are_smaller_where_photos_are_large(side, at_once):
    found = list(chunks(600, side))
    assert found[0] == slice(0, at_once)
    assert [one.start for one in found[1:]] == [one.stop for one in found[:-1]]
    assert found[-1].stop == 600
    assert list(chunks(0, side)) == []
