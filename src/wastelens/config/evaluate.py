"""The settings of ``evaluate``: ``conf/evaluate.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from wastelens.config.base import LARGEST_SEED, Config, parameter
from wastelens.config.predict import MODEL_HELP


class EvaluateConfig(Config):
    """A finished model and other photos with labels; every key is explained in ``conf/evaluate.yaml``."""

    model: str = parameter(MODEL_HELP)
    dataset: str = parameter(
        "a folder of photos with their labels (data/README.md has the layouts), which is prepared on the way, or a "
        "prepared dataset"
    )
    data_folder: Path
    materials: str = parameter(
        "{materials}, or a CSV file of category,material,reason; auto: the model's own, or the first that knows all "
        "labels"
    )
    group_by: str = parameter(
        "as for prepare: groups are resampled as a whole, and controls are fitted on other groups", min_length=1
    )
    trained_on: str = parameter(
        "the prepared dataset that the model was trained on, whose photos are left out; auto: that of its name in "
        "data_folder"
    )
    max_problem_share: float = parameter("stop if more than this share of the photos is left out", ge=0, lt=1)
    max_megapixels: float = Field(gt=0)
    workers: Annotated[int, Field(ge=1)] | Literal["auto"]
    bootstrap_resamples: int = Field(ge=100)
    seed: int = parameter("of the controls and the bootstrap", ge=0, le=LARGEST_SEED)
