"""One attempt to receive a file: begun anew or gone on with, checked at each step, never whole in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wastelens.web.answers import Answer
from wastelens.web.errors import Passing, Unchanged
from wastelens.web.manners import Patience
from wastelens.web.partial import Part, Version


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    Attributes:
        size_bytes: of the file.
        sha256: of its content, in hexadecimal.
        etag: the server's name for this version; may be empty.
    """

    size_bytes: int
    sha256: str
    etag: str


@dataclass(frozen=True)
class FileWish:
    """A file that is asked for, and what will do.

    Attributes:
        kinds: beginnings of content types; empty: any.
        max_bytes: more are not taken.
        progress: is told how many bytes have come in since the last time.
        known_etag: of the version that is of no interest; empty: any is.
    """

    url: str
    part: Part
    kinds: tuple[str, ...]
    max_bytes: int
    progress: Callable[[int], None]
    known_etag: str = ""

    def begun(self) -> Version | None:
        """The version that the part is of, if one can go on with it."""
        return self.part.version(self.url)

    def is_whole(self, begun: Version) -> bool:
        """Whether nothing is missing of the part, as after a kill right before the end."""
        size_bytes = self.part.size_bytes()
        return size_bytes == begun.total and size_bytes <= self.max_bytes

    def headers(self, begun: Version | None) -> dict[str, str]:
        """What to ask with; begun: the version that the part is of."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}  # stored is what was sent
        if begun is not None:
            headers |= {"Range": f"bytes={self.part.size_bytes()}-", "If-Range": begun.validator}
        if self.known_etag:
            headers["If-None-Match"] = self.known_etag
        return headers


def receive(wish: FileWish, begun: Version | None, answer: Answer, patience: Patience) -> Fetched:
    """Read an answer to its end, and give the file its name.

    Raises:
        Unfetchable: not what was asked for, or too large.
        Passing: broken off, or a part that does not fit.
        Unchanged: it is the version that is known.
    """
    if answer.status == 304 and wish.known_etag:
        wish.part.discard()
        raise Unchanged
    if answer.status == 416 and begun is not None:
        wish.part.discard()
        raise Passing("there is less than before")
    answer.check_status(200, 206)
    answer.check_not_compressed()
    answer.check_kind(wish.kinds)
    goes_on = answer.status == 206
    total = _total_of_part(wish, begun, answer) if goes_on else answer.promised_bytes
    answer.check_size(total or 0, wish.max_bytes)
    version = begun if goes_on and begun is not None else Version(wish.url, answer.etag, answer.validator, total)
    digest = wish.part.digest() if goes_on else hashlib.sha256()
    _write(wish, version, answer, digest, patience, goes_on=goes_on)
    if total is not None and wish.part.size_bytes() != total:
        raise Passing("another length than was promised")
    return finish(wish, version, digest)


def finish(wish: FileWish, version: Version, digest: Any = None) -> Fetched:
    """Give a whole file its name; digest: its SHA-256, if it is known."""
    digest = digest or wish.part.digest()
    size_bytes = wish.part.size_bytes()
    wish.part.finish()
    return Fetched(size_bytes, digest.hexdigest(), version.etag)


def _total_of_part(wish: FileWish, begun: Version | None, answer: Answer) -> int | None:
    """The whole file's size, if this is the rest of what there is; otherwise that is given up, and asked for anew."""
    part = answer.part_of()
    if begun is not None and part is not None:
        first, last, total = part
        fits = first == wish.part.size_bytes() and total in (last + 1, None)
        same = total in (begun.total, None) or begun.total is None
        if fits and same and answer.etag in ("", begun.etag):
            return begun.total or total
    wish.part.discard()
    raise Passing("a part that does not fit to what was there")


def _write(wish: FileWish, version: Version, answer: Answer, digest: Any, patience: Patience, *, goes_on: bool) -> None:
    with wish.part.go_on() if goes_on else wish.part.begin(version) as file:
        size_bytes = wish.part.size_bytes() if goes_on else 0
        for piece in answer.pieces():
            patience.check()
            size_bytes += len(piece)
            answer.check_size(size_bytes, wish.max_bytes)
            file.write(piece)
            digest.update(piece)
            wish.progress(len(piece))
