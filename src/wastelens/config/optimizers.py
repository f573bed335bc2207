"""The optimizers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wastelens.config.base import Config


class OptimizerConfig(Config):
    """The gradient step."""

    name: Literal["adam", "adamw", "sgd"]
    weight_decay: float = Field(ge=0)
    momentum: float = Field(ge=0, lt=1)
    clip_norm: float = Field(ge=0)
