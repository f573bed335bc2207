"""Augmentation policies: ``conf/augment/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from wastelens.config.base import Config


class TransformConfig(Config):
    """One albumentations transform with its probability and its own parameters."""

    name: str
    probability: float = Field(ge=0, le=1)
    parameters: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _parameters_are_optional(cls, value: object) -> object:
        return {"parameters": {}, **value} if isinstance(value, Mapping) else value


class AugmentationConfig(Config):
    """A policy: transforms applied one after another, each with its probability. ``conf/augment/*.yaml``."""

    transforms: tuple[TransformConfig, ...]

    def strengthened(self, strength: float) -> AugmentationConfig:
        """The policy with all probabilities times a strength, at most 1."""
        changed = (
            one.model_copy(update={"probability": min(one.probability * strength, 1.0)}) for one in self.transforms
        )
        return AugmentationConfig(transforms=tuple(changed))
