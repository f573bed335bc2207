"""Augmentation is reproducible and keeps shape and scale; a wrong policy gives a one-line error.

A view of a photo is the same on every access, whatever is computed with it.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from tests.factories import config, photo_array

from wastelens.config.augmentation import PolicyAugmentation, TransformConfig
from wastelens.config.files import conf_folder
from wastelens.data.batches.augment import AugmentedViews, Augmenter
from wastelens.errors import ConfigError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

POLICIES = sorted(file.stem for file in (conf_folder() / "augment").glob("*.yaml"))


def policy(*transforms):
    made = tuple(TransformConfig.model_validate(one) for one in transforms)
    return PolicyAugmentation(kind="policy", policy="mine", strength=1, views=0, transforms=made)


def shipped(name):
    return config("train", augment="true", augment_policy=name).augmentation


@pytest.mark.parametrize("name", POLICIES)
def test_shipped_policies_keep_shape_and_scale(name):
    photos = photo_array(24, side_px=32)
    before = photos.copy()
    changed = Augmenter(shipped(name))(photos, seed=1)
    assert changed.shape == photos.shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(photos, before)
    assert np.array_equal(changed, photos) == (name == "none")


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "none"])
def test_same_seed_same_changes(name):
    photos = photo_array(16, side_px=32)
    augmenter = Augmenter(shipped(name))
    first = augmenter(photos, seed=5)
    other = augmenter(photos, seed=6)
    np.testing.assert_array_equal(first, augmenter(photos, seed=5))
    np.testing.assert_array_equal(first, Augmenter(shipped(name))(photos, seed=5))
    assert not np.array_equal(first, other)


def test_photos_of_a_batch_are_augmented_independently():
    photos = photo_array(1, side_px=32).repeat(16, axis=0)
    changed = Augmenter(policy({"name": "HorizontalFlip", "probability": 0.5}))(photos, seed=0)
    flipped = [np.array_equal(photo, photos[0, :, ::-1]) for photo in changed]
    assert 0 < sum(flipped) < 16
    assert all(done or np.array_equal(photo, photos[0]) for done, photo in zip(flipped, changed, strict=True))


def test_parameters_and_probability_are_passed_on():
    photos = photo_array(3, side_px=32)
    assert np.array_equal(Augmenter(policy({"name": "VerticalFlip", "probability": 1}))(photos, 0), photos[:, ::-1])
    assert np.array_equal(Augmenter(policy({"name": "VerticalFlip", "probability": 0}))(photos, 0), photos)
    dark = {"name": "RandomBrightnessContrast", "probability": 1}
    darker = {**dark, "parameters": {"brightness_limit": [-0.5, -0.5], "contrast_limit": [0, 0]}}
    assert Augmenter(policy(darker))(photos, 0).mean() < photos.mean() - 50


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (
            {"name": "HorizontalFlipp"},
            "albumentations has no transform 'HorizontalFlipp'. Did you mean 'HorizontalFlip'?",
        ),
        ({"name": "Compose"}, "albumentations has no transform 'Compose'."),
        ({"name": "os"}, "albumentations has no transform 'os'."),
        ({"name": "__class__"}, "albumentations has no transform '__class__'."),
        ({"name": "Rotate", "parameters": {"limits": 3}}, "transform 'Rotate' rejects its parameters: "),
        ({"name": "Blur", "parameters": {"blur_limit": "wide"}}, "transform 'Blur' rejects its parameters: "),
        ({"name": "Blur", "parameters": {"p": 1}}, "transform 'Blur' rejects its parameters: "),
    ],
)
def test_wrong_transforms_are_named(transform, words):
    with pytest.raises(ConfigError) as caught:
        Augmenter(policy({"probability": 1, **transform}))
    assert str(caught.value).startswith("Augmentation policy: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "transform",
    [
        {"name": "CenterCrop", "parameters": {"height": 8, "width": 8}},
        {"name": "ToFloat"},
        {"name": "Normalize"},
    ],
)
def test_transforms_that_change_size_or_scale_are_refused(transform):
    augmenter = Augmenter(policy({"probability": 1, **transform}))
    with pytest.raises(ConfigError, match=r"Leave out the transforms that change size or scale\.$"):
        augmenter(photo_array(2), seed=0)


os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

PHOTOS = photo_array(12, 16, seed=3)
ROWS = np.array([7, 2, 9, 2, 4])
CHOSEN = [2, 4, 7, 9]


def view_of(views, number, positions):
    return views[number * len(views.photo_indices) + positions]


def made(rows=ROWS, policy="default", views=3, seed=0, photos=PHOTOS):
    return AugmentedViews(
        photos, rows, config("train", augment="true", augment_policy=policy).augmentation, views, seed
    )


def everything(views):
    return views[: len(views)]


def test_rows_are_all_photos_of_the_first_view_then_of_the_next():
    views = made(policy="none")
    np.testing.assert_array_equal(everything(views), PHOTOS[CHOSEN * 3])
    assert (len(views), views.shape, everything(views).dtype) == (12, (12, 16, 16, 3), np.uint8)
    assert list(views.photo_indices) == CHOSEN


def test_a_row_is_the_same_in_any_chunk_and_order():
    whole = everything(made())
    views = made()
    for rows in ([11, 0, 5, 5], [3], list(range(12))[::-1]):
        np.testing.assert_array_equal(views[np.array(rows)], whole[rows])
    np.testing.assert_array_equal(np.concatenate([views[5:9], views[9:100]]), whole[5:])
    np.testing.assert_array_equal(view_of(views, 2, np.array([3, 1])), whole[[11, 9]])


def test_a_photos_view_does_not_depend_on_the_others_chosen_or_on_how_many_views():
    np.testing.assert_array_equal(made([4], views=2)[:], everything(made())[[1, 5]])


def test_views_differ_from_one_another_from_the_photo_and_by_seed():
    first, second, third = (
        view_of(made(), 0, np.arange(4)),
        view_of(made(), 1, np.arange(4)),
        view_of(made(seed=1), 0, np.arange(4)),
    )
    same = view_of(made(rows=np.arange(12), photos=np.repeat(PHOTOS[:1], 12, axis=0)), 0, np.arange(12))
    for one, other in [(first, second), (first, third), (first, PHOTOS[CHOSEN]), (same[:6], same[6:])]:
        assert not np.array_equal(one, other)


def test_rows_of_finds_view_and_photo():
    views = made(policy="none")
    rows = views.rows_of(np.array([0, 2, 1]), np.array([9, 2, 4]))
    assert list(rows) == [3, 8, 5]
    np.testing.assert_array_equal(views[rows], PHOTOS[[9, 2, 4]])


@pytest.mark.parametrize("photo", [0, 3, 11])
def test_a_photo_that_was_not_chosen_has_no_views(photo):
    with pytest.raises(ValueError, match="no views of some of the photos"):
        made().rows_of(np.array([0, 0]), np.array([2, photo]))


def test_key_tells_policies_views_seeds_and_photos_apart_and_nothing_else():
    keys = [made(), made(policy="light"), made(views=4), made(seed=1), made(rows=[2, 4, 7])]
    assert len({str(views.key) for views in keys}) == len(keys)
    assert made(rows=CHOSEN).key == made().key


def test_photos_stay_as_they_are():
    before = PHOTOS.copy()
    everything(made())[:] = 0
    everything(made(policy="none"))[:] = 0
    np.testing.assert_array_equal(PHOTOS, before)


def test_no_views_are_refused():
    with pytest.raises(ValueError, match="views=0"):
        made(views=0)


def test_an_empty_slice_is_empty():
    assert made()[3:3].shape == (0, 16, 16, 3)
