"""Augment photos by the policies of ``conf/augment/*.yaml``; the only module that imports albumentations.

A policy may name any image-only or dual transform of albumentations that keeps shape and scale. The shipped policies
use thirteen, which a replacement of albumentations would have to offer: Blur, ChannelShuffle, CLAHE, GaussNoise,
HorizontalFlip, HueSaturationValue, ISONoise, PixelDropout, RandomBrightnessContrast, Rotate, ToGray, Transpose,
VerticalFlip.
"""

from __future__ import annotations

import os
import warnings
from hashlib import blake2b
from typing import Any

import numpy as np

from wastelens.config.augmentation import PolicyAugmentation, TransformConfig
from wastelens.errors import ConfigError, did_you_mean
from wastelens.system.arrays import IndexArray, PhotoArray
from wastelens.system.text import reason_of


class Augmenter:
    """A policy applied to photos at random; the same seed gives the same changes. Not thread-safe."""

    def __init__(self, policy: PolicyAugmentation) -> None:
        # Without this, albumentations checks for a newer version online when imported.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        transforms = [_transform(albumentations, transform) for transform in policy.strengthened]
        self._compose = albumentations.Compose(transforms, seed=0)

    def __call__(self, photos_0_255: PhotoArray, seed: int) -> PhotoArray:
        """Return augmented copies of photos uint8 (n, side, side, 3) in 0–255, of the same shape and scale.

        Raises:
            ConfigError: the policy changes shape or scale.
        """
        self._compose.set_random_seed(seed)
        changed = [self._compose(image=photo)["image"] for photo in photos_0_255]
        for photo in changed:
            if photo.shape != photos_0_255.shape[1:] or photo.dtype != np.uint8:
                raise ConfigError(
                    f"Augmentation policy turns photos of {photos_0_255.shape[1:]} uint8 into {photo.shape} "
                    f"{photo.dtype}. Leave out the transforms that change size or scale."
                )
        return np.stack(changed)


def _transform(albumentations: Any, wanted: TransformConfig) -> Any:
    kind = getattr(albumentations, wanted.name, None)
    if not (
        isinstance(kind, type) and issubclass(kind, albumentations.ImageOnlyTransform | albumentations.DualTransform)
    ):
        hint = did_you_mean(wanted.name, [name for name in dir(albumentations) if name[0].isupper()])
        raise ConfigError(f"Augmentation policy: albumentations has no transform '{wanted.name}'.{hint}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # albumentations only warns of unknown parameters
        try:
            return kind(p=wanted.probability, **wanted.parameters)
        except (TypeError, ValueError, UserWarning) as error:
            raise ConfigError(
                f"Augmentation policy: transform '{wanted.name}' rejects its parameters: {reason_of(error)}"
            ) from None


class AugmentedViews:
    """``views`` augmented copies of each selected photo, computed on access and never kept.

    They can replace an array of photos: row ``view · photos + place`` is a photo's view, and slices and arrays of
    rows give uint8 (n, side, side, 3) in 0–255. A row depends on (seed, view, photo) alone, not on the rows computed
    with it: each gets a seed of its own, which costs 0.15 ms (for comparison, augmenting a photo of 160 px by the
    default policy takes 0.3–0.5 ms, VGG16 on it 50 ms or more). Not thread-safe.
    """

    def __init__(self, photos: PhotoArray, rows: IndexArray, policy: PolicyAugmentation, views: int, seed: int) -> None:
        """Select rows of all photos, uint8 (photos, side, side, 3); their order and repeats do not matter."""
        if views < 1:
            raise ValueError(f"views={views} is too few: at least one is needed")
        self.photo_indices: IndexArray = np.unique(np.asarray(rows, dtype=np.intp))
        self.views = views
        self._photos = photos
        self._policy = policy
        self._augmenter = Augmenter(policy)
        self._seed = seed

    def __len__(self) -> int:
        return self.views * len(self.photo_indices)

    @property
    def shape(self) -> tuple[int, ...]:
        """(views · photos, side, side, 3)."""
        return (len(self), *self._photos.shape[1:])

    @property
    def key(self) -> dict[str, str | int]:
        """The part of a feature cache's key that distinguishes these views from others of the same photos."""
        digest = blake2b(self.photo_indices.astype("<i8").tobytes(), digest_size=16)
        return {
            "policy": self._policy.model_dump_json(),
            "views": self.views,
            "view_seed": self._seed,
            "view_photos": digest.hexdigest(),
        }

    def __getitem__(self, rows: slice | IndexArray) -> PhotoArray:
        flat = np.arange(len(self))[rows]
        made = [self._augment(*divmod(int(row), len(self.photo_indices))) for row in flat]
        return np.stack(made) if made else np.empty((0, *self._photos.shape[1:]), dtype=np.uint8)

    def rows_of(self, view: IndexArray, photo_index: IndexArray) -> IndexArray:
        """Return the rows of these views of these photos (both of shape (n,)).

        Raises:
            ValueError: a photo was not selected.
        """
        places = np.searchsorted(self.photo_indices, photo_index)
        if not np.array_equal(np.append(self.photo_indices, -1)[places], photo_index):
            raise ValueError("there are no views of some of the photos")
        return np.asarray(view * len(self.photo_indices) + places, dtype=np.intp)

    def _augment(self, view: int, place: int) -> PhotoArray:
        photo = int(self.photo_indices[place])
        seed = int(np.random.SeedSequence([self._seed, view, photo]).generate_state(1)[0])
        changed: PhotoArray = self._augmenter(np.asarray(self._photos[photo : photo + 1]), seed)[0]
        return changed
