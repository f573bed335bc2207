"""Settings of ``download``."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from wastelens.config.base import parameter
from wastelens.config.web import FetchingConfig


class DownloadConfig(FetchingConfig):
    """TACO's annotations and photos; every key is explained in ``conf/download.yaml``."""

    source: Literal["web", "zenodo"] = parameter(
        "web: each photo from the address in its annotation; zenodo: all photos from one archive"
    )
    size: Literal["original", "640"] = parameter(
        "original, or 640: for photos on Flickr, the copies with a longest side of 640 px"
    )
    unofficial: bool = parameter("true or false: the set that has not been reviewed, into data/raw/taco_unofficial")
    annotations: Literal["keep", "update"] = parameter("keep or update annotations that have changed upstream")
    workers: int = parameter("number of photos downloaded at a time", ge=1, le=64)
    retry_dead: bool
    max_problem_share: float = parameter("fail if more than this share of the photos is unavailable", ge=0, lt=1)
    annotations_url: str
    unofficial_url: str
    archive_url: str

    @field_validator("size", mode="before")
    @classmethod
    def _as_text(cls, size: object) -> object:
        return str(size) if isinstance(size, int) and not isinstance(size, bool) else size
