"""Which builder makes which kind of network."""

from __future__ import annotations

from typing import Any

from wastelens.config.networks import NetworkConfig
from wastelens.models.cnn import build_cnn
from wastelens.models.encoders import build_encoder_network
from wastelens.models.transfer import build_transfer


def build_model(config: NetworkConfig, *, image_side_px: int, outputs: int, seed: int) -> Any:
    """The network that the config describes, from random weights.

    Every network takes photos (batch, side, side, 3) in 0–255 and does its own rescaling, gives probabilities
    (batch, outputs) in float32, has a layer ``logits`` before them, and starts from the same weights for a seed.
    """
    builders: dict[str, Any] = {
        "cnn": build_cnn,
        "autoencoder": build_encoder_network,
        "dbn": build_encoder_network,
        "transfer": build_transfer,
    }
    return builders[config.kind](config, image_side_px=image_side_px, outputs=outputs, seed=seed)
