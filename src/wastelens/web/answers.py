"""What a server answers, read with care: nothing in it is believed before it is checked."""

from __future__ import annotations

import contextlib
import email.utils
import re
import time
import zlib
from collections.abc import Callable, Iterator
from http import HTTPStatus

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import HTTPError, InvalidHeader

from wastelens.web.addresses import Location
from wastelens.web.errors import Limit, Passing, Unfetchable
from wastelens.web.sizes import in_words

_PIECE = 1 << 16
_SLOWEST_BYTES = 1 << 13  # within each read timeout; slower ones would keep a thread for days
_SMALL = 1 << 12
_ETAG = re.compile(r'(W/)?"[!#-~]{0,200}"')
_KIND = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_LENGTH = re.compile(r"[0-9]{1,18}")
_UNTYPED = ("", "application/octet-stream", "binary/octet-stream")  # as S3 has it where nobody said what it is


class Answer:
    """A response that has begun.

    Attributes:
        location: where it comes from, after all redirects.
        status: the HTTP status.
    """

    def __init__(
        self,
        response: BaseHTTPResponse,
        location: Location,
        read_timeout_s: float,
        reason: Callable[[HTTPError, Location], Exception],
        reading: Callable[[BaseHTTPResponse], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._response = response
        self._read_timeout_s = read_timeout_s
        self._reason = reason
        self._reading = reading
        self.location = location
        self.status = response.status

    @property
    def content_type(self) -> str:
        """Lower case, without parameters; empty: none, or none that could be one."""
        kind = self._header("Content-Type").partition(";")[0].strip().lower()[:100]
        return kind if _KIND.fullmatch(kind) else ""

    @property
    def etag(self) -> str:
        """The server's name for this version; empty: none, or none that could be one."""
        etag = self._header("ETag").strip()
        return etag if _ETAG.fullmatch(etag) else ""

    @property
    def validator(self) -> str:
        """What names this version so exactly that its rest can be asked for (RFC 9110, 13.1.5); empty: nothing does."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        modified = self._header("Last-Modified").strip()
        usable = modified.isascii() and modified.isprintable() and email.utils.parsedate(modified)
        return modified if usable else ""

    @property
    def promised_bytes(self) -> int | None:
        """How many bytes this answer has, as the server says."""
        length = self._header("Content-Length").strip()
        return int(length) if _LENGTH.fullmatch(length) else None

    def part_of(self) -> tuple[int, int, int | None] | None:
        """First byte, last byte and the whole file's size (None: not told) of an answer that is a part."""
        found = _RANGE.fullmatch(self._header("Content-Range").strip().lower())
        if found is None:
            return None
        first, last, total = found.groups()
        return int(first), int(last), None if total == "*" else int(total)

    def check_status(self, *usable: int) -> None:
        """Raises Unfetchable where the status is none of these."""
        if self.status not in usable:
            raise Unfetchable(self.location.shown, status_words(self.status), lasting=True, status=self.status)

    def check_kind(self, kinds: tuple[str, ...]) -> None:
        """Raises Unfetchable where the content type begins with none of these, if there are any."""
        kind = self.content_type
        if kinds and kind not in _UNTYPED and not kind.startswith(kinds):
            what = f"a web page ({kind})" if kind == "text/html" else kind
            raise self.refused(f"{what} instead of {' or '.join(kinds)}")

    def check_not_compressed(self) -> None:
        """Raises Unfetchable where the file is not sent as it is: that was not asked for, and could be a bomb."""
        if self._encoding() not in ("", "identity"):
            raise self.refused("sent compressed, which was not asked for")

    def check_size(self, size_bytes: int, most_bytes: int) -> None:
        """Raises Unfetchable where that is too much."""
        if size_bytes > most_bytes:
            reason = f"too large: {in_words(size_bytes)}, at most {in_words(most_bytes)} are taken"
            raise self.refused(reason, "max_bytes")

    def refused(self, reason: str, limit: Limit = "") -> Unfetchable:
        """The error that says that this is of no use, and will not be, unless that limit is set otherwise."""
        return Unfetchable(self.location.shown, reason, lasting=True, limit=limit)

    def pieces(self) -> Iterator[bytes]:
        """The body as it is sent, as it comes in.

        Raises:
            Passing: the connection broke, is silent for too long, or is a trickle.
        """
        window_ends, came = time.monotonic() + self._read_timeout_s, 0
        while piece := self._read():
            yield piece
            came += len(piece)
            if time.monotonic() > window_ends:
                if came < _SLOWEST_BYTES:
                    raise Passing(f"less than {_SLOWEST_BYTES >> 10} kB within {self._read_timeout_s:g} s")
                window_ends, came = time.monotonic() + self._read_timeout_s, 0

    def content(self, most_bytes: int) -> bytearray:
        """The whole body, decompressed.

        Raises:
            Passing: as `pieces` does.
            Unfetchable: it has more bytes than that, compressed or not, or is compressed in another way than gzip.
        """
        if self._encoding() not in ("", "identity", "gzip", "x-gzip"):
            raise self.refused("compressed in a way that was not asked for")
        content = bytearray()
        for piece in self._decompressed(most_bytes):
            content += piece
            self.check_size(len(content), most_bytes)
        return content

    def _decompressed(self, most_bytes: int) -> Iterator[bytes]:
        if "gzip" not in self._encoding():
            yield from self.pieces()
            return
        inflated = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        came = 0
        try:
            for piece in self.pieces():
                came += len(piece)
                self.check_size(came, most_bytes)
                yield inflated.decompress(piece, most_bytes + 1)  # a small piece may be a large bomb
                if inflated.eof:  # what follows is of no use, and may be without end
                    return
        except zlib.error:
            raise Passing("its compression is damaged") from None
        raise Passing("the connection broke off")

    def _read(self) -> bytes:
        try:
            with self._reading(self._response):
                return self._response.read1(_PIECE, decode_content=False) or b""
        except TimeoutError:
            raise Passing("no answer in time") from None
        except HTTPError as error:
            raise self._reason(error, self.location) from None

    def _encoding(self) -> str:
        return self._header("Content-Encoding").strip().lower()

    def _header(self, name: str) -> str:
        return self._response.headers.get(name, "")


def leave(response: BaseHTTPResponse) -> None:
    """End a response. What is small and here already is read, so that its connection can serve again."""
    if response.length_remaining is not None and response.length_remaining <= _SMALL:
        with contextlib.suppress(HTTPError):
            response.read1(_SMALL, decode_content=False)
    response.close()


def retry_after_s(response: BaseHTTPResponse) -> float:
    """How long the server asks to be left alone, in seconds, told as such or as a date; 0: it does not."""
    told = response.headers.get("Retry-After", "")[:60]
    try:
        return Retry().parse_retry_after(told)
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def status_words(status: int) -> str:
    """A status with the standard's words for it, never the server's own."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"status {status}"
