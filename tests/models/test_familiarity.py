"""How far photos are from those that a model learnt from, and whether a set of them is like the test's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wastelens.models.familiarity import NEIGHBOUR, Familiarity

FEATURES = 12


def grouped(rng: np.random.Generator, groups: int, size: int, shift: float = 0.0) -> tuple[np.ndarray, list[str]]:
    """Draw features of groups whose centres differ, and lie ``shift`` away from those of the others."""
    centres = np.repeat(rng.normal(0, 0.3, (groups, FEATURES)), size, axis=0)
    features = 2 + centres + rng.normal(0, 0.5, centres.shape)
    features[:, 0] += shift
    return features.astype(np.float32), [f"g{row // size}" for row in range(groups * size)]


def known(rng: np.random.Generator) -> Familiarity:
    return Familiarity.of(*grouped(rng, 20, 15), *grouped(rng, 4, 15))


def test_distance_is_that_to_the_tenth_nearest_of_unit_length() -> None:
    rng = np.random.default_rng(0)
    training, groups = grouped(rng, 3, 10)
    photos = rng.normal(2, 1, (5, FEATURES)).astype(np.float32)
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (photos, training)]
    slow = [sorted(np.linalg.norm(units[1] - one, axis=1))[NEIGHBOUR - 1] for one in units[0]]
    found = Familiarity.of(training, groups, photos, list("abcde"))
    np.testing.assert_allclose(found.distances(photos), slow, atol=1e-3)
    np.testing.assert_array_equal(found.test_distances, found.distances(photos))
    apart = [np.linalg.norm(units[1][10:] - one, axis=1) for one in units[1][:10]]
    np.testing.assert_allclose(found.training_distances[:10], [sorted(one)[9] for one in apart], atol=1e-3)


def test_familiarity_is_the_share_of_test_photos_that_are_as_far() -> None:
    rng = np.random.default_rng(0)
    found = known(rng)
    distances = np.array([0.0, 9.0, np.median(found.test_distances), np.nan])
    shares = found.shares(distances)
    np.testing.assert_allclose(shares[:3], [1, 1 / 61, 0.5], atol=0.02)
    assert np.isnan(shares[3])


def test_a_photo_that_is_not_a_number_has_no_distance() -> None:
    photos = np.ones((2, FEATURES), np.float32)
    photos[1, 3] = np.nan
    distances = known(np.random.default_rng(0)).distances(photos)
    assert np.isfinite(distances).tolist() == [True, False]


def test_alarms_are_as_rare_as_promised_for_new_groups_and_sure_for_strange_ones() -> None:
    rng = np.random.default_rng(0)
    like, strange = [], []
    for _ in range(300):
        found = known(rng)
        like.append(found.p_of(found.distances(grouped(rng, 1, 40)[0])))
        strange.append(found.p_of(found.distances(grouped(rng, 1, 40, shift=3.0)[0])))
    assert np.mean(np.array(like) < 0.05) <= 0.08
    assert 0.2 < np.mean(np.array(like) < 0.5) < 0.8
    assert np.mean(np.array(strange) < 0.01) > 0.95


def test_one_group_cannot_tell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    alone = Familiarity.of(grouped(rng, 1, 20)[0], ["a"] * 20, grouped(rng, 1, 20)[0], ["b"] * 20)
    assert np.isnan(alone.p_of(alone.test_distances))
    assert np.isnan(known(rng).p_of(np.array([np.nan])))


def test_it_is_read_as_it_was_written_and_a_broken_file_raises(tmp_path: Path) -> None:
    found = known(np.random.default_rng(0))
    found.write(tmp_path / "familiarity.npz")
    read = Familiarity.read(tmp_path / "familiarity.npz")
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(read, name), value)
    np.savez(tmp_path / "other.npz", **{**vars(found), "training": found.test_distances})
    with pytest.raises(ValueError, match="another form"):
        Familiarity.read(tmp_path / "other.npz")
