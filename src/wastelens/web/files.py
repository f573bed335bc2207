"""Answers of servers, read with care: nothing in them is believed before it is checked; and files on their way.

A file arrives as ``NAME.part``, and beside it ``NAME.part.json`` notes the version that it is a part of. The note is
removed before the part gets its final name, so that a kill never leaves a note beside a whole file; a part without a
note is fetched again from its start.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http.client import responses
from pathlib import Path
from typing import BinaryIO

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from wastelens.web.addresses import Location
from wastelens.web.connections import Connections
from wastelens.web.errors import TemporaryFailure, Unfetchable

_PIECE_BYTES = 1 << 16
_SMALL_BYTES = 1 << 12
_ETAG = re.compile(r'(W/)?"[!#-~]{0,200}"')
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)


class Answer:
    """A response whose head has been read.

    Attributes:
        location: where it comes from, after all redirects.
        status: the HTTP status.
        promised_bytes: the length of the body as the server states it; None: not stated.
        etag: the server's name for this version; empty: none, or not a valid one.
    """

    def __init__(self, response: BaseHTTPResponse, location: Location, connections: Connections) -> None:
        self._response = response
        self._connections = connections
        self.location = location
        self.status = response.status
        self.promised_bytes = response.length_remaining
        etag = self._header("ETag")
        self.etag = etag if _ETAG.fullmatch(etag) else ""

    @property
    def validator(self) -> str:
        """A header that names this version exactly enough to request its rest (RFC 9110, 13.1.5); empty: none."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        modified = self._header("Last-Modified")
        usable = modified.isascii() and modified.isprintable() and email.utils.parsedate(modified)
        return modified if usable else ""

    @property
    def range(self) -> tuple[int, int, int | None] | None:
        """First byte, last byte and the whole file's size (None: not stated) of a partial answer."""
        found = _RANGE.fullmatch(self._header("Content-Range"))
        if found is None:
            return None
        first, last, total = found.groups()
        return int(first), int(last), None if total == "*" else int(total)

    def check_head(self, usable_status: int) -> None:
        """Raise Unfetchable for another status, or a compressed body, which was not requested and may be a bomb."""
        if self.status != usable_status:
            raise Unfetchable(self.location.shown, status_text(self.status), permanent=True, status=self.status)
        if self._header("Content-Encoding").lower() not in ("", "identity"):
            raise Unfetchable(self.location.shown, "sent compressed although that was not requested", permanent=True)

    def check_size(self, size_bytes: int, most_bytes: int) -> None:
        """Raise Unfetchable if that is too much."""
        if size_bytes > most_bytes:
            reason = f"too large: {size_text(size_bytes)}, the limit is {size_text(most_bytes)}"
            raise Unfetchable(self.location.shown, reason, permanent=True, setting="web.max_bytes")

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it is sent, piece by piece; raises TemporaryFailure if it breaks off."""
        while piece := self._connections.read(self._response, self.location, _PIECE_BYTES):
            yield piece

    def content(self, most_bytes: int) -> bytearray:
        """Return the whole body; raises TemporaryFailure if it breaks off, Unfetchable if it has more bytes."""
        content = bytearray()
        for piece in self.pieces():
            content += piece
            self.check_size(len(content), most_bytes)
        return content

    def _header(self, name: str) -> str:
        return self._response.headers.get(name, "").strip()


def leave(response: BaseHTTPResponse) -> None:
    """End a response; a short rest is read, so that its connection can serve again."""
    if response.length_remaining is not None and response.length_remaining <= _SMALL_BYTES:
        with contextlib.suppress(HTTPError, TemporaryFailure):
            response.read1(_SMALL_BYTES, decode_content=False)
    response.close()


def status_text(status: int) -> str:
    """Return a status with the standard's phrase for it, never the server's own."""
    return f"{status} {responses.get(status, 'Unknown Status')}"


def size_text(size_bytes: float) -> str:
    """Return ``2.6 GB``, ``31.4 MB``, or ``0.01 MB``."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:,.1f} GB"
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e6:.3g} MB"


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched; its SHA-256 is in hexadecimal."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Version:
    """The version of a file that a part belongs to."""

    url: str  # that was requested
    validator: str  # a strong ETag or a Last-Modified, to request the rest of exactly this version; empty: none
    total: int | None  # the whole file's size in bytes, if the server has stated it


class Part:
    """The part of a file that has arrived from a URL."""

    def __init__(self, target: Path, url: str) -> None:
        self._target = target
        self._url = url
        self._path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def size_bytes(self) -> int:
        """Return how many bytes have arrived."""
        with contextlib.suppress(FileNotFoundError):
            return self._path.stat().st_size
        return 0

    def version(self) -> Version | None:
        """Return the version of the part if it can be resumed."""
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, LookupError):
            note = json.loads(self._note.read_bytes())
            version = Version(note["url"], note["validator"], note["total"])
            fits = version.total is None or self.size_bytes() <= version.total
            ours = version.url == self._url and not self._path.is_symlink()
            if ours and fits and version.validator and self.size_bytes() > 0:
                return version
        return None

    def begin(self, version: Version) -> BinaryIO:
        """Open an empty part for a version."""
        self.discard()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("wb")
        if version.validator:
            self._note.write_text(json.dumps(asdict(version)), encoding="utf-8")  # torn by a kill, it is ignored
        return file

    def discard(self) -> None:
        """Remove the part and its note."""
        self._note.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def receive(
        self, begun: Version | None, answer: Answer, max_bytes: int, progress: Callable[[int], None]
    ) -> Fetched:
        """Read an answer to its end, never whole in memory, and give the file its name.

        Args:
            begun: the version of the part whose rest was requested; None: the whole file was.
            answer: to read.
            max_bytes: the largest acceptable size.
            progress: called with the number of bytes received since the last call.

        Raises:
            Unfetchable: not an acceptable answer, or too large.
            TemporaryFailure: broken off, or a part that does not fit.
        """
        resumed = begun is not None and answer.status == 206
        if begun is not None and (answer.status == 416 or (resumed and not self._is_followed_by(answer, begun))):
            self.discard()
            raise TemporaryFailure("the rest does not fit the part that is there")
        answer.check_head(206 if resumed else 200)
        total = begun.total if begun is not None and resumed else answer.promised_bytes
        answer.check_size(total or 0, max_bytes)
        size_bytes = self.size_bytes() if resumed else 0
        version = Version(self._url, answer.validator, total)
        with self._path.open("ab") if resumed else self.begin(version) as file:
            for piece in answer.pieces():
                size_bytes += len(piece)
                answer.check_size(size_bytes, max_bytes)
                file.write(piece)
                progress(len(piece))
        if total not in (None, size_bytes):
            raise TemporaryFailure("the length is not the promised one")
        fetched = Fetched(size_bytes, sha256_of(self._path))
        self._note.unlink(missing_ok=True)
        os.replace(self._path, self._target)
        return fetched

    def _is_followed_by(self, answer: Answer, begun: Version) -> bool:
        """Tell whether a partial answer is the rest of the version that the part belongs to."""
        first, last, total = answer.range or (-1, -1, None)
        whole = first == self.size_bytes() and total in (last + 1, None)
        same_size = None in (total, begun.total) or total == begun.total
        same_etag = not begun.validator.startswith('"') or answer.etag in ("", begun.validator)
        return whole and same_size and same_etag


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
