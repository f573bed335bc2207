"""Which builder makes which kind of network."""

from __future__ import annotations

from typing import Any

from wastelens.config import CnnConfig
from wastelens.models.cnn import build_cnn


def build_model(config: CnnConfig, *, image_side_px: int, outputs: int, seed: int) -> Any:
    """The network that the config describes.

    Every network takes photos (batch, side, side, 3) in 0–255 and does its own rescaling, gives probabilities
    (batch, outputs) in float32, has a layer ``logits`` before them, and starts from the same weights for a seed.
    """
    builders = {"cnn": build_cnn}
    return builders[config.kind](config, image_side_px=image_side_px, outputs=outputs, seed=seed)
