"""Augmentation: none, or a policy of random changes to the training photos (``conf/augment/*.yaml``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from wastelens.config.base import Config
from wastelens.config.kinds import AUGMENTATIONS


class AugmentationConfig(Config):
    """Base of all kinds of augmentation."""

    kind: str


@AUGMENTATIONS.register("none")
class NoAugmentation(AugmentationConfig):
    """Training photos stay as they are."""

    kind: Literal["none"]


class TransformConfig(Config):
    """One albumentations transform with its probability and its own parameters."""

    name: str
    probability: float = Field(ge=0, le=1)
    parameters: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _parameters_are_optional(cls, value: object) -> object:
        return {"parameters": {}, **value} if isinstance(value, Mapping) else value


@AUGMENTATIONS.register("policy")
class PolicyAugmentation(AugmentationConfig):
    """Transforms applied one after another, each with its probability."""

    kind: Literal["policy"]
    policy: str = Field(description="{augment}, or a YAML file: conf/augment/<policy>.yaml")
    strength: float = Field(ge=0, description="factor of the policy's probabilities, which stay at most 1")
    views: int = Field(
        ge=0, description="use a fixed number of augmented views per photo; 0: new random changes every epoch"
    )
    transforms: tuple[TransformConfig, ...]

    @property
    def strengthened(self) -> tuple[TransformConfig, ...]:
        """The transforms with their probabilities times ``strength``, at most 1."""
        return tuple(
            one.model_copy(update={"probability": min(one.probability * self.strength, 1.0)}) for one in self.transforms
        )
