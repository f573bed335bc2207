"""The losses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wastelens.config.base import Config


class LossConfig(Config):
    """Multi-label loss on logits."""

    name: Literal["bce", "focal", "asymmetric"]
    focal_gamma: float = Field(ge=0)
    asymmetric_gamma_positive: float = Field(ge=0)
    asymmetric_gamma_negative: float = Field(ge=0)
    asymmetric_clip: float = Field(ge=0, lt=1)
