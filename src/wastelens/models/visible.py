"""What a learner sees of a photo: all of it, or its pixels shrunk to a vector."""

from __future__ import annotations

from typing import Any

from wastelens.config.networks import (
    ContrastiveDivergenceConfig,
    ConvAutoencoderConfig,
    DbnConfig,
    DenseAutoencoderConfig,
    RbmConfig,
)
from wastelens.data.photos.shrink import shrink_factor, shrunk_side

Learner = DenseAutoencoderConfig | ConvAutoencoderConfig | RbmConfig | DbnConfig


def visible_side(config: Learner, image_side_px: int) -> int:
    """The side, in pixels, of the photos that a learner is shown."""
    return image_side_px if isinstance(config, ConvAutoencoderConfig) else shrunk_side(image_side_px, config.side_px)


def visible_pixels(photos_0_255: Any, config: DenseAutoencoderConfig | ContrastiveDivergenceConfig) -> Any:
    """Photos (batch, side, side, 3) in 0–255 → pixels (batch, visible_side² · 3) in [0, 1], averaged as by ``shrink``.

    In float32 under any precision policy: bfloat16 tells 128 from 129 no longer once they are averaged.
    """
    from keras import layers

    x = photos_0_255
    factor = shrink_factor(x.shape[1], config.side_px)
    if factor > 1:
        x = layers.AveragePooling2D(factor, dtype="float32", name="shrink")(x)
    x = layers.Rescaling(1 / 255, dtype="float32", name="rescale")(x)
    return layers.Flatten(name="visible", dtype="float32")(x)
