"""The settings of ``train``: ``conf/train.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from wastelens.config.augmentation import AugmentationConfig
from wastelens.config.base import LARGEST_SEED, Config
from wastelens.config.kinds import one_of
from wastelens.config.losses import LossConfig
from wastelens.config.networks import NETWORKS, EncoderNetworkConfig, NetworkConfig
from wastelens.config.optimizers import OptimizerConfig
from wastelens.config.pretrain import PretrainConfig
from wastelens.config.schedules import ScheduleConfig

# Any registered kind; to the type checker, what all kinds share.
if TYPE_CHECKING:
    AnyNetwork = NetworkConfig
else:
    AnyNetwork = one_of(NETWORKS)


class FitConfig(Config):
    """The training loop."""

    epochs: int = Field(ge=1)
    steps_per_epoch: Annotated[int, Field(ge=1)] | Literal["auto"]
    batch_size: int = Field(ge=1)
    patience_epochs: int = Field(ge=1)


def _number_or_name(value: object) -> object:
    """``"0.5"``, as the command line gives it, is a number, and no layer's name."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Freeze = Annotated[Annotated[float, Field(ge=0, le=1)] | str, BeforeValidator(_number_or_name)]


class FineTuneConfig(Config):
    """A second phase of training, with more of the network thawed and a rate of its own."""

    epochs: int = Field(ge=0)
    freeze: Freeze
    learning_rate: float = Field(gt=0)


class TrainConfig(Config):
    """One model on one prepared dataset; every key is explained in ``conf/train.yaml``."""

    dataset: str
    data_folder: Path
    model: str
    network: AnyNetwork
    pretrained: str
    unlabelled: str
    max_problem_share: float = Field(ge=0, lt=1)
    weights: str
    freeze: Freeze
    fine_tune: FineTuneConfig
    augment: bool
    augment_policy: str
    augmentation: AugmentationConfig
    augment_strength: float = Field(ge=0)
    views: int = Field(ge=0)
    cache_features: bool
    balanced: bool
    balance_target: Annotated[float, Field(gt=0, le=1)] | Literal["auto"]
    labels_percent: float = Field(gt=0, le=100)
    fold: int = Field(ge=0)
    loss: LossConfig
    schedule: ScheduleConfig
    optimizer: OptimizerConfig
    fit: FitConfig
    mixed_precision: bool
    bootstrap_resamples: int = Field(ge=100)
    resume: str
    seed: int = Field(ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _fitting_together(self) -> TrainConfig:
        if self.pretrained != "none" and not isinstance(self.network, EncoderNetworkConfig):
            raise ValueError(f"pretrained={self.pretrained}, but model={self.model} has no encoder to pretrain")
        if self.unlabelled and self.pretrained != "auto":
            raise ValueError("unlabelled is for pretraining: it needs pretrained=auto, or the step pretrain")
        if self.weights != "none" and not self.network.takes_weights:
            raise ValueError(f"weights={self.weights}, but only transfer models take weights; use weights=none")
        if self.views and not self.augment:
            raise ValueError("views are of augmented photos: they need augment=true")
        return self

    @property
    def policy(self) -> AugmentationConfig:
        """How training photos are changed, where ``augment`` asks for it."""
        return self.augmentation.strengthened(self.augment_strength)

    def pretraining(self, resume: str = "") -> PretrainConfig:
        """Return the settings of the pretraining that ``pretrained=auto`` asks for."""
        assert isinstance(self.network, EncoderNetworkConfig)
        return PretrainConfig(
            dataset=self.dataset,
            data_folder=self.data_folder,
            method=self.network.method,
            learner=self.network.learner,
            unlabelled=self.unlabelled,
            max_problem_share=self.max_problem_share,
            fold=self.fold,
            mixed_precision=self.mixed_precision,
            resume=resume,
            seed=self.seed,
        )
