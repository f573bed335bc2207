"""The configuration of every step, typed: values live in ``conf/``, types live here.

``network_config`` holds those of networks and learners; ``config_files`` reads the values and lays a user's over the
shipped ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from wastelens.config_base import LARGEST_SEED, Config, NameList, as_text, auto_or_listed, listed
from wastelens.getting_config import CollectConfig, DownloadConfig
from wastelens.network_config import EncoderNetworkConfig, LearnerConfig, NetworkConfig, TransferConfig
from wastelens.study_config import CompareConfig, StudyConfig
from wastelens.tune_config import TuneConfig


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


class PretrainConfig(Config):
    """Learning from photos without their labels; every key is explained in ``conf/pretrain.yaml``."""

    dataset: str
    data_folder: Path
    method: str
    learner: LearnerConfig
    unlabelled: str
    max_problem_share: float = Field(ge=0, lt=1)
    fold: int = Field(ge=0)
    mixed_precision: bool
    resume: str
    seed: int = Field(ge=0, le=LARGEST_SEED)


class TrainConfig(Config):
    """One model on one prepared dataset; every key is explained in ``conf/train.yaml``."""

    dataset: str
    data_folder: Path
    model: str
    network: NetworkConfig
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
        encoder = isinstance(self.network, EncoderNetworkConfig)
        if self.pretrained != "none" and not encoder:
            raise ValueError(f"pretrained={self.pretrained}, but model={self.model} has no encoder to pretrain")
        if self.unlabelled and self.pretrained != "auto":
            raise ValueError("unlabelled is for pretraining: it needs pretrained=auto, or the step pretrain")
        if self.weights != "none" and not isinstance(self.network, TransferConfig):
            raise ValueError(f"weights={self.weights}, but only transfer models take weights; use weights=none")
        if self.views and not self.augment:
            raise ValueError("views are of augmented photos: they need augment=true")
        return self

    @property
    def policy(self) -> AugmentationConfig:
        """How training photos are changed, where ``augment`` asks for it."""
        return self.augmentation.strengthened(self.augment_strength)

    def pretraining(self, resume: str = "") -> PretrainConfig:
        """How the encoder is learnt that ``pretrained=auto`` asks for."""
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


class ClusterConfig(Config):
    """k-means on learned features and on controls; every key is explained in ``conf/cluster.yaml``."""

    dataset: str
    data_folder: Path
    run_id: str
    k: Annotated[int, Field(ge=2)] | Literal["auto"]
    k_range: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]]
    n_init: Annotated[int, Field(ge=1)] | Literal["auto"]
    photos: Literal["held_out", "val", "test", "train", "all"]
    draws: int = Field(ge=1)
    fold: int = Field(ge=0)
    seed: int = Field(ge=0, le=LARGEST_SEED)

    @field_validator("k_range")
    @classmethod
    def _range(cls, k_range: tuple[int, int]) -> tuple[int, int]:
        if k_range[0] > k_range[1]:
            raise ValueError("must rise, as in [2, 12]")
        return k_range


ExplainMethod = Literal["gradcam", "gradcam_plus_plus", "scorecam", "shap", "shap_partition"]
MethodList = Annotated[tuple[ExplainMethod, ...], BeforeValidator(listed), Field(min_length=1)]


class ExplainConfig(Config):
    """Evidence for a model's decisions, and how good it is; every key is explained in ``conf/explain.yaml``."""

    dataset: str
    data_folder: Path
    run_id: str
    split: Literal["test", "val", "train"]
    photos: int = Field(ge=1)
    file_names: NameList
    methods: Annotated[MethodList | Literal["auto"], BeforeValidator(auto_or_listed)]
    layer: str = Field(min_length=1)
    samples: int = Field(ge=1)
    background_photos: int = Field(ge=1)
    evaluations: int = Field(ge=10)
    channels: int = Field(ge=1)
    steps: int = Field(ge=2)
    randomised_photos: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    bootstrap_resamples: int = Field(ge=100)
    seed: int = Field(ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _even_samples(self) -> ExplainConfig:
        if self.samples % self.background_photos:
            multiple = self.background_photos * -(-self.samples // self.background_photos)
            raise ValueError(
                f"samples={self.samples} is no multiple of background_photos={self.background_photos}, each of which "
                f"is drawn equally often; give samples={multiple}"
            )
        if self.methods != "auto" and len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods={','.join(self.methods)} names one of them twice; name each once")
        return self


class MainConfig(Config):
    """The main job: a section for each step it runs; ``models`` are laid over the section ``train``."""

    prepare: PrepareConfig
    train: TrainConfig
    models: dict[str, TrainConfig] = Field(min_length=1)
    cluster: ClusterConfig
    explain: ExplainConfig

    @model_validator(mode="after")
    def _one_job(self) -> MainConfig:
        for key in ("dataset", "data_folder"):
            sections = {"train": self.train, "cluster": self.cluster, "explain": self.explain, **self.models}
            for name, section in sections.items():
                if getattr(self.prepare, key) != getattr(section, key):
                    raise ValueError(f"prepare.{key} and {name}.{key} must be the same: one job has one dataset")
        folds = {self.train.fold, self.cluster.fold, *(model.fold for model in self.models.values())}
        if len(folds) > 1:
            raise ValueError("every model and cluster must have the fold of train: one job has one split")
        if self.train.augment:
            raise ValueError("train.augment cannot be set: main trains without and with augmentation")
        if self.train.resume or any(model.resume for model in self.models.values()):
            raise ValueError("train.resume cannot be set: resume a run with the entry point train")
        return self


STEP_CONFIGS: dict[str, type[Config]] = {
    "prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "train": TrainConfig,
    "tune": TuneConfig,
    "download": DownloadConfig,
    "collect": CollectConfig,
    "cluster": ClusterConfig,
    "explain": ExplainConfig,
    "study": StudyConfig,
    "compare": CompareConfig,
    "main": MainConfig,
}


def flatten(config: Config | Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys and their values as text, for MLflow's parameters; nested lists stay one value.

    Args:
        config: a step's, or as a run wrote it into its ``config.json``.
    """

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", as_text(value)

    return dict(walk(config.model_dump(mode="json") if isinstance(config, Config) else config, ""))
