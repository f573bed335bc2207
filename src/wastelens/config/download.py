"""Settings of ``download``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from wastelens.config.web import FetchingConfig


class DownloadConfig(FetchingConfig):
    """TACO's annotations and photos; every key is explained in ``conf/download.yaml``."""

    source: Literal["web", "zenodo"]
    size: Literal["original", "640"]
    unofficial: bool
    annotations: Literal["keep", "update"]
    retry_dead: bool
    max_problem_share: float = Field(ge=0, lt=1)
    annotations_url: str
    unofficial_url: str
    archive_url: str

    @field_validator("size", mode="before")
    @classmethod
    def _as_text(cls, size: object) -> object:
        return str(size) if isinstance(size, int) and not isinstance(size, bool) else size
