"""Batches hold every row once per epoch, in an order set by (seed, epoch) alone; labelled ones only from train.

Noise has the configured strength, depends on the generator alone, and never modifies its input.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories import config, photo_array, table

from wastelens.config.networks import NoiseConfig
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.batches.pipeline import PhotoBatches, TrainingBatches, add_noise
from wastelens.data.prepared.tables import LabelTable, TestTable, TrainTable, ValTable

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

ROWS = 23
MASKING = NoiseConfig(name="masking", strength=0.3)


@pytest.fixture(scope="module")
def photos():
    """Return photos of which photo i is grey at level i, so that a batch shows which photos are in it."""
    levels = np.arange(40, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (40, 16, 16, 3)).copy()


def batches(photos, rows=None, policy="", **options):
    train = table(TrainTable, ROWS, first_photo=10)
    train = train if rows is None else train.take(rows)
    augmentation = config("train", augment="true", augment_policy=policy).augmentation if policy else None
    return TrainingBatches(train, photos, **{"batch_size": 5, "seed": 0, "policy": augmentation, **options})


def epoch_of(made, epoch):
    pieces = list(made.epoch(epoch))
    return np.concatenate([x for x, _ in pieces]), np.concatenate([y for _, y in pieces])


def test_every_row_exactly_once_an_epoch_with_its_labels(photos):
    train = table(TrainTable, ROWS, first_photo=10)
    for epoch in range(3):
        x, y = epoch_of(batches(photos), epoch)
        index = x[:, 0, 0, 0].astype(int)
        assert sorted(index) == list(range(10, 10 + ROWS))
        np.testing.assert_array_equal(y, train.labels[index - 10])
        assert (x.dtype, y.dtype) == (np.uint8, np.float32)


def test_repeated_rows_come_as_often_as_they_are_repeated(photos):
    rows = np.array([0, 0, 0, 4, 4, 7])
    x, _ = epoch_of(batches(photos, rows), 0)
    assert sorted(x[:, 0, 0, 0]) == [10, 10, 10, 14, 14, 17]


@pytest.mark.parametrize(("batch_size", "sizes"), [(5, [5, 5, 5, 5, 3]), (23, [23]), (100, [23]), (1, [1] * 23)])
def test_batches_and_their_number(photos, batch_size, sizes):
    made = batches(photos, batch_size=batch_size)
    assert [len(x) for x, _ in made.epoch(0)] == sizes
    assert len(made) == len(sizes)


@pytest.mark.parametrize("policy", ["", "default"])
def test_seed_and_epoch_alone_decide(photos, policy):
    noisy = photo_array(40, seed=3)
    made = batches(noisy, policy=policy)
    for _ in made.epoch(0):
        pass
    x, y = epoch_of(made, 7)
    again_x, again_y = epoch_of(batches(noisy, policy=policy), 7)
    np.testing.assert_array_equal(x, again_x)
    np.testing.assert_array_equal(y, again_y)
    assert not np.array_equal(x, epoch_of(made, 8)[0])
    assert not np.array_equal(x, epoch_of(batches(noisy, policy=policy, seed=1), 7)[0])


def test_an_epoch_left_in_the_middle_changes_nothing(photos):
    noisy = photo_array(40, seed=3)
    made = batches(noisy, policy="light")
    half = made.epoch(0)
    next(half)
    half.close()
    np.testing.assert_array_equal(epoch_of(made, 0)[0], epoch_of(batches(noisy, policy="light"), 0)[0])


@pytest.mark.parametrize("policy", ["none", "light", "default"])
def test_cache_stays_as_it_is(policy):
    noisy = photo_array(40, seed=3)
    before = noisy.copy()
    x, _ = epoch_of(batches(noisy, policy=policy), 0)
    x[:] = 0
    np.testing.assert_array_equal(noisy, before)
    assert x.shape == (ROWS, 16, 16, 3)
    assert x.dtype == np.uint8


def test_memory_mapped_cache_gives_the_same(tmp_path):
    noisy = photo_array(40, seed=3)
    np.save(tmp_path / "photos.npy", noisy)
    mapped = np.load(tmp_path / "photos.npy", mmap_mode="r")
    np.testing.assert_array_equal(epoch_of(batches(mapped), 0)[0], epoch_of(batches(noisy), 0)[0])


@pytest.mark.parametrize("kind", [ValTable, TestTable, LabelTable])
def test_only_train_tables_are_trained_on(photos, kind):
    with pytest.raises(TypeError, match=f"training takes a TrainTable, not a {kind.__name__}"):
        TrainingBatches(table(kind, ROWS), photos, batch_size=5, policy=None, seed=0)


def test_an_error_in_the_thread_reaches_the_loop(photos):
    with pytest.raises(IndexError):
        list(batches(photos[:12]).epoch(0))


def photo_batches(pixels=None, **options):
    pixels = photo_array(23, 8) if pixels is None else pixels
    rows = PhotoRows([(pixels[:10], np.arange(10)), (pixels[10:], np.arange(len(pixels) - 10))])
    return PhotoBatches(rows, **{"batch_size": 5, "seed": 0, **options})


def sorted_photos(photos):
    return sorted(photo.tobytes() for photo in photos)


@pytest.mark.parametrize("noise", [None, NoiseConfig(name="none", strength=0.0), MASKING])
def test_photo_batches_hold_each_photo_once_per_epoch(noise):
    pixels = photo_array(23, 8)
    for epoch in range(2):
        _, clean = epoch_of(photo_batches(pixels, noise=noise), epoch)
        assert sorted_photos(clean) == sorted_photos(pixels)


@pytest.mark.parametrize(("batch_size", "sizes"), [(5, [5, 5, 5, 5, 3]), (23, [23]), (100, [23]), (1, [1] * 23)])
def test_photo_batches_and_their_number(batch_size, sizes):
    made = photo_batches(batch_size=batch_size)
    assert [len(clean) for _, clean in made.epoch(0)] == sizes
    assert len(made) == len(sizes)


@pytest.mark.parametrize("noise", [None, NoiseConfig(name="none", strength=0.0)])
def test_without_noise_both_are_one_array(noise):
    assert all(shown is wanted for shown, wanted in photo_batches(noise=noise).epoch(0))


def test_only_the_input_is_noisy():
    for shown, wanted in photo_batches(np.full((23, 8, 8, 3), 99, dtype=np.uint8), noise=MASKING).epoch(0):
        assert set(np.unique(shown)) == {0, 99}
        assert (wanted == 99).all()


@pytest.mark.parametrize("noise", [None, MASKING])
def test_photo_batches_depend_on_seed_and_epoch_alone(noise):
    made = photo_batches(noise=noise)
    list(made.epoch(0))
    half = made.epoch(6)
    next(half)
    half.close()
    first, again = epoch_of(made, 7), epoch_of(photo_batches(noise=noise), 7)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[1], epoch_of(made, 8)[1])
    assert not np.array_equal(first[1], epoch_of(photo_batches(noise=noise, seed=1), 7)[1])


def test_each_batch_and_epoch_has_its_own_noise():
    same = np.full((20, 8, 8, 3), 99, dtype=np.uint8)
    made = photo_batches(same, noise=MASKING)
    shown = [noisy.tobytes() for epoch in range(3) for noisy, _ in made.epoch(epoch)]
    assert len(set(shown)) == len(shown) == 12


KINDS = ("gaussian", "masking", "salt_and_pepper")


def noisy(photos, name, strength, seed=0):
    return add_noise(photos, NoiseConfig(name=name, strength=strength), np.random.default_rng(seed))


def grey(level, photos=8, side_px=64):
    return np.full((photos, side_px, side_px, 3), level, dtype=np.uint8)


@pytest.mark.parametrize("name", KINDS)
@given(photos=st.integers(0, 4), side_px=st.integers(1, 9), strength=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_shape_type_and_the_given_photos_stay(name, photos, side_px, strength, seed):
    clean = photo_array(photos, side_px, seed)
    before = clean.copy()
    first, again = (noisy(clean, name, strength, seed) for _ in range(2))
    assert (first.shape, first.dtype) == (clean.shape, np.uint8)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(clean, before)


@pytest.mark.parametrize("name", KINDS)
def test_another_state_is_other_noise_and_each_photo_has_its_own(name):
    photos = grey(100, 2)
    one, other = noisy(photos, name, 0.3, 0), noisy(photos, name, 0.3, 1)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[0], one[1])


@pytest.mark.parametrize(("name", "strength"), [(name, 0.0) for name in ("none", *KINDS)])
def test_nothing_to_add_gives_the_very_photos(name, strength):
    photos = photo_array(3)
    assert noisy(photos, name, strength) is photos


@pytest.mark.parametrize("strength", [0.02, 0.1])
def test_gaussian_noise_has_its_standard_deviation_and_shifts_no_mean(strength):
    error = noisy(grey(128), "gaussian", strength).astype(np.float64) - 128
    wanted = np.sqrt((255 * strength) ** 2 + 1 / 12)  # rounding adds the variance of an even error
    assert error.std() == pytest.approx(wanted, rel=0.015)  # 98,304 draws: one standard error is 0.23 %
    assert abs(error.mean()) < 5 * wanted / np.sqrt(error.size)
    correlation = np.corrcoef(error.reshape(-1, 3).T)[np.triu_indices(3, 1)]
    assert np.abs(correlation).max() < 0.03  # channels are independent


def test_gaussian_noise_is_clipped_and_does_not_wrap_round():
    for level in (0, 255):
        off = np.abs(noisy(grey(level), "gaussian", 0.1).astype(int) - level)
        assert (off == 0).mean() == pytest.approx(0.5, abs=0.02)
        assert off.max() < 255 * 0.1 * 6


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("name", "values"), [("masking", {0}), ("salt_and_pepper", {0, 255})])
def test_share_of_whole_pixels_is_lost(name, values, strength):
    clean = np.clip(photo_array(8, 64), 1, 254)
    seen = noisy(clean, name, strength)
    lost = (seen != clean).any(axis=3)
    assert (seen[lost] == seen[lost][:, :1]).all()  # all channels together
    assert set(np.unique(seen[lost])) == values
    assert lost.mean() == pytest.approx(strength, abs=5 * np.sqrt(strength * (1 - strength) / lost.size))
    if name == "salt_and_pepper":
        white = (seen[lost][:, 0] == 255).mean()
        assert white == pytest.approx(0.5, abs=2.5 / np.sqrt(lost.sum()))


def test_all_is_lost_at_full_strength():
    assert not noisy(grey(100), "masking", 1.0).any()
    assert set(np.unique(noisy(grey(100), "salt_and_pepper", 1.0))) == {0, 255}
