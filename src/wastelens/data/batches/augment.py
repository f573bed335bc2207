"""Augment photos by the policies of ``conf/augment/*.yaml``; the only module that imports albumentations.

A policy may name any image-only or dual transform of albumentations that keeps shape and scale. The shipped policies
use thirteen, which a replacement of albumentations would have to offer: Blur, ChannelShuffle, CLAHE, GaussNoise,
HorizontalFlip, HueSaturationValue, ISONoise, PixelDropout, RandomBrightnessContrast, Rotate, ToGray, Transpose,
VerticalFlip.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from wastelens.config.augmentation import PolicyAugmentation, TransformConfig
from wastelens.errors import ConfigError, did_you_mean
from wastelens.system.arrays import PhotoArray


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
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"Augmentation policy: transform '{wanted.name}' rejects its parameters: {reason}"
            ) from None
