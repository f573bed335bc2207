"""The settings of ``pretrain``: ``conf/pretrain.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from wastelens.config.base import LARGEST_SEED, Config
from wastelens.config.kinds import one_of
from wastelens.config.networks import LEARNERS, LearnerConfig

# Any registered kind; to the type checker, what all kinds share.
if TYPE_CHECKING:
    AnyLearner = LearnerConfig
else:
    AnyLearner = one_of(LEARNERS)


class PretrainConfig(Config):
    """Learning from photos without labels; every key is explained in ``conf/pretrain.yaml``."""

    dataset: str
    data_folder: Path
    method: str
    learner: AnyLearner
    unlabelled: str
    max_problem_share: float = Field(ge=0, lt=1)
    fold: int = Field(ge=0)
    mixed_precision: bool
    resume: str
    seed: int = Field(ge=0, le=LARGEST_SEED)
