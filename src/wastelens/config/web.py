"""Settings that ``download`` and ``collect`` share: how politely to fetch from other people's servers."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator

from wastelens.config.base import Config, NameList

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")
_CONTACT = re.compile(r"[!-~][ -~]*")  # printable ASCII, as it goes into a header


class WebConfig(Config):
    """Limits of the web client; every key is explained in ``conf/download.yaml``."""

    connections_per_host: int = Field(ge=1, le=64)
    requests_per_second: float = Field(gt=0)
    attempts: int = Field(ge=1, le=20)
    backoff_s: float = Field(ge=0)
    longest_wait_s: float = Field(ge=0)
    connect_timeout_s: float = Field(gt=0)
    read_timeout_s: float = Field(gt=0)
    max_bytes: int = Field(ge=1)


class FetchingConfig(Config):
    """Settings of every step that fetches from the web."""

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
                raise ValueError(f"'{host}' is not a host; write a name or an address, with its port if it has one")
        return hosts

    @field_validator("contact")
    @classmethod
    def _one_line(cls, contact: str) -> str:
        contact = contact.strip()
        if contact and not _CONTACT.fullmatch(contact):
            raise ValueError("must be one line of plain ASCII: an e-mail address or the URL of a page")
        return contact
