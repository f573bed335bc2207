"""Autoencoders: photos to a code and back, dense or convolutional."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wastelens.config.networks import ConvAutoencoderConfig, DenseAutoencoderConfig
from wastelens.models.cnn import convolutional_map
from wastelens.models.seeds import layer_seeds
from wastelens.models.visible import visible_pixels, visible_side

AutoencoderConfig = DenseAutoencoderConfig | ConvAutoencoderConfig


@dataclass(frozen=True)
class Autoencoder:
    """A network and the half of it that encodes; they share their layers.

    Attributes:
        network: photos float (batch, side, side, 3) in 0–255 → the same photos in [0, 1].
        encoder: the same photos → code, a map or a vector.
        side_px: the side of the photos it takes and rebuilds.
    """

    network: Any
    encoder: Any
    side_px: int


def build_autoencoder(config: AutoencoderConfig, *, image_side_px: int, seed: int) -> Autoencoder:
    """An autoencoder on photos as it sees them: the dense one takes them shrunk already (``visible_side``)."""
    import keras

    side_px = visible_side(config, image_side_px)
    seeds = layer_seeds(seed)
    photos = keras.Input((side_px, side_px, 3), name="photo_0_255")
    code = encode(photos, config, seeds)
    rebuilt = (
        _rebuild_map(code, config, side_px, seeds) if len(code.shape) == 4 else _rebuild(code, config, side_px, seeds)
    )
    return Autoencoder(
        keras.Model(photos, rebuilt, name=config.kind), keras.Model(photos, code, name="encoder"), side_px
    )


def encode(photos_0_255: Any, config: AutoencoderConfig, seeds: Iterator[int]) -> Any:
    """Photos (batch, side, side, 3) in 0–255 → code: the encoder's layers on any input."""
    if isinstance(config, ConvAutoencoderConfig):
        return convolutional_map(photos_0_255, config.widths, seeds)
    return _dense_layers(visible_pixels(photos_0_255, config), config.hidden_units, "encode", seeds)


def _dense_layers(x: Any, units: Sequence[int], name: str, seeds: Iterator[int]) -> Any:
    import keras

    for number, width in enumerate(units):
        kernel = keras.initializers.HeNormal(seed=next(seeds))
        x = keras.layers.Dense(width, activation="relu", kernel_initializer=kernel, name=f"{name}{number}")(x)
    return x


def _rebuild(code: Any, config: AutoencoderConfig, side_px: int, seeds: Iterator[int]) -> Any:
    """From a vector through the encoder's widths, the other way round, to pixels."""
    import keras
    from keras import layers

    assert isinstance(config, DenseAutoencoderConfig)
    x = _dense_layers(code, config.hidden_units[-2::-1], "decode", seeds)
    kernel = keras.initializers.GlorotUniform(seed=next(seeds))
    x = layers.Dense(
        side_px * side_px * 3, activation="sigmoid", kernel_initializer=kernel, dtype="float32", name="pixels"
    )(x)
    return layers.Reshape((side_px, side_px, 3), name="rebuilt")(x)


def _rebuild_map(code: Any, config: AutoencoderConfig, side_px: int, seeds: Iterator[int]) -> Any:
    """From a map, doubling its side as often as the encoder halved it, cropped where that had rounded up."""
    import keras
    from keras import layers

    assert isinstance(config, ConvAutoencoderConfig)
    sides = [side_px]
    for _ in config.widths:
        sides.append((sides[-1] + 1) // 2)
    x = code
    for block in reversed(range(len(config.widths))):
        last = block == 0
        x = layers.UpSampling2D(2, name=f"decode{block}_double")(x)
        if 2 * sides[block + 1] > sides[block]:
            x = layers.Cropping2D(((0, 1), (0, 1)), name=f"decode{block}_crop")(x)
        x = layers.Conv2D(
            3 if last else config.widths[block - 1],
            3,
            padding="same",
            activation="sigmoid" if last else "relu",
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds))
            if last
            else keras.initializers.HeNormal(seed=next(seeds)),
            dtype="float32" if last else None,
            name="rebuilt" if last else f"decode{block}_conv",
        )(x)
    return x
