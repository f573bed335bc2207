"""A web server on loopback that plays Flickr, Openverse and Commons, at their best and at their worst."""

from __future__ import annotations

import gzip
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from PIL import Image

_PIECE = 1 << 16


def photo(seed: int = 0, width: int = 320, height: int = 240, form: str = "JPEG") -> bytes:
    """Return a photo file: noise over a gradient, a different one for each seed."""
    rng = np.random.default_rng(seed)
    across = np.linspace(0, 1, width)[None, :, None] * rng.uniform(-150, 150, 3)
    down = np.linspace(0, 1, height)[:, None, None] * rng.uniform(-150, 150, 3)
    pixels = 128 + across + down + rng.normal(0, 20, (height, width, 3))
    written = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(written, form)
    return written.getvalue()


@dataclass(frozen=True)
class Request:
    """A client's request.

    Attributes:
        path: with its query.
        headers: by lower-case names.
        at: when, in monotonic seconds.
    """

    path: str
    headers: Mapping[str, str]
    at: float


class Answer(Protocol):
    """The server's answer to a request."""

    def send(self, to: _Handler) -> None: ...


@dataclass(frozen=True)
class Content:
    """A whole file; by range, and not at all where the client has it, as it asks."""

    body: bytes
    kind: str = "image/jpeg"
    etag: str = ""
    ranges: bool = True
    delay_s: float = 0.0
    modified: str = ""

    def send(self, to: _Handler) -> None:
        to.wait(self.delay_s)
        rest = self.start(to)
        to.write(rest)

    def start(self, to: _Handler) -> bytes:
        """Send the head, and return what is then to be sent."""
        first = self._first_byte(to.headers)
        whole = len(self.body)
        named = {"Content-Type": self.kind, "ETag": self.etag, "Last-Modified": self.modified}
        if self.ranges:
            named["Accept-Ranges"] = "bytes"
        if first >= whole > 0:
            to.head(416, {"Content-Range": f"bytes */{whole}", "Content-Length": "0"})
            return b""
        named["Content-Length"] = str(whole - first)
        if first:
            named["Content-Range"] = f"bytes {first}-{whole - 1}/{whole}"
        to.head(206 if first else 200, named)
        return self.body[first:]

    def _first_byte(self, asked: Any) -> int:
        still_so = asked.get("If-Range") in (None, self.etag or None, self.modified or None)
        if not self.ranges or "Range" not in asked or not still_so:
            return 0
        return int(asked["Range"].removeprefix("bytes=").removesuffix("-"))


@dataclass(frozen=True)
class Cut(Content):
    """A file whose connection breaks after the share ``at`` of what was still to be sent, one byte at least."""

    at: float = field(default=0.5, kw_only=True)

    def send(self, to: _Handler) -> None:
        to.wait(self.delay_s)
        rest = self.start(to)
        to.write(rest[: max(1, int(len(rest) * self.at))])
        to.close_connection = True


@dataclass(frozen=True)
class Json:
    """An API's answer."""

    value: Any
    delay_s: float = 0.0

    def send(self, to: _Handler) -> None:
        to.wait(self.delay_s)
        to.whole(200, {"Content-Type": "application/json"}, json.dumps(self.value).encode())


@dataclass(frozen=True)
class Status:
    """A status with next to no content."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, to: _Handler) -> None:
        to.whole(self.code, {"Content-Type": "text/plain", **self.headers}, f"{self.code}\n".encode())


@dataclass(frozen=True)
class Hang:
    """No answer for this long, then a broken connection."""

    seconds: float

    def send(self, to: _Handler) -> None:
        to.wait(self.seconds)
        to.close_connection = True


@dataclass(frozen=True)
class WrongLength:
    """A body of another length than was promised; the connection ends behind it."""

    body: bytes
    promised: int
    kind: str = "image/jpeg"

    def send(self, to: _Handler) -> None:
        to.head(200, {"Content-Type": self.kind, "Content-Length": str(self.promised), "Connection": "close"})
        to.write(self.body)


@dataclass(frozen=True)
class Redirect:
    """A redirect."""

    url: str
    code: int = 302

    def send(self, to: _Handler) -> None:
        to.whole(self.code, {"Location": self.url}, b"")


@dataclass(frozen=True)
class Page:
    """A web page with status 200, which hosts send in place of photos."""

    text: str = "<!DOCTYPE html><title>Not here</title>"

    def send(self, to: _Handler) -> None:
        to.whole(200, {"Content-Type": "text/html; charset=utf-8"}, self.text.encode())


@dataclass(frozen=True)
class Promise:
    """A promise of this many bytes, which are sent slowly until the client goes away."""

    bytes: int
    kind: str = "image/jpeg"

    def send(self, to: _Handler) -> None:
        to.head(200, {"Content-Type": self.kind, "Content-Length": str(self.bytes)})
        left = self.bytes
        while left > 0 and not to.wait(0.02):
            to.write(bytes(min(_PIECE, left)))
            left -= _PIECE


@dataclass(frozen=True)
class Endless:
    """Bytes without a stated length, until the client goes away."""

    kind: str = "image/jpeg"

    def send(self, to: _Handler) -> None:
        to.head(200, {"Content-Type": self.kind, "Connection": "close"})
        while not to.wait(0.001):
            to.write(bytes(_PIECE))


@dataclass(frozen=True)
class Gzip:
    """A compressed answer: a small one may be large."""

    body: bytes
    kind: str = "application/json"

    def send(self, to: _Handler) -> None:
        named = {"Content-Type": self.kind, "Content-Encoding": "gzip"}
        to.whole(200, named, gzip.compress(self.body, 1))


class WebServer:
    """Answers as it was told, a thread for each connection, and remembers what it was asked.

    Parameters:
        tls: with a certificate; None: plain HTTP.

    Attributes:
        host: ``127.0.0.1:PORT``.
        address: the same as a URL.
        requests: in the order in which they came.
        most_at_once: how many of them were being answered at the same time.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._answers: dict[str, list[Answer]] = {}
        self._asked: dict[str, int] = {}
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._at_once = 0
        self.closing = threading.Event()
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.address = f"{'https' if tls else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                _shut(connection)
        self._server.server_close()

    def serve(self, path: str, *answers: Answer) -> str:
        """Answer the n-th request to a path with the n-th answer, later ones with the last; return the URL.

        A path without a query stands for any query. Serving a path again replaces its answers and restarts the count.
        """
        with self._lock:
            self._answers[path] = list(answers)
            self._asked[path] = 0
        return self.address + path

    def asked(self, path: str) -> list[Request]:
        """Return the requests to a path, with any query."""
        return [request for request in self.requests if path in (request.path, request.path.partition("?")[0])]

    def begin(self, request: Request) -> Answer:
        """Remember a request, and choose its answer."""
        with self._lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            path = request.path if request.path in self._answers else request.path.partition("?")[0]
            if path not in self._answers:
                return Status(404)
            answers, number = self._answers[path], self._asked[path]
            self._asked[path] += 1
            return answers[min(number, len(answers) - 1)]

    def end(self) -> None:
        """Record that a request has been answered."""
        with self._lock:
            self._at_once -= 1

    def opened(self, connection: socket.socket) -> None:
        """Record a client's connection."""
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Forget a client's connection."""
        with self._lock:
            self._open.discard(connection)


class _Server(ThreadingHTTPServer):
    owner: WebServer
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that go away, and errors whose output no test reads."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes, and the second would wait for 40 ms

    def setup(self) -> None:
        super().setup()
        self.server.owner.opened(self.connection)

    def finish(self) -> None:
        self.server.owner.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: tests read ``requests``."""

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.owner.begin(Request(self.path, headers, time.monotonic()))
        try:
            answer.send(self)
        finally:
            self.server.owner.end()

    def wait(self, seconds: float) -> bool:
        """Wait; return whether the server is closing."""
        return seconds > 0 and self.server.owner.closing.wait(seconds)

    def head(self, code: int, headers: Mapping[str, str]) -> None:
        """Send the status and those headers that have a value."""
        self.send_response(code)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def write(self, body: bytes) -> None:
        """Send a body in pieces while the client reads it."""
        for first in range(0, len(body), _PIECE):
            self.wfile.write(body[first : first + _PIECE])

    def whole(self, code: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send an answer of a known length."""
        self.head(code, {**headers, "Content-Length": str(len(body))})
        self.write(body)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
