"""What ``download`` and ``collect`` are asked for, typed: photos from the web."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from wastelens.config.base import Config, NameList, listed

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")
_CONTACT = re.compile(r"[!-~][ -~]*")  # printable ASCII: it goes into a header
Licence = Literal["cc0", "pdm", "by", "by-sa", "by-nc", "by-nc-sa", "by-nd", "by-nc-nd"]


class WebConfig(Config):
    """Manners towards other people's servers; every key is explained in ``conf/download.yaml``."""

    connections_per_host: int = Field(ge=1, le=64)
    requests_per_second: float = Field(gt=0)
    attempts: int = Field(ge=1, le=20)
    backoff_s: float = Field(ge=0)
    longest_wait_s: float = Field(ge=0)
    connect_timeout_s: float = Field(gt=0)
    read_timeout_s: float = Field(gt=0)
    max_bytes: int = Field(ge=1)


class GettingConfig(Config):
    """What both have in common."""

    data_folder: Path
    workers: int = Field(ge=1, le=64)
    hosts: NameList
    contact: str
    web: WebConfig

    @field_validator("hosts")
    @classmethod
    def _plain_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"'{host}' is no host; write a name or an address, with its port if it has one")
        return hosts

    @field_validator("contact")
    @classmethod
    def _one_line(cls, contact: str) -> str:
        contact = contact.strip()
        if contact and not _CONTACT.fullmatch(contact):
            raise ValueError("must be one line of plain ASCII: an e-mail address or a page")
        return contact


class DownloadConfig(GettingConfig):
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
    def _a_word(cls, size: object) -> object:
        return str(size) if isinstance(size, int) and not isinstance(size, bool) else size


class ApiConfig(Config):
    """A catalogue of photos that is searched through its documented interface."""

    url: str
    seconds_between_requests: float = Field(ge=0)


class CollectConfig(GettingConfig):
    """Photos without labels, by search terms; every key is explained in ``conf/collect.yaml``."""

    dataset: str
    folder: str
    materials: NameList
    photos: int = Field(ge=1)
    sources: Annotated[tuple[Literal["openverse", "commons"], ...], BeforeValidator(listed), Field(min_length=1)]
    licences: Annotated[tuple[Licence, ...], BeforeValidator(listed), Field(min_length=1)]
    min_side_px: int = Field(ge=16)
    max_megapixels: float = Field(gt=0)
    max_whole_megapixels: float = Field(gt=0)
    near_duplicate_distance: int = Field(ge=0, le=7)
    terms: Mapping[str, NameList]
    openverse: ApiConfig
    commons: ApiConfig
