"""The base model: a compact convolutional network, trained from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from wastelens.config.networks import NETWORKS, HeadConfig, Units
from wastelens.models.layers import classification_head, layer_seeds


@NETWORKS.register("cnn")
class CnnConfig(HeadConfig):
    """The compact convolutional base model: ``conf/model/base.yaml``."""

    kind: Literal["cnn"]
    widths: tuple[Units, ...] = Field(min_length=1)

    def build(self, *, image_side_px: int, outputs: int, seed: int) -> Any:
        """Return the network."""
        import keras

        seeds = layer_seeds(seed)
        photos = keras.Input((image_side_px, image_side_px, 3), name="photo_0_255")
        features = convolutional_map(photos, self.widths, seeds)
        probabilities = classification_head(features, self, outputs=outputs, seeds=seeds)
        return keras.Model(photos, probabilities, name="base_cnn")


def convolutional_map(photos_0_255: Any, widths: Sequence[int], seeds: Iterator[int]) -> Any:
    """Map photos (batch, side, side, 3) in 0–255 to features (batch, side / 2^blocks, …, last width), rounded up.

    Each block has two 3×3 convolutions with batch normalisation (Ioffe & Szegedy 2015) and halves the side.
    """
    import keras
    from keras import layers

    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(photos_0_255)
    for block, width in enumerate(widths):
        # The first block works at full size, where convolutions are expensive: one, with a stride, is enough there.
        strides = (2,) if block == 0 else (1, 1)
        for part, stride in enumerate(strides):
            x = layers.Conv2D(
                width,
                3,
                strides=stride,
                padding="same",
                use_bias=False,
                kernel_initializer=keras.initializers.HeNormal(seed=next(seeds)),
                name=f"block{block}_conv{part}",
            )(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"block{block}_norm{part}")(x)
            x = layers.Activation("relu", name=f"block{block}_relu{part}")(x)
        if block:
            x = layers.MaxPooling2D(2, padding="same", name=f"block{block}_pool")(x)
    return x
