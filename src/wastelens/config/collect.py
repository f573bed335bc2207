"""Settings of ``collect``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from wastelens.config.base import DATASET_HELP, Config, NameList, listed, parameter
from wastelens.config.web import FetchingConfig

Licence = Literal["cc0", "pdm", "by", "by-sa", "by-nc", "by-nc-sa", "by-nd", "by-nc-nd"]


class ApiConfig(Config):
    """A catalogue of photos that is searched through its documented API."""

    url: str
    seconds_between_requests: float = Field(ge=0)


class CollectConfig(FetchingConfig):
    """Photos without labels, by search terms; every key is explained in ``conf/collect.yaml``."""

    dataset: str = parameter(f"near-duplicates of its val and test photos are left out: {DATASET_HELP}")
    contact: str = parameter("your e-mail address or page, sent to the servers: Wikimedia's rules ask for one")
    materials: NameList = parameter("separated by commas; empty: all in conf/collect.yaml")
    photos: int = parameter("maximum number of photos per material, over all calls", ge=1)
    sources: Annotated[tuple[Literal["openverse", "commons"], ...], BeforeValidator(listed), Field(min_length=1)] = (
        parameter("openverse, commons or both, separated by commas")
    )
    licences: Annotated[tuple[Licence, ...], BeforeValidator(listed), Field(min_length=1)] = parameter(
        "allowed licences, separated by commas: also by-nc, by-nc-sa, by-nd, by-nc-nd"
    )
    folder: str = parameter("where the photos go; empty: data/raw/collected")
    min_side_px: int = Field(ge=16)
    max_megapixels: float = Field(gt=0)
    max_decoding_mb: float = Field(gt=0)
    near_duplicate_distance: int = Field(ge=0, le=7)
    terms: Mapping[str, NameList]
    openverse: ApiConfig
    commons: ApiConfig
