"""The settings of ``labels``: ``conf/labels.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from wastelens.config.base import DATASET_HELP, LARGEST_SEED, Config, parameter


class LabelsConfig(Config):
    """Which annotations look wrong; every key is explained in ``conf/labels.yaml``."""

    dataset: str = parameter(DATASET_HELP)
    data_folder: Path
    model: str = parameter("{model}: the file conf/model/<model>.yaml")
    shown: int = parameter("number of doubtful labels on the page", ge=1, le=5000)
    evidence: bool = parameter("true or false: show where the model looks")
    train: dict[str, Any]
    batch_size: int = Field(ge=1)
    seed: int = parameter("of the training, and of the parts where the dataset has no folds", ge=0, le=LARGEST_SEED)
