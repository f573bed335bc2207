"""The web client against servers at their worst."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import errno
import hashlib
import os
import random
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.factories import config
from tests.web_server import (
    Content,
    Cut,
    Endless,
    Gzip,
    Hang,
    Json,
    Promise,
    Redirect,
    Status,
    WebServer,
    WrongLength,
    photo,
)
from urllib3.connection import HTTPConnection

from wastelens.errors import InputError
from wastelens.web import client, connections, files
from wastelens.web.client import Web
from wastelens.web.errors import Closed, NoNetwork, Unfetchable
from wastelens.web.files import Fetched

PHOTO = photo(1)
OTHER = photo(2)
QUICK = "web.backoff_s=0.01 web.read_timeout_s=1 web.connect_timeout_s=1 web.requests_per_second=1000"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as one:
        yield one


def web(*hosts: str, settings: str = "", contact: str = "") -> Web:
    """Return a client that retries quickly and may visit these hosts."""
    return Web(config("download", f"{QUICK} {settings}").web, hosts=hosts, contact=contact)


def fetch(server: WebServer, target: Path, *answers: Any, settings: str = "", **options: Any) -> Fetched:
    """Fetch a photo for which the server gives these answers."""
    with web(server.host, settings=settings) as one:
        return one.fetch_file(server.serve("/photo.jpg", *answers), target, **options)


def refusal(server: WebServer, target: Path, *answers: Any, **options: Any) -> Unfetchable:
    """Return the error for a photo with these answers; nothing is left of it."""
    with pytest.raises(Unfetchable) as caught:
        fetch(server, target, *answers, **options)
    assert list(target.parent.iterdir()) == []
    return caught.value


def test_a_file_is_fetched_unchanged(server: WebServer, tmp_path: Path) -> None:
    received: list[int] = []
    fetched = fetch(server, tmp_path / "a.jpg", Content(PHOTO, etag='"1"'), progress=received.append)
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO
    assert fetched == Fetched(len(PHOTO), hashlib.sha256(PHOTO).hexdigest())
    assert sum(received) == len(PHOTO)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_the_client_says_who_it_is(server: WebServer, tmp_path: Path) -> None:
    url = server.serve("/a", Content(PHOTO))
    with web(server.host, contact="me@example.org") as one:
        one.fetch_file(url, tmp_path / "a")
    with web(server.host) as one:
        one.fetch_file(url, tmp_path / "a")
    named, nameless = (request.headers["user-agent"] for request in server.requests)
    assert named.startswith("Wastelens/")
    assert " (me@example.org) urllib3/" in named
    assert "(no contact given)" in nameless
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert server.requests[0].headers["host"] == server.host


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 507, 520, 524, 599])
def test_temporary_failures_are_tried_again(server: WebServer, tmp_path: Path, code: int) -> None:
    fetch(server, tmp_path / "a.jpg", Status(code), Status(code), Content(PHOTO))
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451, 204, 501, 505])
def test_permanent_failures_are_not_tried_again(server: WebServer, tmp_path: Path, code: int) -> None:
    error = refusal(server, tmp_path / "a.jpg", Status(code))
    assert error.permanent
    assert error.reason.startswith(f"{code} ")
    assert error.status == code
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [407, 511])
def test_what_a_proxy_or_a_log_in_page_answers_says_nothing_of_the_file(
    server: WebServer, tmp_path: Path, code: int
) -> None:
    error = refusal(server, tmp_path / "a.jpg", Status(code))
    assert (error.reason.startswith(f"{code} "), error.permanent) == (True, False)
    assert len(server.requests) == 1


def test_attempts_are_limited(server: WebServer, tmp_path: Path) -> None:
    error = refusal(server, tmp_path / "a.jpg", Status(500), settings="web.attempts=3")
    assert (error.reason, error.permanent) == ("500 Internal Server Error", False)
    assert len(server.requests) == 3


def test_a_hang_is_tried_again(server: WebServer, tmp_path: Path) -> None:
    fetch(server, tmp_path / "a.jpg", Hang(5), Content(PHOTO), settings="web.read_timeout_s=0.3")
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO
    (tmp_path / "a.jpg").unlink()
    error = refusal(server, tmp_path / "a.jpg", Hang(5), settings="web.read_timeout_s=0.1 web.attempts=2")
    assert (error.reason, error.permanent) == ("no answer within 0.1 s", False)


def test_a_host_that_always_hangs_is_given_up(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wastelens.web.limits.GIVEN_UP_AFTER", 4)
    url, reasons = server.serve("/hanging", Hang(30)), []
    with web(server.host, settings="web.read_timeout_s=0.1 web.attempts=3") as one:
        for _ in range(3):
            with pytest.raises(Unfetchable) as caught:
                one.fetch_file(url, tmp_path / "a.jpg")
            assert not caught.value.permanent
            reasons.append(caught.value.reason)
    given_up = "given up until the next run: 4 requests in a row hung"
    assert reasons == ["no answer within 0.1 s", given_up, given_up]
    assert len(server.requests) == 4


def test_a_slow_server_is_given_up(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.web_server._PIECE", 16)
    error = refusal(server, tmp_path / "a.jpg", Endless(), settings="web.read_timeout_s=0.1 web.attempts=1")
    assert error.reason == "less than 8 kB within 0.1 s"


@pytest.mark.parametrize("named", [{"etag": '"1"'}, {"modified": "Sun, 06 Nov 1994 08:49:37 GMT"}])
def test_a_cut_file_is_resumed_by_range(server: WebServer, tmp_path: Path, named: dict[str, str]) -> None:
    fetch(server, tmp_path / "a.jpg", Cut(PHOTO, **named), Content(PHOTO, **named))
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO
    assert server.requests[1].headers["range"] == f"bytes={len(PHOTO) // 2}-"
    assert server.requests[1].headers["if-range"] in named.values()
    assert len(server.requests) == 2


def test_cuts_with_progress_are_no_failures_in_a_row(server: WebServer, tmp_path: Path) -> None:
    fetch(server, tmp_path / "a.jpg", Cut(PHOTO, etag='"1"'), settings="web.attempts=1")
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO
    assert len(server.requests) > 10


def test_attempts_with_progress_are_limited_too(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_ATTEMPTS", 4)
    with pytest.raises(Unfetchable, match="broke off"):
        fetch(server, tmp_path / "a.jpg", Cut(PHOTO, at=0.01, etag='"1"'))
    assert len(server.requests) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg.part", "a.jpg.part.json"]
    fetch(server, tmp_path / "a.jpg", Content(PHOTO, etag='"1"'))  # the next call goes on
    assert int(server.requests[-1].headers["range"].removeprefix("bytes=").removesuffix("-")) > 0
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO


@pytest.mark.parametrize("named", [{}, {"etag": 'W/"1"'}, {"etag": '"1"', "ranges": False}])
def test_what_cannot_be_resumed_starts_over(server: WebServer, tmp_path: Path, named: dict[str, Any]) -> None:
    fetch(server, tmp_path / "a.jpg", Cut(PHOTO, **named), Content(PHOTO, **named))
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO
    assert ("range" in server.requests[1].headers) == ("ranges" in named)


@pytest.mark.parametrize("other", [OTHER, OTHER[: len(PHOTO) // 4]])
def test_another_version_after_a_cut_starts_over(server: WebServer, tmp_path: Path, other: bytes) -> None:
    fetch(server, tmp_path / "a.jpg", Cut(PHOTO, etag='"1"'), Content(other, etag='"2"'))
    assert (tmp_path / "a.jpg").read_bytes() == other


def test_a_part_beyond_the_end_starts_over(server: WebServer, tmp_path: Path) -> None:
    shorter = OTHER[: len(PHOTO) // 4]
    fetch(server, tmp_path / "a.jpg", Cut(PHOTO, etag='"1"'), Content(shorter, etag='"1"'))
    assert (tmp_path / "a.jpg").read_bytes() == shorter  # the server says 416, as the version has kept its name


def test_a_part_that_does_not_fit_starts_over(server: WebServer, tmp_path: Path) -> None:
    longer = OTHER + PHOTO
    fetch(server, tmp_path / "a.jpg", Cut(PHOTO, etag='"1"'), Content(longer, etag='"1"'))
    assert (tmp_path / "a.jpg").read_bytes() == longer


def test_a_part_of_another_address_is_not_resumed(server: WebServer, tmp_path: Path) -> None:
    with web(server.host, settings="web.attempts=1") as one, pytest.raises(Unfetchable):
        one.fetch_file(server.serve("/a", Cut(PHOTO, at=0.0, etag='"1"')), tmp_path / "a.jpg")
    fetch(server, tmp_path / "a.jpg", Content(OTHER, etag='"1"'))
    assert (tmp_path / "a.jpg").read_bytes() == OTHER


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"url": 1}', b"null"])
def test_a_torn_note_is_ignored(server: WebServer, tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "a.jpg.part").write_bytes(b"old")
    (tmp_path / "a.jpg.part.json").write_bytes(torn)
    fetch(server, tmp_path / "a.jpg", Content(PHOTO, etag='"1"'))
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_a_wrong_length_is_tried_again(server: WebServer, tmp_path: Path) -> None:
    fetch(server, tmp_path / "a.jpg", WrongLength(PHOTO, len(PHOTO) + 1000), Content(PHOTO))
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO
    (tmp_path / "a.jpg").unlink()
    error = refusal(server, tmp_path / "a.jpg", WrongLength(PHOTO, len(PHOTO) + 1000))
    assert (error.reason, error.permanent) == ("the connection broke off", False)


@pytest.mark.parametrize("answer", [Promise(10_000_000_000), Endless(), Content(PHOTO)])
def test_what_is_too_large_is_cut_off(server: WebServer, tmp_path: Path, answer: Any) -> None:
    error = refusal(server, tmp_path / "a.jpg", answer, max_bytes=10_000)
    assert error.permanent
    assert error.reason.startswith("too large: ")
    assert error.reason.endswith("B, the limit is 0.01 MB")
    assert error.setting == "web.max_bytes"
    assert len(server.requests) == 1


def test_the_usual_limit_is_the_configs(server: WebServer, tmp_path: Path) -> None:
    error = refusal(server, tmp_path / "a.jpg", Promise(10_000_000_000))
    assert error.reason == "too large: 10.0 GB, the limit is 100.0 MB"


def test_a_bomb_as_file_is_refused(server: WebServer, tmp_path: Path) -> None:
    error = refusal(server, tmp_path / "a.jpg", Gzip(bytes(10_000_000), "image/jpeg"))
    assert (error.reason, error.permanent) == ("sent compressed although that was not requested", True)


def test_a_bomb_as_answer_is_refused(server: WebServer) -> None:
    url = server.serve("/api", Gzip(bytes(10_000_000)))
    with web(server.host) as one, pytest.raises(Unfetchable, match="sent compressed although that was not") as caught:
        one.fetch_json(url)
    assert caught.value.permanent
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_an_endless_answer_uses_little_memory(server: WebServer) -> None:
    url = server.serve("/api", Endless("application/json"))
    with web(server.host, settings="web.read_timeout_s=600") as one:
        tracemalloc.start()
        try:
            with pytest.raises(Unfetchable, match=r"too large: .* the limit is 32\.0 MB") as caught:
                one.fetch_json(url)
            assert tracemalloc.get_traced_memory()[1] < 100_000_000
        finally:
            tracemalloc.stop()
    assert caught.value.permanent


def test_answers_of_an_api(server: WebServer) -> None:
    server.serve("/api", Json({"results": ["é"]}))
    with web(server.host) as one:
        assert one.fetch_json(f"{server.address}/api", {"q": "glass & can", "page": 2}) == {"results": ["é"]}
        assert one.fetch_json(f"{server.address}/api?a=1", {"page": 2}) == {"results": ["é"]}
    paths = [request.path for request in server.requests]
    assert paths == ["/api?q=glass+%26+can&page=2", "/api?a=1&page=2"]


@pytest.mark.parametrize("body", [b"<html>", b"", b"[" * 100_000, b"\xff", b"1" * 10_000])
def test_an_answer_that_is_not_json_is_reported_in_one_line(server: WebServer, body: bytes) -> None:
    url = server.serve("/api", Content(body, kind="application/json"))
    with web(server.host) as one, pytest.raises(Unfetchable, match="the answer is not JSON") as caught:
        one.fetch_json(f"{url}?key=secret")
    assert not caught.value.permanent
    assert "secret" not in str(caught.value)


def test_redirects_are_followed(server: WebServer, tmp_path: Path) -> None:
    server.serve("/end", Content(PHOTO))
    server.serve("/next", Redirect("end?a=1#b", 307))
    fetched = fetch(server, tmp_path / "a.jpg", Redirect(f"{server.address}/next"))
    assert fetched.size_bytes == len(PHOTO)
    assert server.requests[-1].path == "/end?a=1"
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("http://127.0.0.1:1/", "refused: 127.0.0.1 is not a public address"),
        ("http://169.254.169.254/latest/meta-data", "refused: 169.254.169.254 is not a public address"),
        ("http://[::1]/", "refused: ::1 is not a public address"),
        ("http://2130706433/", "refused: 127.0.0.1 is not a public address"),
        ("http://localhost:1/", "is not a public address"),
        ("file:///etc/passwd", "refused: only http and https are fetched"),
        ("ftp://127.0.0.1/a", "refused: only http and https are fetched"),
        ("http://me:secret@8.8.8.8/", "refused: a user name or password in the address"),
        ("http://[bad/", "redirected to an invalid address"),
        ("/photo.jpg", "redirected in a loop"),
        ("", "302 Found without a Location"),
    ],
)
def test_redirects_to_forbidden_places_are_refused(server: WebServer, tmp_path: Path, to: str, reason: str) -> None:
    error = refusal(server, tmp_path / "a.jpg", Redirect(to))
    assert error.permanent
    assert reason in error.reason
    assert "secret" not in str(error)
    assert len(server.requests) == 1


def test_another_server_on_this_machine_is_not_asked(server: WebServer, tmp_path: Path) -> None:
    with WebServer() as other:
        error = refusal(server, tmp_path / "a.jpg", Redirect(other.serve("/secret", Content(PHOTO))))
        assert error.reason == "refused: 127.0.0.1 is not a public address"
        assert other.requests == []


def test_redirect_loops_and_long_chains_end(server: WebServer, tmp_path: Path) -> None:
    server.serve("/other", Redirect("/photo.jpg"))
    assert refusal(server, tmp_path / "a.jpg", Redirect("/other")).reason == "redirected in a loop"
    for step in range(20):
        server.serve(f"/{step}", Redirect(f"/{step + 1}"))
    before = len(server.requests)
    assert refusal(server, tmp_path / "a.jpg", Redirect("/0")).reason == "redirected more than 10 times"
    assert len(server.requests) - before == 11


def test_the_connection_goes_to_the_judged_address(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first resolution is judged; a second one, which would lead elsewhere, never happens."""
    real, asked = socket.getaddrinfo, []

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host != "photos.test":
            return real(host, *args, **options)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    server.serve("/a", Content(PHOTO))
    port = server.host.rpartition(":")[2]
    with web(f"photos.test:{port}") as one:
        one.fetch_file(f"http://photos.test:{port}/a", tmp_path / "a")
        one.fetch_file(f"http://photos.test:{port}/a", tmp_path / "a")
    assert asked == ["photos.test"]
    assert server.requests[0].headers["host"] == f"photos.test:{port}"


def test_a_name_of_a_private_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: answer)
    with web() as one, pytest.raises(Unfetchable, match=r"10\.0\.0\.1 is not a public address") as caught:
        one.fetch_file("http://photos.test/a", tmp_path / "a")
    assert caught.value.setting == "hosts"


def test_the_next_address_is_taken_where_one_is_dead(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, port = socket.getaddrinfo, int(server.host.rpartition(":")[2])

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        names = ("127.0.0.2", "127.0.0.1") if host == "photos.test" else (host,)
        return [entry for name in names for entry in real(name, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    server.serve("/a", Content(PHOTO))
    with web(f"photos.test:{port}", settings="web.attempts=1") as one:
        one.fetch_file(f"http://photos.test:{port}/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == PHOTO


@dataclass(frozen=True)
class Drip:
    """A beginning, then a byte now and then that never completes it."""

    start: bytes
    again: bytes

    def send(self, to: Any) -> None:
        to.wfile.write(self.start)
        while not to.wait(0.05):
            to.wfile.write(self.again)


@pytest.mark.parametrize(
    "drip",
    [
        Drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        Drip(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    ],
    ids=["header", "informational", "chunk"],
)
def test_an_answer_that_only_drips_is_given_up(server: WebServer, tmp_path: Path, drip: Drip) -> None:
    refused = refusal(server, tmp_path / "a", drip, settings="web.read_timeout_s=0.2 web.attempts=2")
    assert refused.reason in ("no answer within 0.2 s", "less than 8 kB within 0.2 s")
    assert not refused.permanent


def test_a_dead_address_is_not_tried_again(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, port, tried = socket.getaddrinfo, int(server.host.rpartition(":")[2]), []

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        tried.append(host)
        names = ("127.0.0.2", "127.0.0.1") if host == "photos.test" else (host,)
        return [entry for name in names for entry in real(name, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    server.serve("/a", Content(PHOTO), Cut(PHOTO), Content(PHOTO))  # which breaks the connection that is kept open
    with web(f"photos.test:{port}") as one:
        for name in ("a", "b"):
            one.fetch_file(f"http://photos.test:{port}/a", tmp_path / name)
    assert tried == ["photos.test", "127.0.0.2", "127.0.0.1", "127.0.0.1"]


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """Return a server's TLS context with a self-signed certificate for a name, saved as ``folder/ca.pem``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


def test_certificates_are_those_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host.endswith(".test") else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with WebServer(certificate(tmp_path, "photos.test")) as server, WebServer() as plain:
        port = server.host.rpartition(":")[2]
        server.serve("/a", Content(PHOTO))
        server.serve("/down", Redirect(plain.serve("/a", Content(PHOTO))))
        hosts = (f"photos.test:{port}", f"other.test:{port}", plain.host)
        with web(*hosts) as one, pytest.raises(Unfetchable, match="certificate is not trusted"):
            one.fetch_file(f"https://photos.test:{port}/a", tmp_path / "a")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with web(*hosts) as one:
            one.fetch_file(f"https://photos.test:{port}/a", tmp_path / "a")
            with pytest.raises(Unfetchable, match="certificate is not trusted"):
                one.fetch_file(f"https://other.test:{port}/a", tmp_path / "b")
            with pytest.raises(Unfetchable, match="redirected from https to http"):
                one.fetch_file(f"https://photos.test:{port}/down", tmp_path / "b")
        assert plain.requests == []
    assert (tmp_path / "a").read_bytes() == PHOTO


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """Run a server that speaks TLS as ``photos.test``, with a trusted certificate."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host.endswith(".test") else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    folder = tmp_path / "certificate"
    folder.mkdir()
    with WebServer(certificate(folder, "photos.test")) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        yield server


def test_an_answer_that_only_drips_is_given_up_behind_tls_too(secure: WebServer, tmp_path: Path) -> None:
    secure.serve("/a", Drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"))
    host = f"photos.test:{secure.host.rpartition(':')[2]}"
    settings = "web.read_timeout_s=0.3 web.attempts=1"
    with web(host, settings=settings) as one, pytest.raises(Unfetchable, match=r"less than 8 kB within 0\.3 s"):
        one.fetch_file(f"https://{host}/a", tmp_path / "a")


def test_closing_ends_waits_behind_tls_too(secure: WebServer, tmp_path: Path) -> None:
    secure.serve("/hang", Hang(600))
    secure.serve("/sending", Promise(50_000_000))
    host = f"photos.test:{secure.host.rpartition(':')[2]}"
    with ThreadPoolExecutor(2) as pool, web(host, settings="web.read_timeout_s=600") as one:
        waits = [pool.submit(one.fetch_file, f"https://{host}/{name}", tmp_path / name) for name in ("hang", "sending")]
        while len(secure.requests) < 2:
            time.sleep(0.005)
        one.close()
        errors = [wait.exception(timeout=100) for wait in waits]
    assert [type(error) for error in errors] == [Closed] * 2


def test_a_proxy_of_the_environment_is_used(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:secret@{server.host}")
    server.serve("http://photos.example.org/a", Content(PHOTO))
    server.serve("http://photos.example.org/away", Redirect("http://0x7f.1/a"))
    with web() as one:
        one.fetch_file("http://photos.example.org/a", tmp_path / "a")
        with pytest.raises(Unfetchable, match="not a public address"):
            one.fetch_file("http://photos.example.org/away", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == PHOTO
    assert [request.path for request in server.requests] == [
        "http://photos.example.org/a",
        "http://photos.example.org/away",
    ]
    assert server.requests[0].headers["host"] == "photos.example.org"
    assert server.requests[0].headers["proxy-authorization"].startswith("Basic ")


def test_a_proxy_tunnels_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with WebServer(certificate(tmp_path, "photos.example.org")) as server, tunnel(server) as (proxy, asked):
        server.serve("/a", Content(PHOTO))
        monkeypatch.setenv("https_proxy", f"http://{proxy}")
        with web() as one:
            one.fetch_file("https://photos.example.org/a", tmp_path / "a")
            with pytest.raises(Unfetchable, match="certificate is not trusted"):
                one.fetch_file("https://other.example.org/a", tmp_path / "b")
            with pytest.raises(Unfetchable, match="not a public address"):
                one.fetch_file("https://router/a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == PHOTO
    assert asked == ["CONNECT photos.example.org:443", "CONNECT other.example.org:443"]


@contextlib.contextmanager
def tunnel(server: WebServer) -> Iterator[tuple[str, list[str]]]:
    """Run a proxy that leads every ``CONNECT`` to one server; yield its address and the requests it gets."""
    asked: list[str] = []

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode().rpartition(" ")[0])
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            host, _, port = server.host.rpartition(":")
            with socket.create_connection((host, int(port))) as end, contextlib.suppress(OSError):
                back = threading.Thread(target=relay, args=(end, self.connection))
                back.start()
                relay(self.connection, end)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as proxy:
        serving = threading.Thread(target=proxy.serve_forever, args=(0.02,))
        serving.start()
        yield f"127.0.0.1:{proxy.server_address[1]}", asked
        proxy.shutdown()
        serving.join()


def relay(source: socket.socket, to: socket.socket) -> None:
    """Forward everything, and then the end."""
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            to.sendall(piece)
        to.shutdown(socket.SHUT_WR)


def test_loopback_does_not_go_through_a_proxy(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    fetch(server, tmp_path / "a.jpg", Content(PHOTO))
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO


def test_a_bad_proxy_is_reported_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://me:secret@127.0.0.1:1")
    with web() as one, pytest.raises(InputError, match="HTTP_PROXY is not an HTTP proxy") as caught:
        one.fetch_file("http://photos.example.org/a", tmp_path / "a")
    assert "secret" not in str(caught.value)


def test_a_dead_proxy_is_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with web() as one, pytest.raises(NoNetwork, match="the proxy in HTTPS_PROXY refuses or cannot be reached"):
        one.fetch_file("https://photos.example.org/a", tmp_path / "a")


@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_NONAME])
def test_without_a_network_the_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise socket.gaierror(code, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with web() as one, pytest.raises(NoNetwork) as caught:
        one.fetch_file("https://photos.test/a?key=secret", tmp_path / "a")
    assert isinstance(caught.value, InputError)
    assert str(caught.value).startswith(
        "No network: 'photos.test' cannot be reached (its name cannot be resolved: Temp"
    )
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_resolver_that_hangs_is_no_network_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(*args: Any, **options: Any) -> None:
        over.wait(300)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr(connections, "FIRST_CONTACT_S", 0.5)
    with web(settings="web.connect_timeout_s=10") as one, pytest.raises(NoNetwork, match="no answer"):
        one.fetch_file("https://photos.test/a", tmp_path / "a")
    over.set()


def test_a_second_unreachable_host_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: Counter[str] = Counter()

    def fail(host: str, *args: Any, **options: Any) -> None:
        looked_up[host] += 1
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(connections, "FIRST_CONTACT_S", 2.0)
    with web(settings="web.backoff_s=60 web.attempts=20") as one:
        for host in ("first.test", "second.test"):
            with pytest.raises(NoNetwork, match=host):
                one.fetch_file(f"https://{host}/a", tmp_path / "a")
    assert looked_up["first.test"] > looked_up["second.test"] == 1


def test_one_host_without_a_name_is_not_the_network(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host == "gone.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with web(server.host) as one:
        one.fetch_file(server.serve("/a", Content(PHOTO)), tmp_path / "a")
        with pytest.raises(Unfetchable, match="its name cannot be resolved") as caught:
            one.fetch_file("http://gone.test/a", tmp_path / "b")
    assert not caught.value.permanent


class Wires:
    """Cuts connections to all addresses, or to all but some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cut = False
        self.still: set[str] = set()
        self.tried: list[str] = []
        real = socket.socket.connect

        def connect(one: socket.socket, place: tuple[str, int]) -> None:
            self.tried.append(place[0])
            if self.cut and place[0] not in self.still:
                raise OSError(errno.ENETUNREACH, "Network is unreachable")
            real(one, place)

        monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> Wires:
    monkeypatch.setattr(connections, "GONE_AFTER_S", 0.2)
    return Wires(monkeypatch)


def test_a_network_that_goes_away_ends_it_soon(server: WebServer, tmp_path: Path, wires: Wires) -> None:
    url = server.serve("/a", Content(PHOTO))
    with web(server.host, settings="web.backoff_s=0.1 web.longest_wait_s=0.1 web.attempts=20") as one:
        one.fetch_file(url, tmp_path / "a")
        server.serve("/a", Cut(PHOTO, ranges=False), Content(PHOTO))  # which breaks the connection that is kept open
        wires.cut = True
        with pytest.raises(
            NoNetwork, match=r"connection failed, and hosts that answered before are gone\).*run the command again"
        ):
            one.fetch_file(url, tmp_path / "b")
        assert connections.GONE_AFTER_FAILURES <= len(wires.tried) - 1 < 20
        wires.cut = False
        one.fetch_file(url, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == PHOTO


def test_a_short_gap_is_waited_for(
    server: WebServer, tmp_path: Path, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "GONE_AFTER_S", 60.0)
    monkeypatch.setattr(connections, "GONE_AFTER_FAILURES", 2)
    url = server.serve("/a", Content(PHOTO), Cut(PHOTO, ranges=False), Content(PHOTO))
    with web(server.host, settings="web.backoff_s=0.1 web.longest_wait_s=0.1 web.attempts=20") as one:
        one.fetch_file(url, tmp_path / "a")
        wires.cut = True
        threading.Timer(0.5, setattr, (wires, "cut", False)).start()
        one.fetch_file(url, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == PHOTO


def test_dead_hosts_at_the_end_of_a_list_are_not_the_network(
    server: WebServer, tmp_path: Path, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many names do not resolve and however many addresses do not answer."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host.startswith("gone"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(connections, "GONE_AFTER_S", 0.0)
    wires.cut, wires.still = True, {"127.0.0.1"}
    with web(server.host, "127.0.0.9:80") as one:
        one.fetch_file(server.serve("/a", Content(PHOTO)), tmp_path / "a")
        asked = len(server.requests)
        for number in range(10):
            for host in (f"gone{number}.test", "127.0.0.9"):
                with pytest.raises(Unfetchable, match=r"its name cannot be resolved|connection failed"):
                    one.fetch_file(f"http://{host}/a", tmp_path / "b")
    assert len(server.requests) == asked


def test_a_closed_port_is_not_the_network(tmp_path: Path) -> None:
    with web("127.0.0.1:1") as one, pytest.raises(Unfetchable, match="connection failed") as caught:
        one.fetch_file("http://127.0.0.1:1/a", tmp_path / "a")
    assert not caught.value.permanent


@pytest.mark.parametrize("code", [429, 503])
def test_all_requests_to_a_host_wait_when_it_asks_them_to(server: WebServer, tmp_path: Path, code: int) -> None:
    first = server.serve("/a", Status(code, {"Retry-After": "1"}), Content(PHOTO))
    second = server.serve("/b", Content(OTHER))
    with ThreadPoolExecutor(2) as pool, web(server.host) as one:
        fetching = pool.submit(one.fetch_file, first, tmp_path / "a")
        while not server.requests:
            time.sleep(0.001)
        time.sleep(0.1)
        one.fetch_file(second, tmp_path / "b")
        fetching.result()
    told, *later = server.requests
    assert len(later) == 2
    assert all(request.at - told.at >= 0.95 for request in later)


def test_a_pause_may_be_stated_as_a_date(server: WebServer, tmp_path: Path) -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)  # an hour ahead, however slow this machine is
    error = refusal(server, tmp_path / "a.jpg", Status(429, {"Retry-After": date}))
    assert re.fullmatch(r"the server asks clients to wait 3[0-6]\d\d s", error.reason)
    assert not error.permanent


@pytest.mark.parametrize("nonsense", ["soon", "-5", "1.5", "Sun, 99 Nov 1994 99:99:99 GMT", ""])
def test_nonsense_is_not_waited_for(server: WebServer, tmp_path: Path, nonsense: str) -> None:
    fetch(server, tmp_path / "a.jpg", Status(429, {"Retry-After": nonsense}), Content(PHOTO))
    assert (tmp_path / "a.jpg").read_bytes() == PHOTO


@pytest.mark.parametrize("patience", ["3600", "9" * 5000])
def test_a_host_that_asks_for_a_long_pause_is_given_up(server: WebServer, tmp_path: Path, patience: str) -> None:
    url = server.serve("/a", Status(429, {"Retry-After": patience}))
    with WebServer() as other, web(server.host, other.host) as one:
        for _ in range(2):
            with pytest.raises(Unfetchable, match=r"the server asks clients to wait \d{4,5} s") as caught:
                one.fetch_file(url, tmp_path / "a")
            assert not caught.value.permanent
        one.fetch_file(other.serve("/b", Content(PHOTO)), tmp_path / "b")
    assert len(server.requests) == 1


def test_no_more_connections_than_is_polite(server: WebServer, tmp_path: Path) -> None:
    url = server.serve("/a", Content(PHOTO, delay_s=0.05))
    with ThreadPoolExecutor(8) as pool, web(server.host, settings="web.connections_per_host=3") as one:
        list(pool.map(lambda number: one.fetch_file(url, tmp_path / str(number)), range(16)))
    assert server.most_at_once == 3
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {PHOTO}


def test_no_more_requests_than_is_polite(server: WebServer, tmp_path: Path) -> None:
    url = server.serve("/a", Content(PHOTO))
    with ThreadPoolExecutor(4) as pool, web(server.host, settings="web.requests_per_second=20") as one:
        begun = time.monotonic()  # requests may be long on their way: what they keep is their distance from here
        list(pool.map(lambda number: one.fetch_file(url, tmp_path / str(number)), range(8)))
    times = sorted(request.at for request in server.requests)
    assert all(at - begun >= number / 20 for number, at in enumerate(times))


def test_requests_to_an_api_are_as_far_apart_as_asked(server: WebServer, tmp_path: Path) -> None:
    url = server.serve("/api", Json([]))
    with web(server.host) as one:
        begun = time.monotonic()
        for _ in range(2):
            one.fetch_json(url, seconds_between=3.0)
            one.fetch_file(server.serve("/a", Content(PHOTO)), tmp_path / "a")  # others do not wait, nor count
    assert server.asked("/api")[1].at - begun >= 3
    assert server.requests[1].at - server.requests[0].at < 2.5


def test_closing_ends_what_other_threads_wait_for(server: WebServer, tmp_path: Path) -> None:
    slow = "web.read_timeout_s=600 web.longest_wait_s=600"
    hanging = server.serve("/hang", Hang(600))
    sending = server.serve("/sending", Promise(50_000_000))
    with WebServer() as other, ThreadPoolExecutor(3) as pool, web(server.host, other.host, settings=slow) as one:
        told = other.serve("/told", Status(503, {"Retry-After": "500"}))
        waits = [
            pool.submit(one.fetch_file, hanging, tmp_path / "a"),
            pool.submit(one.fetch_file, sending, tmp_path / "b"),
            pool.submit(one.fetch_file, told, tmp_path / "c"),
        ]
        while len(server.requests) < 2 or not other.requests:
            time.sleep(0.005)
        one.close()
        errors = [wait.exception(timeout=100) for wait in waits]
    assert [type(error) for error in errors] == [Closed] * 3
    assert list(tmp_path.iterdir()) == []


FETCH = """
    import sys
    from pathlib import Path
    from wastelens.config.web import WebConfig
    from wastelens.web.client import Web
    url, host, target, settings = sys.argv[1:]
    print("ready", flush=True)
    with Web(WebConfig.model_validate_json(settings), hosts=(host,)) as web:
        web.fetch_file(url, Path(target))
"""


def fetching(server: WebServer, url: str, target: Path) -> subprocess.Popen[str]:
    """Start a process that fetches a file; return when it is about to begin."""
    settings = config("download", QUICK).web.model_dump_json()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FETCH), url, server.host, str(target), settings],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> int:
    with process:
        return process.wait(timeout=60)


class Slow(Content):
    """A file that is sent slowly."""

    def send(self, to: Any) -> None:
        rest = self.start(to)
        for first in range(0, len(rest), 1 << 16):
            to.write(rest[first : first + (1 << 16)])
            to.wait(0.01)


def test_a_fetch_killed_at_any_moment_is_resumed(server: WebServer, tmp_path: Path) -> None:
    content = random.Random(0).randbytes(3_000_000)
    url = server.serve("/a", Slow(content, etag='"1"'))
    rng = random.Random(1)
    for _ in range(5):
        asked = len(server.requests)
        process = fetching(server, url, tmp_path / "a")
        while len(server.requests) == asked:
            time.sleep(0.001)
        time.sleep(0.1 + rng.uniform(-0.1, 0.1) * bool(asked))
        process.send_signal(signal.SIGKILL)
        end(process)
        names = {path.name for path in tmp_path.iterdir()}
        assert names <= {"a", "a.part", "a.part.json"}
        assert "a" not in names or (tmp_path / "a").read_bytes() == content
    assert end(fetching(server, url, tmp_path / "a")) == 0
    assert (tmp_path / "a").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert any("range" in request.headers for request in server.requests)


def test_memory_does_not_grow_with_the_file(server: WebServer, tmp_path: Path) -> None:
    content = bytes(60_000_000)
    url = server.serve("/a", Content(content))
    with web(server.host) as one:
        tracemalloc.start()
        try:
            one.fetch_file(url, tmp_path / "a")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 20_000_000
    assert (tmp_path / "a").stat().st_size == len(content)


def test_a_full_disk_is_raised_as_it_is(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(self: files.Part, version: files.Version) -> Any:
        (tmp_path / "a.jpg.part").write_bytes(b"as far as it went")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Part, "begin", begin)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch(server, tmp_path / "a.jpg", Content(PHOTO, etag='"1"'))
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1


def test_a_thread_that_connects_during_close_does_not_wait(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.serve("/hang", Hang(600))
    with web(server.host, settings="web.read_timeout_s=600") as one:
        connect = HTTPConnection.connect

        def close_meanwhile(connection: HTTPConnection) -> None:
            one.close()
            connect(connection)

        monkeypatch.setattr(HTTPConnection, "connect", close_meanwhile)
        with pytest.raises(Closed):
            one.fetch_file(url, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_users_interrupt_ends_a_wait(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    url = server.serve("/a", Status(503, {"Retry-After": "500"}))
    with web(server.host, settings="web.longest_wait_s=600") as one:
        threading.Timer(0.2, monkeypatch.setattr, ("wastelens.system.interrupts.check", interrupted)).start()
        with pytest.raises(KeyboardInterrupt):
            one.fetch_file(url, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
