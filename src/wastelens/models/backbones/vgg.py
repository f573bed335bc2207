"""VGG16 (Simonyan & Zisserman 2015)."""

from __future__ import annotations

from typing import Any

from wastelens.models.backbones import BACKBONES
from wastelens.models.keras_applications import KerasApplication
from wastelens.system import borrowed

MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet's pixels, 0–255; Simonyan & Zisserman 2015, §2.1


class Vgg16(KerasApplication):
    """VGG16: takes BGR minus ImageNet's mean."""

    name = "vgg16"
    smallest_side_px = 32  # five halvings

    def preprocess(self, photos_0_255: Any) -> Any:
        """Turn RGB to BGR and subtract the mean."""
        import keras

        pixels = keras.ops.flip(photos_0_255, axis=-1)
        borrowed.keras_history(pixels).operation.name = "rgb_to_bgr"  # or it counts up: flip_1, flip_2 …
        offset = [-mean for mean in MEAN_BGR]
        return keras.layers.Rescaling([1.0] * 3, offset=offset, dtype="float32", name="rescale")(pixels)

    def application(self, pixels: Any, *, weights: str | None) -> Any:
        """Return Keras' VGG16."""
        import keras

        return keras.applications.VGG16(include_top=False, weights=weights, input_tensor=pixels)

    def imagenet_url(self) -> str:
        """Return Keras' address."""
        return str(borrowed.keras_application("vgg16").WEIGHTS_PATH_NO_TOP)


BACKBONES.register("vgg16")(Vgg16())
