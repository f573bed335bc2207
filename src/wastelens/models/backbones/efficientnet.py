"""EfficientNetV2 B0–B3 (Tan & Le 2021)."""

from __future__ import annotations

from typing import Any

from wastelens.models.backbones import BACKBONES
from wastelens.models.keras_applications import KerasApplication
from wastelens.system import borrowed

MEAN_RGB = (0.485, 0.456, 0.406)  # of ImageNet's pixels, 0–1
DEVIATION_RGB = (0.229, 0.224, 0.225)


class EfficientNetV2(KerasApplication):
    """EfficientNetV2 of one size: takes RGB minus ImageNet's mean, divided by its standard deviation."""

    smallest_side_px = 32  # as in Keras: below, the last map is one pixel of mostly padding

    def __init__(self, size: str) -> None:
        self._size = size
        self.name = f"efficientnetv2{size.lower()}"

    def preprocess(self, photos_0_255: Any) -> Any:
        """Standardise the pixels."""
        import keras

        scale = [1 / (255 * deviation) for deviation in DEVIATION_RGB]
        offset = [-mean / deviation for mean, deviation in zip(MEAN_RGB, DEVIATION_RGB, strict=True)]
        return keras.layers.Rescaling(scale, offset=offset, dtype="float32", name="rescale")(photos_0_255)

    def application(self, pixels: Any, *, weights: str | None) -> Any:
        """Return Keras' EfficientNetV2."""
        import keras

        builder = getattr(keras.applications, f"EfficientNetV2{self._size}")
        # Keras' own rescaling would run in the policy's bfloat16, under names that count up from model to model.
        return builder(include_top=False, weights=weights, input_tensor=pixels, include_preprocessing=False)

    def imagenet_url(self) -> str:
        """Return Keras' address."""
        folder = borrowed.keras_application("efficientnet_v2").BASE_WEIGHTS_PATH
        return f"{folder}efficientnetv2-{self._size.lower()}_notop.h5"


for _size in ("B0", "B1", "B2", "B3"):
    _backbone = EfficientNetV2(_size)
    BACKBONES.register(_backbone.name)(_backbone)
