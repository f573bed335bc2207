"""Files on their way: ``NAME.part``, and beside it in ``NAME.part.json`` the version that it is a part of.

The note is removed before the part gets its final name, so that a kill never leaves a note beside a whole file; a part
without a note is fetched again from its start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from wastelens.web.answers import Answer
from wastelens.web.errors import TemporaryFailure


@dataclass(frozen=True)
class Version:
    """The version of a file that a part belongs to.

    Attributes:
        url: the URL that was requested.
        validator: a strong ETag or a Last-Modified, to request the rest of exactly this version; empty: none.
        total: the whole file's size in bytes, if the server has stated it.
    """

    url: str
    validator: str
    total: int | None


class Part:
    """The part of a file that has arrived."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def size_bytes(self) -> int:
        """Return how many bytes have arrived."""
        with contextlib.suppress(FileNotFoundError):
            return self._path.stat().st_size
        return 0

    def version(self, url: str) -> Version | None:
        """Return the version of the part if it can be resumed from this URL."""
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, LookupError):
            note = json.loads(self._note.read_bytes())
            version = Version(note["url"], note["validator"], note["total"])
            fits = version.total is None or self.size_bytes() <= version.total
            if version.url == url and fits and version.validator and self.size_bytes() > 0:
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

    def resume(self) -> BinaryIO:
        """Open the part to append to it."""
        return self._path.open("ab")

    def finish(self) -> None:
        """Give the file its name."""
        self._note.unlink(missing_ok=True)
        os.replace(self._path, self._target)

    def discard(self) -> None:
        """Remove the part and its note."""
        self._note.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def discard_unless_resumable(self, url: str) -> None:
        """Remove a part that cannot be resumed."""
        if self.version(url) is None:
            self.discard()

    def sha256(self) -> str:
        """Return the SHA-256 of what has arrived, in hexadecimal."""
        return sha256_of(self._path)


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    Attributes:
        size_bytes: of the file.
        sha256: of its content, in hexadecimal.
    """

    size_bytes: int
    sha256: str


def receive(
    url: str, part: Part, begun: Version | None, answer: Answer, max_bytes: int, progress: Callable[[int], None]
) -> Fetched:
    """Read an answer to its end, never whole in memory, and give the file its name.

    Args:
        url: the URL that was requested.
        part: where the file is put together.
        begun: the version of the part whose rest was requested; None: the whole file was.
        answer: to read.
        max_bytes: the largest acceptable size.
        progress: called with the number of bytes received since the last call.

    Raises:
        Unfetchable: not an acceptable answer, or too large.
        TemporaryFailure: broken off, or a part that does not fit.
    """
    resumed = begun is not None and answer.status == 206
    if begun is not None and (answer.status == 416 or (resumed and not _fits(begun, part, answer))):
        part.discard()
        raise TemporaryFailure("the rest does not fit the part that is there")
    answer.check_status(206 if resumed else 200)
    answer.check_encoding()
    total = begun.total if begun is not None and resumed else answer.promised_bytes
    answer.check_size(total or 0, max_bytes)
    size_bytes = part.size_bytes() if resumed else 0
    with part.resume() if resumed else part.begin(Version(url, answer.validator, total)) as file:
        for piece in answer.pieces():
            size_bytes += len(piece)
            answer.check_size(size_bytes, max_bytes)
            file.write(piece)
            progress(len(piece))
    if total not in (None, size_bytes):
        raise TemporaryFailure("the length is not the promised one")
    fetched = Fetched(size_bytes, part.sha256())
    part.finish()
    return fetched


def _fits(begun: Version, part: Part, answer: Answer) -> bool:
    """Tell whether a partial answer is the rest of the version that the part belongs to."""
    first, last, total = answer.range or (-1, -1, None)
    whole = first == part.size_bytes() and total in (last + 1, None)
    same_size = None in (total, begun.total) or total == begun.total
    same_etag = not begun.validator.startswith('"') or answer.etag in ("", begun.validator)
    return whole and same_size and same_etag


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
