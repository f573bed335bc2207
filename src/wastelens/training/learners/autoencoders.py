"""Autoencoders: networks that encode photos and rebuild them, dense or convolutional."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from wastelens.config.networks import LEARNERS, AutoencoderConfig, Units


class _Autoencoder(AutoencoderConfig, ABC):
    def learning(self, photos: Any, *, seed: int, mixed_precision: bool, folder: Path) -> Any:
        """Return the learning by reconstruction; Keras' dtype policy sets its precision."""
        from wastelens.training.autoencoder_learning import AutoencoderLearning

        return AutoencoderLearning(self, photos, seed)


@LEARNERS.register("dense_autoencoder")
class DenseAutoencoderConfig(_Autoencoder):
    """Dense layers down to a code and back, on photos shrunk to ``side_px``."""

    kind: Literal["dense_autoencoder"]
    side_px: int = Field(ge=4, le=256)
    hidden_units: tuple[Units, ...] = Field(min_length=1)

    def visible_side_px(self, image_side_px: int) -> int:
        """Return the side of the shrunk photos."""
        from wastelens.data.photos.shrink import shrunk_side

        return shrunk_side(image_side_px, self.side_px)

    def encode(self, photos_0_255: Any, seeds: Iterator[int]) -> Any:
        """Return the code (batch, hidden_units[-1])."""
        from wastelens.models.encoders import visible_pixels

        return _dense_layers(visible_pixels(photos_0_255, self.side_px), self.hidden_units, "encode", seeds)

    def decode(self, code: Any, side_px: int, seeds: Iterator[int]) -> Any:
        """Go back through the encoder's widths to pixels."""
        import keras
        from keras import layers

        x = _dense_layers(code, self.hidden_units[-2::-1], "decode", seeds)
        kernel = keras.initializers.GlorotUniform(seed=next(seeds))
        x = layers.Dense(
            side_px * side_px * 3, activation="sigmoid", kernel_initializer=kernel, dtype="float32", name="pixels"
        )(x)
        return layers.Reshape((side_px, side_px, 3), name="rebuilt")(x)

    def filters(self, encoder: Any, side_px: int) -> Any:
        """Return the first kernel, a picture for each unit."""
        return encoder.get_layer("encode0").get_weights()[0].T.reshape(-1, side_px, side_px, 3)


@LEARNERS.register("conv_autoencoder")
class ConvAutoencoderConfig(_Autoencoder):
    """The base model's convolutions down to a map, and back."""

    kind: Literal["conv_autoencoder"]
    widths: tuple[Units, ...] = Field(min_length=1)

    def encode(self, photos_0_255: Any, seeds: Iterator[int]) -> Any:
        """Return the base model's last map."""
        from wastelens.models.networks.cnn import convolutional_map

        return convolutional_map(photos_0_255, self.widths, seeds)

    def decode(self, code: Any, side_px: int, seeds: Iterator[int]) -> Any:
        """Double the map's side as often as the encoder halved it, and crop it where the encoder rounded up."""
        import keras
        from keras import layers

        sides = [side_px]
        for _ in self.widths:
            sides.append((sides[-1] + 1) // 2)
        x = code
        for block in reversed(range(len(self.widths))):
            last = block == 0
            initializer = keras.initializers.GlorotUniform if last else keras.initializers.HeNormal
            x = layers.UpSampling2D(2, name=f"decode{block}_double")(x)
            if 2 * sides[block + 1] > sides[block]:
                x = layers.Cropping2D(((0, 1), (0, 1)), name=f"decode{block}_crop")(x)
            x = layers.Conv2D(
                3 if last else self.widths[block - 1],
                3,
                padding="same",
                activation="sigmoid" if last else "relu",
                kernel_initializer=initializer(seed=next(seeds)),
                dtype="float32" if last else None,
                name="rebuilt" if last else f"decode{block}_conv",
            )(x)
        return x

    def filters(self, encoder: Any, side_px: int) -> Any:
        """Return the filters of the first convolution."""
        import numpy as np

        return np.moveaxis(encoder.get_layer("block0_conv0").get_weights()[0], 3, 0)


def _dense_layers(x: Any, units: Sequence[int], name: str, seeds: Iterator[int]) -> Any:
    import keras

    for number, width in enumerate(units):
        kernel = keras.initializers.HeNormal(seed=next(seeds))
        x = keras.layers.Dense(width, activation="relu", kernel_initializer=kernel, name=f"{name}{number}")(x)
    return x
