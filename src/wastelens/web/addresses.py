"""Which addresses may be visited: public ones, and what the user named; redirects are judged like first addresses.

The names are looked up here, once, and the connection then goes to exactly the address that was judged: a second
look-up could answer differently.
"""

from __future__ import annotations

import ipaddress
import itertools
import queue
import re
import socket
import threading
import time
from dataclasses import dataclass

import urllib3
from urllib3.util import parse_url

from wastelens.web.errors import Passing, Unfetchable
from wastelens.web.manners import Patience

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|[0-9a-f:.]+")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAMES = (
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "home.arpa",
)
_ADDRESSES_TRIED = 4


@dataclass(frozen=True)
class Location:
    """Where a URL points to.

    Attributes:
        scheme: ``http`` or ``https``.
        host: lower case, in ASCII; an IPv6 address without its brackets.
        port: always a number.
        target: path and query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def netloc(self) -> str:
        """The host as in a URL or a ``Host`` header, with its port if it is an unusual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole, without fragment."""
        return f"{self.scheme}://{self.netloc}{self.target}"

    @property
    def shown(self) -> str:
        """Host and path, for messages: a query may hold a key."""
        return f"{self.netloc}{self.target.partition('?')[0]}"[:200]


def locate(url: str) -> Location:
    """Take a URL apart.

    Raises:
        Unfetchable: no URL, another scheme than http and https, or a user name or password in it.
    """
    try:
        parsed = parse_url(url.strip())
    except urllib3.exceptions.HTTPError:
        raise Unfetchable("an address", "not a valid address", lasting=True) from None
    host = (parsed.host or "").strip("[]").rstrip(".").lower()
    if parsed.scheme not in _PORTS:
        raise Unfetchable(host or "an address", "refused: only http and https are fetched", lasting=True)
    if not _HOST.fullmatch(host):
        raise Unfetchable("an address", "not a valid address: no usable host", lasting=True)
    if parsed.auth is not None:
        raise Unfetchable(host, "refused: a user name or password in the address", lasting=True)
    return Location(parsed.scheme, host, parsed.port or _PORTS[parsed.scheme], parsed.request_uri)


class Gate:
    """Judges where to go.

    Parameters:
        hosts: ``name`` (its ports 80 and 443) or ``name:port``, allowed whatever their addresses are.
    """

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self._allowed = {pair for host in hosts for pair in _allowed_ports(host)}
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}

    def addresses(self, location: Location, seconds: float, patience: Patience) -> tuple[str, ...]:
        """The addresses to connect to, the likeliest first; looked up once, until `forget`.

        Raises:
            Unfetchable: one of them is not public.
            Passing: the name cannot be looked up now.
        """
        key = (location.host, location.port)
        if key not in self._known:
            found = _look_up_within(location, seconds, patience)
            if key not in self._allowed:
                for address in found:
                    _judge(address, location)
            self._known[key] = _both_kinds_in_turn(found)[:_ADDRESSES_TRIED]
        return self._known[key]

    def try_last(self, location: Location, address: str) -> None:
        """Nobody answers at an address: the next connection begins with the others."""
        key = (location.host, location.port)
        others = [other for other in self._known.get(key, ()) if other != address]
        self._known[key] = (*others, address)

    def forget(self, location: Location) -> None:
        """Look the name up anew next time: nothing answered at its addresses."""
        self._known.pop((location.host, location.port), None)

    def judge_name(self, location: Location) -> None:
        """Judge what a proxy will look up: literal addresses in any spelling, and names of local networks.

        Raises:
            Unfetchable: not public, as far as the name tells.
        """
        if (location.host, location.port) in self._allowed:
            return
        if address := literal_address(location.host):
            _judge(address, location)
        elif is_local_name(location.host):
            raise _refused(location, location.host)


def _allowed_ports(host: str) -> list[tuple[str, int]]:
    name, port = _split_port(host.lower())
    name = name.strip("[]").rstrip(".")
    return [(name, int(port))] if port else [(name, usual) for usual in _PORTS.values()]


def _split_port(host: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    alone = (
        not colon or not port.isdecimal() or (":" in name and not name.endswith("]"))
    )  # an IPv6 address without port
    return (host, "") if alone else (name, port)


def is_local_name(host: str) -> bool:
    """Whether a name means something in local networks only."""
    return "." not in host or any(host == name or host.endswith(f".{name}") for name in _LOCAL_NAMES)


def literal_address(host: str) -> str:
    """The address that a host is, however it is spelt (``127.1``, ``0x7f000001``, ``::1``); empty if it is a name."""
    if ":" in host:
        return host
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return ""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return "0.0.0.0"  # a number at its end and yet no address: nobody's name, and not to be left to a proxy


def is_loopback(host: str) -> bool:
    """Whether a host is an address of this very machine."""
    address = literal_address(host)
    return bool(address) and ipaddress.ip_address(address).is_loopback


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet at large; also where it wraps an IPv4 address that has to."""
    try:
        judged = ipaddress.ip_address(address)
    except ValueError:  # as with a zone, which only local addresses have
        return False
    inner = _wrapped(judged)
    if inner is not None:
        return is_public(str(inner))
    local = judged.is_private or judged.is_loopback or judged.is_link_local or judged.is_unspecified
    site_local = isinstance(judged, ipaddress.IPv6Address) and judged.is_site_local
    return judged.is_global and not (local or site_local or judged.is_multicast or judged.is_reserved)


def _wrapped(address: IpAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address within an IPv6 one: mapped (RFC 4291), NAT64 (RFC 6052) or 6to4 (RFC 3056)."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _judge(address: str, location: Location) -> None:
    if not is_public(address):
        raise _refused(location, address)


def _refused(location: Location, address: str) -> Unfetchable:
    return Unfetchable(location.shown, f"refused: {address} is no public address", lasting=True, limit="hosts")


def _both_kinds_in_turn(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """IPv6 and IPv4 in turn, beginning with the system's choice (RFC 8305, section 4): one of them may lead nowhere."""
    chosen = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    others = [address for address in addresses if address not in chosen]
    return tuple(address for pair in itertools.zip_longest(chosen, others) for address in pair if address)


def _look_up_within(location: Location, seconds: float, patience: Patience) -> tuple[str, ...]:
    """Look a name up in a thread of its own: without a network that takes the system as long as it likes."""
    answers: queue.SimpleQueue[tuple[str, ...] | Exception] = queue.SimpleQueue()
    asking = threading.Thread(target=lambda: answers.put(_look_up(location)), daemon=True)
    asking.start()
    until = time.monotonic() + seconds
    while asking.is_alive() and time.monotonic() < until:
        patience.check()
        asking.join(0.05)
    if answers.empty():
        raise Passing("its name cannot be looked up: no answer", unreached=True)
    answer = answers.get()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _look_up(location: Location) -> tuple[str, ...] | Exception:
    try:
        found = socket.getaddrinfo(location.host, location.port, type=socket.SOCK_STREAM)
    except UnicodeError:
        return Unfetchable(location.shown, "not a valid address: no usable host", lasting=True)
    except OSError as error:
        return Passing(f"its name cannot be looked up: {error.strerror or 'no answer'}", unreached=True)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
