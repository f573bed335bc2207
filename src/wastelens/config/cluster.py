"""The settings of ``cluster``: ``conf/cluster.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from wastelens.config.base import LARGEST_SEED, Config


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
