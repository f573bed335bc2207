"""Rows of several arrays are as their concatenation is; batches hold each photo once, by (seed, epoch) alone."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories import photo_array

from wastelens.config.networks import NoiseConfig
from wastelens.data.batches.photo_rows import PhotoBatches, PhotoRows
from wastelens.system.prefetch import AHEAD, prepared_ahead

MASKING = NoiseConfig(name="masking", strength=0.3)


@st.composite
def chosen_rows(draw):
    """Sources of 0 to 6 photos with rows of theirs, and what these are one behind the other."""
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
        """Photos that note which were read."""

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


def batches(pixels=None, **options):
    pixels = photo_array(23, 8) if pixels is None else pixels
    rows = PhotoRows([(pixels[:10], np.arange(10)), (pixels[10:], np.arange(len(pixels) - 10))])
    return PhotoBatches(rows, **{"batch_size": 5, "seed": 0, **options})


def epoch_of(made, epoch):
    pieces = list(made.epoch(epoch))
    return tuple(np.concatenate([piece[side] for piece in pieces]) for side in (0, 1))


def sorted_photos(photos):
    return sorted(photo.tobytes() for photo in photos)


@pytest.mark.parametrize("noise", [None, NoiseConfig(name="none", strength=0.0), MASKING])
def test_every_photo_exactly_once_an_epoch(noise):
    pixels = photo_array(23, 8)
    for epoch in range(2):
        _, clean = epoch_of(batches(pixels, noise=noise), epoch)
        assert sorted_photos(clean) == sorted_photos(pixels)


@pytest.mark.parametrize(("batch_size", "sizes"), [(5, [5, 5, 5, 5, 3]), (23, [23]), (100, [23]), (1, [1] * 23)])
def test_batches_and_their_number(batch_size, sizes):
    made = batches(batch_size=batch_size)
    assert [len(clean) for _, clean in made.epoch(0)] == sizes
    assert len(made) == len(sizes)


@pytest.mark.parametrize("noise", [None, NoiseConfig(name="none", strength=0.0)])
def test_without_noise_both_are_one_array(noise):
    assert all(shown is wanted for shown, wanted in batches(noise=noise).epoch(0))


def test_noise_is_on_what_is_shown_alone():
    for shown, wanted in batches(np.full((23, 8, 8, 3), 99, dtype=np.uint8), noise=MASKING).epoch(0):
        assert set(np.unique(shown)) == {0, 99}
        assert (wanted == 99).all()


@pytest.mark.parametrize("noise", [None, MASKING])
def test_seed_and_epoch_alone_decide(noise):
    made = batches(noise=noise)
    list(made.epoch(0))
    half = made.epoch(6)
    next(half)
    half.close()
    first, again = epoch_of(made, 7), epoch_of(batches(noise=noise), 7)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[1], epoch_of(made, 8)[1])
    assert not np.array_equal(first[1], epoch_of(batches(noise=noise, seed=1), 7)[1])


def test_each_batch_and_epoch_has_noise_of_its_own():
    same = np.full((20, 8, 8, 3), 99, dtype=np.uint8)
    made = batches(same, noise=MASKING)
    shown = [noisy.tobytes() for epoch in range(3) for noisy, _ in made.epoch(epoch)]
    assert len(set(shown)) == len(shown) == 12


def test_an_error_in_the_thread_reaches_the_loop():
    def make(number):
        return 1 // (2 - number)

    with pytest.raises(ZeroDivisionError):
        list(prepared_ahead(make, 5))


def test_made_in_order_in_one_other_thread_and_only_a_little_ahead():
    made, threads = [], set()

    def make(number):
        made.append(number)
        threads.add(threading.get_ident())
        return number

    results = prepared_ahead(make, 20)
    assert made == []
    assert [next(results), next(results)] == [0, 1]
    results.close()  # waits for what the thread has begun
    assert made == list(range(len(made)))
    assert len(made) <= 2 + AHEAD
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert list(prepared_ahead(make, 20)) == list(range(20))
    assert list(prepared_ahead(make, 0)) == []
