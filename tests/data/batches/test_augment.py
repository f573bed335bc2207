"""Augmentation is reproducible and keeps shape and scale; a wrong policy gives a one-line error."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tests.factories import config, photo_array

from wastelens.config.augmentation import PolicyAugmentation, TransformConfig
from wastelens.config.files import conf_folder
from wastelens.data.batches.augment import Augmenter
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
