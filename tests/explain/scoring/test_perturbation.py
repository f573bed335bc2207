"""Insertion and deletion against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wastelens.explain.scoring.perturbation import BLUR_SHARE, areas, perturbed, softened

SIDE = 24


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def test_a_softened_photo_is_blurred_by_a_tenth_of_its_side():
    side = 101
    photo = np.zeros((side, side, 3), np.uint8)
    photo[50, 50] = 255
    blurred = softened(photo)
    assert blurred.dtype == np.float32
    weights = blurred[..., 0] / blurred[..., 0].sum()
    deviation = np.sqrt((weights.sum(axis=1) * (np.arange(side) - 50) ** 2).sum())
    assert deviation == pytest.approx(BLUR_SHARE * side, rel=0.02)
    np.testing.assert_allclose(blurred.sum(), 3 * 255, rtol=1e-3)


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("side", [1, 3, 64])
def test_a_plain_photo_stays_plain_and_within_its_range(value, side):
    blurred = softened(np.full((side, side, 3), value, np.uint8))
    np.testing.assert_allclose(blurred, value, atol=1e-3)
    assert 0 <= blurred.min() <= blurred.max() <= 255


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, (5, 5), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])),
    st.integers(1, 12),
)
def test_each_stage_changes_its_share_of_pixels_most_evidence_first(evidence, steps):
    black, white = np.zeros((5, 5, 3), np.uint8), np.full((5, 5, 3), 200, np.float32)
    stages = perturbed(black, white, evidence, steps)
    assert stages.shape == (2 * steps, 5, 5, 3)
    assert stages.dtype == np.float32
    np.testing.assert_array_equal(stages[0], black)
    np.testing.assert_array_equal(stages[1], white)
    for step in range(1, steps):
        deleted, inserted = stages[1 + step], stages[steps + step]
        changed = deleted[..., 0] == 200
        np.testing.assert_array_equal(deleted, np.where(changed[..., None], white, black))
        np.testing.assert_array_equal(inserted, np.where(changed[..., None], black, white))
        assert changed.sum() == round(step * 25 / steps)
        if 0 < changed.sum() < 25:
            assert evidence[changed].min() >= evidence[~changed].max()


def test_ties_are_broken_at_random_and_always_alike(photo):
    blurred = np.full(photo.shape, 256, np.float32)
    stages = perturbed(photo, blurred, np.zeros((SIDE, SIDE), np.float32), 2)
    np.testing.assert_array_equal(stages, perturbed(photo, blurred, np.full((SIDE, SIDE), 7, np.float32), 2))
    changed = stages[2, ..., 0] == 256
    assert changed.mean() == 0.5
    for half in (changed[: SIDE // 2], changed[:, : SIDE // 2], changed[::2], changed[:, ::2]):
        assert half.mean() == pytest.approx(0.5, abs=0.12)  # 4 standard deviations of a fair draw


@pytest.mark.parametrize("steps", [1, 2, 6, 16])
def test_areas_of_a_linear_model_are_those_of_cumulative_sums(photo, steps):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=photo.shape) / photo.size / 255
    blurred = softened(photo)
    gains = (weights * (photo - blurred.astype(np.float64))).sum(axis=2)
    found = areas((perturbed(photo, blurred, gains.astype(np.float32), steps) * weights).sum(axis=(1, 2, 3)) + 0.5)
    whole = 0.5 + float((weights * photo).sum())
    falling = np.concatenate([[0], np.cumsum(np.sort(gains.ravel())[::-1])])  # gained by the best 0, 1, 2, ... pixels
    shares = np.arange(steps + 1) / steps
    gained = falling[[round(share * gains.size) for share in shares]]
    assert found[1] == pytest.approx(np.trapezoid(whole - gained, shares), abs=1e-7)
    assert found[0] == pytest.approx(np.trapezoid(whole - falling[-1] + gained, shares), abs=1e-7)
    assert found[0] >= found[1]
    if steps == 16:  # the best order of all: no other map does better
        other = areas((perturbed(photo, blurred, -gains.astype(np.float32), steps) * weights).sum(axis=(1, 2, 3)) + 0.5)
        assert other[0] < found[0]
        assert other[1] > found[1]


def test_a_model_that_reads_one_patch_loses_its_probability_with_it():
    photo = np.zeros((8, 8, 3), np.uint8)
    photo[:4, 4:] = 200
    blurred = np.zeros(photo.shape, np.float32)
    evidence = (photo[..., 0] / 200).astype(np.float32)
    probabilities = perturbed(photo, blurred, evidence, 4)[:, :4, 4:].mean(axis=(1, 2, 3)) / 200
    # Down to 0 at a quarter of the pixels, up to 1 at a quarter.
    assert areas(probabilities)[1] == pytest.approx(0.125)
    assert areas(probabilities)[0] == pytest.approx(0.875)
    worst = perturbed(photo, blurred, -evidence, 4)[:, :4, 4:].mean(axis=(1, 2, 3)) / 200
    assert areas(worst)[1] == pytest.approx(0.875)
    assert areas(worst)[0] == pytest.approx(0.125)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_model_that_ignores_the_photo_keeps_its_probability(steps):
    found = areas(np.full(2 * steps, 0.3))
    assert found == (pytest.approx(0.3), pytest.approx(0.3))


def test_areas_stay_within_probabilities():
    stages = np.random.default_rng(2).random((50, 20))
    found = [areas(one) for one in stages]
    assert all(0 <= value <= 1 for one in found for value in one)


def test_arguments_that_do_not_match_are_refused(photo):
    blurred, evidence = softened(photo), np.zeros((SIDE, SIDE), np.float32)
    for arguments in (
        (photo, blurred, evidence, 0),
        (photo, blurred, evidence[1:], 4),
        (photo, blurred[1:], evidence, 4),
        (photo, blurred, np.full((SIDE, SIDE), np.nan, np.float32), 4),
    ):
        with pytest.raises(ValueError, match="steps"):
            perturbed(*arguments)
    for stages in (np.zeros(0), np.zeros(3), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="stages"):
            areas(stages)
