"""Noise has the configured strength, depends on the generator alone, and never modifies its input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories import photo_array

from wastelens.config.networks import NoiseConfig
from wastelens.data.batches.pipeline import add_noise

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
