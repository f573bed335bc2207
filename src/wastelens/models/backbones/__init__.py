"""Backbones: networks trained on other photos, without their top. One file each; a new file registers itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from wastelens.system.registry import Registry

BACKBONES: Registry[Backbone] = Registry("backbone", "wastelens.models.backbones")


class Backbone(ABC):
    """A Keras application.

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
    def build(self, pixels: Any, *, weights: str | None) -> Any:
        """Return Keras' own model without its top, from preprocessed pixels (batch, side, side, 3) to its last map.

        Args:
            pixels: a Keras tensor.
            weights: None for random ones, or ``imagenet``, which Keras downloads unless its cache has them.
        """

    @abstractmethod
    def imagenet_url(self) -> str:
        """Return the address where Keras gets the ImageNet weights."""
