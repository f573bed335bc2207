"""Rows of several arrays read like their concatenation, and nothing else is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories import photo_array

from wastelens.data.batches.photo_rows import PhotoRows


@st.composite
def chosen_rows(draw):
    """Draw sources of 0 to 6 photos with some of their rows; return PhotoRows and the concatenation."""
    sources = []
    for number in range(draw(st.integers(1, 3))):
        photos = photo_array(draw(st.integers(0, 6)), 4, seed=number)
        rows = draw(st.lists(st.integers(0, len(photos) - 1), max_size=8)) if len(photos) else []
        sources.append((photos, np.array(rows, dtype=np.intp)))
    return PhotoRows(sources), np.concatenate([photos[rows] for photos, rows in sources])


@given(made=chosen_rows(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_indexing_is_that_of_the_concatenated_photos(made, data):
    rows, whole = made
    assert (len(rows), rows.shape, rows.side_px, rows.dtype) == (len(whole), whole.shape, 4, np.uint8)
    n = len(whole)
    indices = st.lists(st.integers(-n, n - 1), max_size=9) if n else st.just([])
    several = np.array(data.draw(indices), dtype=np.intp)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=np.bool_)
    one = [data.draw(st.integers(-n, n - 1))] if n else []
    for wanted in (data.draw(st.slices(n)), several, mask, *one):
        gathered = rows[wanted]
        np.testing.assert_array_equal(gathered, whole[wanted])
        assert type(gathered) is np.ndarray
        assert gathered.dtype == np.uint8


def test_copies_of_a_memory_map_that_stays_on_the_disk(tmp_path):
    pixels = photo_array(9, 4)
    np.save(tmp_path / "photos.npy", pixels)
    mapped = np.load(tmp_path / "photos.npy", mmap_mode="r")
    rows = PhotoRows([(mapped, [3, 1]), (pixels, [8])])
    for gathered in (rows[:], rows[np.array([0, 1])], rows[1]):
        assert type(gathered) is np.ndarray
        gathered[:] = 0  # a memory map could not be written to
    np.testing.assert_array_equal(rows[:], pixels[[3, 1, 8]])


def test_no_more_is_read_than_is_asked_for():
    class Watched:
        """An array that records which photos were read."""

        def __init__(self):
            self.pixels = photo_array(50, 4)
            self.shape, self.dtype, self.read = self.pixels.shape, self.pixels.dtype, []

        def __len__(self):
            return len(self.pixels)

        def __getitem__(self, rows):
            self.read.extend(rows.tolist())
            return self.pixels[rows]

    a, b = Watched(), Watched()
    rows = PhotoRows([(a, np.arange(10, 50)), (b, np.arange(50))])
    assert (a.read, b.read) == ([], [])
    rows[np.array([2, 0])]
    assert (a.read, b.read) == ([12, 10], [])
    rows[38:42]
    assert (a.read, b.read) == ([12, 10, 48, 49], [0, 1])


def test_rows_of_rows():
    pixels = photo_array(9, 4)
    inner = PhotoRows([(pixels, [8, 6, 4, 2])])
    np.testing.assert_array_equal(PhotoRows([(inner, [3, 0]), (pixels, [1])])[:], pixels[[2, 8, 1]])


@pytest.mark.parametrize("indices", [[-1], [9], [0, 9], [0.5], [[0, 1]], [True] * 9])
def test_rows_that_are_none_of_the_photos(indices):
    with pytest.raises(IndexError):
        PhotoRows([(photo_array(9, 4), indices)])[:]


@pytest.mark.parametrize("row", [3, -4, np.array([0, 3])])
def test_no_such_row(row):
    with pytest.raises(IndexError):
        PhotoRows([(photo_array(9, 4), [1, 2, 3])])[row]


@pytest.mark.parametrize(
    "sources",
    [
        [],
        [(photo_array(2, 4), [0]), (photo_array(2, 5), [0])],
        [(photo_array(2, 4).astype(np.float32), [0])],
        [(photo_array(2, 4)[0], [0])],
    ],
)
def test_what_is_no_photos_of_one_size(sources):
    with pytest.raises(ValueError, match="photo"):
        PhotoRows(sources)
