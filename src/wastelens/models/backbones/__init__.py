"""Backbones: networks trained on other photos, without their top. One file each; a new file registers itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from wastelens.system.registry import Registry

if TYPE_CHECKING:
    from wastelens.system.arrays import Array

BACKBONES: Registry[Backbone] = Registry("backbone", "wastelens.models.backbones")


class Backbone(ABC):
    """A network trained on other photos, without its top.

    Attributes:
        smallest_side_px: of the photos it takes.
    """

    smallest_side_px: int

    @abstractmethod
    def preprocess(self, photos_0_255: Any) -> Any:
        """Scale photos (batch, side, side, 3) in 0–255, RGB, to float32 of the same shape as in the original training.

        From standard Keras operations, in float32 under any dtype policy.
        """

    @abstractmethod
    def build(self, pixels: Any) -> Any:
        """Return the last map (batch, height, width, channels) of preprocessed pixels, from layers with random weights.

        Args:
            pixels: a Keras tensor (batch, side, side, 3).
        """

    @abstractmethod
    def check_imagenet(self) -> None:
        """Find out within 5 seconds whether the ImageNet weights are available.

        Raises:
            ConfigError: they are not; says what to do.
        """

    @abstractmethod
    def imagenet_arrays(self) -> dict[str, list[Array]]:
        """Return each layer's ImageNet weights by the layer's name, in Keras' order.

        Raises:
            ConfigError: they are not available or cannot be read.
        """
