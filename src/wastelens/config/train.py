"""The settings of ``train``: ``conf/train.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from wastelens.config.augmentation import AugmentationConfig, PolicyAugmentation
from wastelens.config.base import (
    DATASET_HELP,
    FOLD_HELP,
    LARGEST_SEED,
    MIXED_PRECISION_HELP,
    RESUME_HELP,
    TRAINING_SEED_HELP,
    UNLABELLED_HELP,
    Config,
    parameter,
)
from wastelens.config.engine import OutageMinutes
from wastelens.config.kinds import (
    AUGMENTATIONS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    one_of,
)
from wastelens.config.networks import NETWORKS, EncoderNetworkConfig, HeadConfig, NetworkConfig
from wastelens.config.pretrain import PretrainConfig

# Any registered kind; to the type checker, what all kinds share.
if TYPE_CHECKING:
    AnyAugmentation = AugmentationConfig
    AnyLoss = LossConfig
    AnySchedule = ScheduleConfig
    AnyOptimizer = OptimizerConfig
    AnyNetwork = NetworkConfig
else:
    AnyAugmentation = one_of(AUGMENTATIONS)
    AnyLoss = one_of(LOSSES)
    AnySchedule = one_of(SCHEDULES)
    AnyOptimizer = one_of(OPTIMIZERS)
    AnyNetwork = one_of(NETWORKS)


FROM_SCRATCH_SIDE_PX = 128  # at which a network from scratch learns in minutes on two cores
PROBE_VIEWS = 4  # of each photo, where augment=true asks a probe for views without saying how many


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
    warmup_epochs: float = Field(ge=0)
    layer_decay: float = Field(gt=0, le=1)
    average: float = Field(ge=0, lt=1)


class TrainConfig(Config):
    """One model on one prepared dataset; every key is explained in ``conf/train.yaml``."""

    dataset: str = parameter(DATASET_HELP)
    data_folder: Path
    model: str = parameter("{model}: the file conf/model/<model>.yaml")
    image_side_px: Annotated[int, Field(ge=16)] | Literal[0, "auto"] = 0  # 0: earlier versions had no such key
    network: AnyNetwork
    pretrained: str = parameter(
        "{model:pretrained}: auto, none, or the id of a pretrain run; empty: as the model's file says", default=""
    )
    unlabelled: str = parameter(UNLABELLED_HELP)
    max_problem_share: float = Field(ge=0, lt=1)
    weights: str = parameter("{model:weights}: imagenet, none, or a file; empty: as the model's file says", default="")
    freeze: Freeze = parameter(
        "fraction of the backbone's layers to freeze, counted from the input, or the last block to freeze; empty: as "
        "the model's file says",
        default="",
    )
    freeze_normalisation: bool
    solve_head: bool
    fine_tune: FineTuneConfig
    augmentation: AnyAugmentation
    cache_features: bool
    balanced: bool = parameter(
        "true or false: repeat photos of rare materials; empty: as the model's file says", default=""
    )
    balance_target: Annotated[float, Field(gt=0, le=1)] | Literal["auto"]
    labels_percent: float = Field(gt=0, le=100)
    fold: int = parameter(FOLD_HELP, ge=0)
    loss: AnyLoss
    schedule: AnySchedule
    optimizer: AnyOptimizer
    fit: FitConfig
    precision: float = parameter(
        "wished share of right answers among those that say yes; answers between yes and no are unsure; 0: none is",
        ge=0,
        lt=1,
    )
    recall: float = parameter(
        "with precision: wished share of the photos with a material that do not get the answer no", gt=0, lt=1
    )
    mixed_precision: bool = parameter(MIXED_PRECISION_HELP)
    bootstrap_resamples: int = Field(ge=100)
    outage_minutes: OutageMinutes
    resume: str = parameter(RESUME_HELP)
    seed: int = parameter(TRAINING_SEED_HELP, ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _fitting_together(self) -> TrainConfig:
        probes_run = self.network.probes_encoders and self.pretrained != "auto"
        if self.pretrained != "none" and not (isinstance(self.network, EncoderNetworkConfig) or probes_run):
            raise ValueError(f"pretrained={self.pretrained}, but model={self.model} has no encoder to pretrain")
        if self.unlabelled and self.pretrained != "auto":
            raise ValueError("unlabelled is for pretraining: it needs pretrained=auto, or the step pretrain")
        if self.weights != "none" and not self.network.takes_weights:
            raise ValueError(f"weights={self.weights}, but only transfer models take weights; use weights=none")
        if self.network.learns_from_outlines:
            self._check_fixed()
        return self

    def _check_fixed(self) -> None:
        """Check that a model whose head learns from outlines has fixed features of unchanged photos to learn from."""
        if self.freeze != 1.0 or self.fine_tune.epochs:
            raise ValueError(f"model={self.model} learns from fixed features: it needs freeze=1.0, fine_tune.epochs=0")
        if self.policy is not None:
            raise ValueError(
                f"model={self.model} does not change photos, as their outlines would not fit; augment=false"
            )

    @property
    def seen_side_px(self) -> int:
        """The side that photos are shrunk to before the network gets them; 0: as prepared."""
        if self.image_side_px != "auto":
            return self.image_side_px
        return int(getattr(self.network, "side_px", FROM_SCRATCH_SIDE_PX))

    @property
    def policy(self) -> PolicyAugmentation | None:
        """How training photos are changed; None where they are not."""
        return self.augmentation if isinstance(self.augmentation, PolicyAugmentation) else None

    @property
    def views(self) -> int:
        """The number of augmented views per photo; 0: none, or new ones every epoch, which a probe does not have."""
        if self.policy is None:
            return 0
        return self.policy.views or (PROBE_VIEWS if self.network.is_probe else 0)

    @property
    def solves_head(self) -> bool:
        """Whether the first phase fits a linear head on fixed features at once, by logistic regression."""
        linear = isinstance(self.network, HeadConfig) and not self.network.hidden
        return self.network.is_probe or (self.solve_head and linear and self.freeze == 1.0)

    @property
    def keeps_normalisation(self) -> bool:
        """Whether batch normalisation stays as it was trained; random weights have nothing to keep."""
        return self.freeze_normalisation and (self.weights != "none" or self.pretrained != "none")

    def pretraining(self, resume: str = "") -> PretrainConfig:
        """Return the settings of the pretraining that ``pretrained=auto`` asks for."""
        assert isinstance(self.network, EncoderNetworkConfig)
        return PretrainConfig(
            dataset=self.dataset,
            data_folder=self.data_folder,
            image_side_px=self.seen_side_px,
            method=self.network.method,
            learner=self.network.learner,
            unlabelled=self.unlabelled,
            max_problem_share=self.max_problem_share,
            fold=self.fold,
            mixed_precision=self.mixed_precision,
            outage_minutes=self.outage_minutes,
            resume=resume,
            seed=self.seed,
        )
