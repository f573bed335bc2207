"""The settings of ``pretrain``: ``conf/pretrain.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

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
from wastelens.config.kinds import one_of
from wastelens.config.networks import LEARNERS, LearnerConfig

# Any registered kind; to the type checker, what all kinds share.
if TYPE_CHECKING:
    AnyLearner = LearnerConfig
else:
    AnyLearner = one_of(LEARNERS)


class PretrainConfig(Config):
    """Learning from photos without labels; every key is explained in ``conf/pretrain.yaml``."""

    dataset: str = parameter(DATASET_HELP)
    data_folder: Path
    image_side_px: Annotated[int, Field(ge=16)] | Literal[0] = 0  # 0: earlier versions had no such key
    method: str = parameter("{pretrain}: the file conf/pretrain/<method>.yaml")
    learner: AnyLearner
    unlabelled: str = parameter(UNLABELLED_HELP)
    max_problem_share: float = Field(ge=0, lt=1)
    fold: int = parameter(FOLD_HELP, ge=0)
    mixed_precision: bool = parameter(MIXED_PRECISION_HELP)
    outage_minutes: OutageMinutes
    resume: str = parameter(RESUME_HELP)
    seed: int = parameter(TRAINING_SEED_HELP, ge=0, le=LARGEST_SEED)
