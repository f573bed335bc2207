"""The settings of ``cluster``: ``conf/cluster.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from wastelens.config.base import DATASET_HELP, FOLD_HELP, LARGEST_SEED, Config, parameter


class ClusterConfig(Config):
    """k-means on learned features and on controls; every key is explained in ``conf/cluster.yaml``."""

    dataset: str = parameter(DATASET_HELP)
    data_folder: Path
    run_id: str = parameter("the pretrain or train run whose features are clustered; empty: the controls alone")
    k: Annotated[int, Field(ge=2)] | Literal["auto"] = parameter(
        "number of clusters; auto: the best silhouette within k_range"
    )
    k_range: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]]
    n_init: Annotated[int, Field(ge=1)] | Literal["auto"] = parameter(
        "number of k-means initialisations; auto: scikit-learn's default"
    )
    photos: Literal["held_out", "val", "test", "train", "all"] = parameter(
        "the photos whose clusters are compared with their materials: held_out (val and test), val, test, train or all"
    )
    draws: int = Field(ge=1)
    fold: int = parameter(FOLD_HELP, ge=0)
    seed: int = parameter("of k-means, of the draws of materials and of the random assignments", ge=0, le=LARGEST_SEED)

    @field_validator("k_range")
    @classmethod
    def _range(cls, k_range: tuple[int, int]) -> tuple[int, int]:
        if k_range[0] > k_range[1]:
            raise ValueError("must rise, as in [2, 12]")
        return k_range
