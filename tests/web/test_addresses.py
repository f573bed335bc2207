"""Which addresses may be visited: never a private one, however it is written."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from wastelens.web.addresses import Gate, Location, is_public, literal_address, locate
from wastelens.web.errors import TemporaryFailure, Unfetchable
from wastelens.web.limits import Cancellation

PRIVATE = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "198.18.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::",
    "2002:c0a8:101::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "no address",
)  # fmt: skip
PUBLIC = ("8.8.8.8", "151.101.0.133", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8")


def resolver(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name have these addresses; return the names that are resolved."""
    asked = []

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def addresses(gate: Gate, url: str) -> tuple[str, ...]:
    return gate.addresses(locate(url), 5.0, Cancellation())


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public_are_recognised(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_recognised(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/a",
        "gopher://example.org",
        "data:image/png;base64,AA",
        "//example.org/a",
    ],
)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(Unfetchable, match="only http and https") as caught:
        locate(url)
    assert caught.value.permanent


@pytest.mark.parametrize("url", ["http://[::1", "http:///photo.jpg", "http://a b/", "http://x:99999/", "http://a%2fb/"])
def test_invalid_addresses_are_refused(url: str) -> None:
    with pytest.raises(Unfetchable, match="not a valid address") as caught:
        locate(url)
    assert caught.value.permanent


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(Unfetchable, match="user name or password") as caught:
        locate("https://someone:secret@example.org/")
    assert "secret" not in str(caught.value)


def test_a_location_is_split_and_joined() -> None:
    location = locate("HTTPS://Example.ORG.:443/a b?key=1#there")
    assert location == Location("https", "example.org", 443, "/a%20b?key=1")
    assert location.url == "https://example.org/a%20b?key=1"
    assert location.shown == "example.org/a%20b"
    assert locate("http://[2606:4700::1111]:8080").url == "http://[2606:4700::1111]:8080/"


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolver(monkeypatch, "8.8.8.8", "1.1.1.1")
    gate = Gate(())
    assert addresses(gate, "http://photos.test/a") == addresses(gate, "http://photos.test/b") == ("8.8.8.8", "1.1.1.1")
    assert asked == ["photos.test"]
    for address in ("8.8.8.8", "1.1.1.1"):
        gate.drop(locate("http://photos.test/"), address)
    addresses(gate, "http://photos.test/a")
    assert len(asked) == 2


def test_both_kinds_of_addresses_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, *(f"2606:4700::{number}" for number in range(1, 5)), "8.8.8.8", "1.1.1.1")
    found = addresses(Gate(()), "http://photos.test/")
    assert found == ("2606:4700::1", "8.8.8.8", "2606:4700::2", "1.1.1.1")


def test_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, "8.8.8.8", "192.168.0.1")
    with pytest.raises(Unfetchable, match=r"192\.168\.0\.1 is not a public address"):
        addresses(Gate(()), "http://photos.test/")


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0"]
)
def test_every_spelling_of_loopback_is_refused(host: str) -> None:
    with pytest.raises(Unfetchable, match="not a public address"):
        addresses(Gate(()), f"http://{host}/")


@pytest.mark.parametrize(
    ("hosts", "url", "allowed"),
    [
        (("127.0.0.1",), "http://127.0.0.1/", True),
        (("127.0.0.1",), "https://127.0.0.1/", True),
        (("127.0.0.1",), "http://127.0.0.1:8080/", False),
        (("127.0.0.1:8080",), "http://127.0.0.1:8080/", True),
        (("127.0.0.1:8080",), "http://127.0.0.1/", False),
        (("[::1]:8080",), "http://[::1]:8080/", True),
        (("::1",), "http://[::1]/", True),
        (("MIRROR.test:81",), "http://mirror.test.:81/", True),
        (("mirror.test",), "http://other.mirror.test/", False),
    ],
)
def test_named_hosts_are_allowed_at_their_ports(
    hosts: tuple[str, ...], url: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver(monkeypatch, "127.0.0.1")
    gate = Gate(hosts)
    if allowed:
        assert addresses(gate, url) == ("127.0.0.1",)
        gate.judge_name(locate(url))
    else:
        with pytest.raises(Unfetchable, match="not a public address"):
            addresses(gate, url)


@pytest.mark.parametrize(
    "host", ["localhost", "a.localhost", "router", "nas.local", "db.internal", "127.1", "0x7f.1", "1.2.3.4.5", "[::1]"]
)
def test_what_a_proxy_must_not_look_up(host: str) -> None:
    with pytest.raises(Unfetchable, match="not a public address"):
        Gate(()).judge_name(locate(f"http://{host}/"))


def test_what_a_proxy_may_look_up() -> None:
    Gate(()).judge_name(locate("http://photos.example.org/"))
    Gate(()).judge_name(locate("http://8.8.8.8/"))
    assert literal_address("1.flickr.com") == ""


def test_a_name_without_address_may_have_one_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(TemporaryFailure, match="Name or service not known") as caught:
        addresses(Gate(()), "http://photos.test/")
    assert caught.value.unreached


def test_a_name_too_long_to_be_one_is_refused() -> None:
    with pytest.raises(Unfetchable, match="not a valid address"):
        addresses(Gate(()), f"http://{'a' * 70}.test/")
