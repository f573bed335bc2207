"""Photos that a new one must not repeat."""

from __future__ import annotations

import numpy as np
import pytest
from tests.factories import blocks

from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.duplicates.perceptual_hash import perceptual_hashes
from wastelens.data.duplicates.search import near_duplicate_pairs
from wastelens.getting.known_photos import KnownPhotos
from wastelens.system.arrays import PhotoArray

SIDE = 32


def photos(*seeds: int) -> PhotoArray:
    return np.stack([blocks(np.random.default_rng(seed), (SIDE, SIDE)) for seed in seeds])


def rows(array: PhotoArray) -> PhotoRows:
    return PhotoRows([(array, np.arange(len(array)))])


@pytest.fixture
def known() -> KnownPhotos:
    return KnownPhotos(rows(photos(0, 1, 2)), rows(photos(3, 4)), ["a/3.jpg", "a/4.jpg"], 6)


def test_what_is_known_is_found_in_all_orientations(known: KnownPhotos) -> None:
    for turned in range(4):
        for seed, reason in ((1, "of a val or test photo"), (4, "of a/4.jpg")):
            photo = np.rot90(photos(seed)[0], turned)
            assert known.repeated_by(np.ascontiguousarray(photo)) == f"near-duplicate: {reason}"
            assert known.repeated_by(np.ascontiguousarray(photo[:, ::-1])) == f"near-duplicate: {reason}"
    assert known.repeated_by(photos(9)[0]) == ""


def test_what_is_added_is_known_by_its_file(known: KnownPhotos) -> None:
    for seed in (7, 8, 9):
        known.add(f"{seed}.jpg", photos(seed)[0])
    for seed in (7, 8, 9):
        assert known.repeated_by(photos(seed)[0, ::-1]) == f"near-duplicate: of {seed}.jpg"
    assert known.repeated_by(photos(10)[0]) == ""
    assert known.repeated_by(photos(4)[0]) == "near-duplicate: of a/4.jpg"


def test_photos_of_the_folder_that_repeat_what_is_judged_are_counted(known: KnownPhotos) -> None:
    assert known.repeat_judged() == 0
    turned = np.ascontiguousarray(np.rot90(photos(1)[0]))[np.newaxis]
    there = np.concatenate([photos(3), turned, photos(3), photos(0)])
    names = [f"{number}.jpg" for number in range(len(there))]
    assert KnownPhotos(rows(photos(0, 0, 1)), rows(there), names, 6).repeat_judged() == 2


def test_without_anything_in_the_folder() -> None:
    judged = rows(photos(0))
    known = KnownPhotos(judged, PhotoRows([(judged, [])]), [], 6)
    assert known.repeated_by(photos(0)[0]) == "near-duplicate: of a val or test photo"
    assert known.repeated_by(photos(1)[0]) == ""
    assert known.repeat_judged() == 0


@pytest.mark.parametrize("distance", [0, 3, 7])
def test_one_against_many_finds_the_pairs_of_all_against_all(distance: int) -> None:
    rng = np.random.default_rng(distance)
    first = photos(0)[0]
    noisy = [np.clip(first + rng.normal(0, 3 * number, first.shape), 0, 255).astype(np.uint8) for number in range(60)]
    many = np.stack(noisy)
    known = KnownPhotos(rows(many), PhotoRows([(many, [])]), [], distance)
    hashes = perceptual_hashes(np.concatenate([many, np.rot90(first)[np.newaxis]]))
    pairs = near_duplicate_pairs(hashes, distance)
    slow = pairs[pairs[:, 1] == len(many), 0]
    assert 0 < len(slow) < len(many)
    assert known._near(hashes[-1]).tolist() == slow.tolist()
