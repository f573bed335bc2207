"""Where tasks run, and how long they wait for MLflow's server: settings of several steps."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from wastelens.errors import did_you_mean

LOCAL = "local"
_ADDRESS = re.compile(r"(tcp|tls)://(\[[^\]]+\]|[^:/\s]+):\d{1,5}")
_PROCESSES = re.compile(r"processes:(\d{1,3})")
LONGEST_OUTAGE_MINUTES = 18  # MLflow's client repeats a request no longer
ENGINE_HELP = (
    "local: one task after another in this process; processes:N: N processes on this machine, which share its cores; "
    "tcp://HOST:PORT or tls://HOST:PORT: a Dask scheduler"
)


def _engine(text: str) -> str:
    if text == LOCAL or _ADDRESS.fullmatch(text) or (_PROCESSES.fullmatch(text) and processes_of(text) > 0):
        return text
    if _PROCESSES.fullmatch(text):
        raise ValueError("needs at least one process, as in processes:2")
    hint = did_you_mean(text.partition(":")[0], [LOCAL, "processes", "tcp", "tls"])
    raise ValueError(f"'{text}' is no engine.{hint} Use local, processes:N, tcp://HOST:PORT or tls://HOST:PORT")


def processes_of(engine: str) -> int:
    """Return N of ``processes:N``; 0 for any other engine."""
    found = _PROCESSES.fullmatch(engine)
    return int(found[1]) if found else 0


def is_elsewhere(engine: str) -> bool:
    """Return whether an engine's workers may be on other machines."""
    return bool(_ADDRESS.fullmatch(engine))


def is_on_this_machine(address: str) -> bool:
    """Return whether a URL's host is this machine by a name that means another one elsewhere."""
    host = urlsplit(address).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


EngineName = Annotated[str, AfterValidator(_engine)]
OutageMinutes = Annotated[float, Field(ge=0, le=LONGEST_OUTAGE_MINUTES)]
Retries = Annotated[int, Field(ge=0, le=100)]
