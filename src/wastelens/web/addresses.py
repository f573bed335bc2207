"""Which addresses may be visited: public ones, and hosts that the user allows. Redirects are judged the same way.

Names are resolved here, once, and the connection then goes to exactly the address that was judged: a second lookup
could give another one.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import socket
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.util import parse_url

from wastelens.web.errors import TemporaryFailure, Unfetchable
from wastelens.web.limits import Cancellation

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|[0-9a-f:.]+")
_HOST_AND_PORT = re.compile(r"([^:]+|\[.+\]):([0-9]{1,5})")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_DOMAINS = (
    *(".localhost", ".local", ".localdomain", ".internal", ".intranet"),
    *(".lan", ".home", ".corp", ".private", ".home.arpa"),
)
_MOST_ADDRESSES = 4


@dataclass(frozen=True)
class Location:
    """A URL in its parts."""

    scheme: str  # ``http`` or ``https``
    host: str  # lower case, in ASCII; an IPv6 address without its brackets
    port: int
    target: str  # path and query

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    @property
    def netloc(self) -> str:
        """The host as in a URL or a ``Host`` header, with its port unless that is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL, without a fragment."""
        return f"{self.scheme}://{self.netloc}{self.target}"

    @property
    def shown(self) -> str:
        """Host and path, for messages: a query may hold a key."""
        return f"{self.netloc}{self.target.partition('?')[0]}"[:200]


def locate(url: str) -> Location:
    """Split a URL into its parts.

    Raises:
        Unfetchable: not a URL, a scheme other than http and https, or a user name or password in it.
    """
    try:
        parsed = parse_url(url.strip())
    except urllib3.exceptions.HTTPError:
        raise Unfetchable("an address", "not a valid address", permanent=True) from None
    host = (parsed.host or "").strip("[]").rstrip(".").lower()
    if parsed.scheme not in _PORTS:
        raise Unfetchable(host or "an address", "refused: only http and https are fetched", permanent=True)
    if not _HOST.fullmatch(host):
        raise Unfetchable("an address", "not a valid address: no usable host", permanent=True)
    if parsed.auth is not None:
        raise Unfetchable(host, "refused: a user name or password in the address", permanent=True)
    return Location(parsed.scheme, host, parsed.port or _PORTS[parsed.scheme], parsed.request_uri)


class Gate:
    """Decides which addresses may be visited.

    Parameters:
        hosts: ``name`` (its ports 80 and 443) or ``name:port``, allowed whatever their addresses are.
    """

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self._allowed = {place for host in hosts for place in _allowed_places(host)}
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}

    def addresses(self, location: Location, seconds: float, cancellation: Cancellation) -> tuple[str, ...]:
        """Return the addresses to connect to, in the order to try them; resolved once, until all are dropped.

        Raises Unfetchable if one of them is not public, TemporaryFailure if the name cannot be resolved now.
        """
        if location.place not in self._known:
            found = _look_up(location, seconds, cancellation)
            if location.place not in self._allowed:
                for address in found:
                    _judge(address, location)
            self._known[location.place] = _alternate_families(found)[:_MOST_ADDRESSES]
        return self._known[location.place]

    def drop(self, location: Location, address: str) -> None:
        """Leave out an address that does not answer; once none is left, the name is resolved again."""
        left = tuple(other for other in self._known.pop(location.place, ()) if other != address)
        if left:
            self._known[location.place] = left

    def judge_name(self, location: Location) -> None:
        """Raise Unfetchable for a host that a proxy would resolve to a local one, as far as its name tells."""
        address, host = literal_address(location.host), location.host
        is_local = "." not in host or f".{host}".endswith(_LOCAL_DOMAINS)
        if (address or is_local) and location.place not in self._allowed:
            _judge(address or host, location)


def _allowed_places(host: str) -> list[tuple[str, int]]:
    matched = _HOST_AND_PORT.fullmatch(host)
    name, ports = (matched[1], [int(matched[2])]) if matched else (host, list(_PORTS.values()))
    return [(name.lower().strip("[]").rstrip("."), port) for port in ports]


def literal_address(host: str) -> str:
    """Return a host's address if it is one, in any spelling (``127.1``, ``0x7f000001``, ``::1``); empty for a name."""
    if ":" in host:
        return host
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return ""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return "0.0.0.0"  # ends in a number but is not an address: never a name, and not to be left to a proxy


def is_loopback(host: str) -> bool:
    """Tell whether a host is an address of this machine."""
    address = literal_address(host)
    return bool(address) and ipaddress.ip_address(address).is_loopback


def is_public(address: str) -> bool:
    """Tell whether an address belongs to the public internet; a name does not.

    An IPv6 address that wraps an IPv4 address counts as that: mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
    """
    try:
        judged = ipaddress.ip_address(address)
    except ValueError:  # for example with a zone, which only local addresses have
        return False
    if isinstance(judged, ipaddress.IPv6Address):
        inner = judged.ipv4_mapped or judged.sixtofour
        if judged in _NAT64:
            inner = ipaddress.IPv4Address(int(judged) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if judged.is_site_local:
            return False
    return judged.is_global and not (judged.is_multicast or judged.is_reserved)


def _judge(address: str, location: Location) -> None:
    if not is_public(address):
        reason = f"refused: {address} is not a public address"
        raise Unfetchable(location.shown, reason, permanent=True, setting="hosts")


def _alternate_families(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Alternate IPv6 and IPv4, beginning with the system's choice (RFC 8305, section 4): one may lead nowhere."""
    chosen = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    others = [address for address in addresses if address not in chosen]
    return tuple(address for pair in itertools.zip_longest(chosen, others) for address in pair if address)


def _look_up(location: Location, seconds: float, cancellation: Cancellation) -> tuple[str, ...]:
    """Resolve a name in a thread of its own, as the system may take minutes for it without a network."""
    asked: Future[Sequence[Any]] = Future()

    def ask() -> None:
        try:
            asked.set_result(socket.getaddrinfo(location.host, location.port, type=socket.SOCK_STREAM))
        except Exception as error:
            asked.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    until = time.monotonic() + seconds
    while not asked.done() and time.monotonic() < until:
        cancellation.check()
        futures.wait([asked], 0.05)
    try:
        found = asked.result(0)
    except UnicodeError:
        raise Unfetchable(location.shown, "not a valid address: no usable host", permanent=True) from None
    except OSError as error:  # also a TimeoutError, of the result
        reason = f"its name cannot be resolved: {error.strerror or 'no answer'}"
        raise TemporaryFailure(reason, unreached=True) from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
