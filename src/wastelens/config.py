"""Configuration: typed, closed (unknown keys are refused), frozen. Values live in ``conf/``, types live here.

``config_files`` reads the values and lays a user's over the shipped ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LARGEST_SEED = 2**32 - 1  # what scikit-learn and Keras take
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})


class Config(BaseModel):
    """Base of all configuration: closed, frozen, and without defaults of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_booleans(cls, value: object, info: Any) -> object:
        """``true|false|1|0|yes|no`` in any case for booleans; pydantic's ``on``, ``t`` and ``y`` are refused."""
        assert info.field_name is not None
        if cls.model_fields[info.field_name].annotation is not bool:
            if isinstance(value, bool):  # pydantic would take it for the number 1 or 0
                raise ValueError("cannot be true or false")
            return value
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word in _TRUE | _FALSE:
            return word in _TRUE
        raise ValueError("must be true or false (1, 0, yes and no are understood too)")


class FractionsConfig(Config):
    """Shares of the photos that go to each split; they add up to 1."""

    train: float = Field(gt=0, lt=1)
    val: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _add_up(self) -> FractionsConfig:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test add up to {total:g}, not to 1")
        return self


class PrepareConfig(Config):
    """From annotations and photos to a prepared dataset; every key is explained in ``conf/prepare.yaml``."""

    dataset: str
    data_folder: Path
    materials: str
    image_side_px: int = Field(ge=16, le=2048)
    group_by: str = Field(min_length=1)
    fractions: FractionsConfig
    folds: int = Field(ge=0, le=50)
    near_duplicate_distance: int = Field(ge=0, le=7)
    balance_target: float = Field(gt=0, le=1)
    max_copies: Annotated[int, Field(ge=1)] | Literal["auto"]
    max_problem_share: float = Field(ge=0, lt=1)
    max_megapixels: float = Field(gt=0)
    workers: Annotated[int, Field(ge=1)] | Literal["auto"]
    seed: int = Field(ge=0, le=LARGEST_SEED)

    @field_validator("folds")
    @classmethod
    def _folds(cls, folds: int) -> int:
        if folds in (1, 2):
            raise ValueError("must be 0 (no cross-validation) or at least 3 (train, val and test need one each)")
        return folds


class CnnConfig(Config):
    """The compact convolutional base model: ``conf/model/base.yaml``."""

    kind: Literal["cnn"]
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    dropout: float = Field(ge=0, lt=1)
    pooling: Literal["average", "max", "average_and_max"]


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


class LossConfig(Config):
    """Multi-label loss on logits."""

    name: Literal["bce", "focal", "asymmetric"]
    focal_gamma: float = Field(ge=0)
    asymmetric_gamma_positive: float = Field(ge=0)
    asymmetric_gamma_negative: float = Field(ge=0)
    asymmetric_clip: float = Field(ge=0, lt=1)


class ScheduleConfig(Config):
    """Learning rate over the epochs."""

    name: Literal["constant", "exponential", "cosine"]
    start: float = Field(ge=0)
    peak: float = Field(gt=0)
    floor: float = Field(ge=0)
    warmup_epochs: float = Field(ge=0)
    decay_per_epoch: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> ScheduleConfig:
        if self.floor > self.peak:
            raise ValueError(f"floor {self.floor:g} is above peak {self.peak:g}")
        if self.start > self.peak:
            raise ValueError(f"start {self.start:g} is above peak {self.peak:g}")
        return self


class OptimizerConfig(Config):
    """The gradient step."""

    name: Literal["adam", "adamw", "sgd"]
    weight_decay: float = Field(ge=0)
    momentum: float = Field(ge=0, lt=1)
    clip_norm: float = Field(ge=0)


class FitConfig(Config):
    """The training loop."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    patience_epochs: int = Field(ge=1)


class TrainConfig(Config):
    """One model on one prepared dataset; every key is explained in ``conf/train.yaml``."""

    dataset: str
    data_folder: Path
    model: str
    network: CnnConfig
    augment: bool
    augment_policy: str
    augmentation: AugmentationConfig
    balanced: bool
    fold: int = Field(ge=0)
    loss: LossConfig
    schedule: ScheduleConfig
    optimizer: OptimizerConfig
    fit: FitConfig
    bootstrap_resamples: int = Field(ge=100)
    resume: str
    seed: int = Field(ge=0, le=LARGEST_SEED)


class MainConfig(Config):
    """The main job: a section for each step it runs."""

    prepare: PrepareConfig
    train: TrainConfig

    @model_validator(mode="after")
    def _one_job(self) -> MainConfig:
        for key in ("dataset", "data_folder"):
            if getattr(self.prepare, key) != getattr(self.train, key):
                raise ValueError(f"prepare.{key} and train.{key} must be the same: one job has one dataset")
        if self.train.augment:
            raise ValueError("train.augment cannot be set: main trains without and with augmentation")
        if self.train.resume:
            raise ValueError("train.resume cannot be set: resume a run with the entry point train")
        return self


STEP_CONFIGS: dict[str, type[Config]] = {"prepare": PrepareConfig, "train": TrainConfig, "main": MainConfig}


def flatten(config: Config) -> dict[str, str]:
    """Dotted keys and their values as text, for MLflow's parameters; nested lists stay one value."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", as_text(value)

    return dict(walk(config.model_dump(mode="json"), ""))


def as_text(value: object) -> str:
    """A value as the command line spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
