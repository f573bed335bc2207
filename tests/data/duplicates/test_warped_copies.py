"""Augmented copies are found, and photos of similar things are not taken for copies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wastelens.data.duplicates.warped_copies import warped_copies
from wastelens.system.arrays import PhotoArray

NONE = np.empty((0, 2), np.int64)
SIDE = 128


def scene(seed: int) -> PhotoArray:
    """Draw a photo of litter: patches, lines and letters on a grainy ground, uint8 (128, 128, 3)."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(90, 170, 3) + cv2.resize(rng.normal(0, 25, (16, 16, 1)), (SIDE, SIDE))[..., None]
    photo = np.clip(ground + rng.normal(0, 4, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    for _ in range(14):
        x, y, w, h = (int(v) for v in rng.integers([0, 0, 8, 8], [SIDE, SIDE, 40, 40]))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.ellipse(photo, ((x, y), (w, h), float(rng.uniform(0, 180))), colour, -1)
        letter = chr(int(rng.integers(65, 91)))
        cv2.putText(photo, letter, (y, x), cv2.FONT_HERSHEY_SIMPLEX, 0.8, tuple(255 - c for c in colour), 2)
    return photo


def turned(photo: PhotoArray, degrees: float, shear: float = 0.0) -> PhotoArray:
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ [[1, shear], [0, 1]]
    centre = np.full(2, SIDE / 2)
    return np.asarray(cv2.warpAffine(photo, np.c_[matrix, centre - matrix @ centre], (SIDE, SIDE)))


def cropped(photo: PhotoArray) -> PhotoArray:
    return np.asarray(cv2.resize(photo[9:-6, 4:-11], (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def lit(photo: PhotoArray, factor: float) -> PhotoArray:
    return np.clip(photo * factor, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [128, 64])
@pytest.mark.parametrize(
    "augment",
    [
        lambda photo: turned(photo, 10),
        lambda photo: turned(photo, -12)[:, ::-1],
        lambda photo: turned(photo, 0, 0.15),
        lambda photo: lit(cropped(photo), 0.8),
        lambda photo: lit(turned(cropped(photo), 7, 0.1), 1.15),
    ],
    ids=["10 degrees", "mirrored", "sheared", "cropped, darker", "all"],
)
def test_augmented_copies_are_found(augment, side: int) -> None:
    photos = [scene(seed) for seed in range(12)]
    photos += [augment(photo) for photo in photos[:6]]
    small = np.stack([cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA) for photo in photos])
    found = warped_copies(small, NONE).tolist()
    assert len(found) >= 5  # of six; all warps at once, at 64 px, are near the limit of what is told from chance
    assert all(pair in [[k, k + 12] for k in range(6)] for pair in found)


def test_the_order_of_photos_does_not_matter() -> None:
    photos = np.stack([*(scene(seed) for seed in range(8)), *(turned(scene(seed), 9) for seed in range(4))])
    order = np.random.default_rng(0).permutation(12)
    found = {frozenset(order[pair].tolist()) for pair in warped_copies(photos[order], NONE)}
    assert found == {frozenset(pair) for pair in warped_copies(photos, NONE).tolist()}


def test_one_object_on_other_grounds_is_no_copy() -> None:
    label = scene(99)[30:80, 20:90]
    photos = np.stack([scene(seed) for seed in range(8)])
    for k in range(8):
        photos[k, 10 + 5 * k : 60 + 5 * k, 30:100] = label
    assert not len(warped_copies(photos, NONE))


def test_other_objects_before_a_fixed_camera_are_no_copies() -> None:
    photos = np.stack([scene(0)] * 8)
    for k in range(8):
        photos[k, 40:90, 30:90] = scene(k + 1)[40:90, 30:90]
    assert not len(warped_copies(photos, NONE))


def test_linked_photos_are_not_compared_and_few_or_flat_ones_have_no_copies() -> None:
    photo = scene(1)
    photos = np.stack([photo, turned(photo, 10), scene(2)])
    assert warped_copies(photos, np.array([[0, 1]])).shape == (0, 2)
    assert warped_copies(photos[:1], NONE).shape == (0, 2)
    assert warped_copies(np.full((4, 16, 16, 3), 7, np.uint8), NONE).shape == (0, 2)
