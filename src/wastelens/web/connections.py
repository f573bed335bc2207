"""Connections to exactly the addresses that were judged, or to a proxy if the environment names one."""

from __future__ import annotations

import errno
import math
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from urllib3 import BaseHTTPResponse, exceptions
from urllib3.connection import HTTPConnection
from urllib3.util import parse_url, wait_for_read

from wastelens.config.web import WebConfig
from wastelens.errors import InputError
from wastelens.web.addresses import Gate, Location, is_loopback, literal_address
from wastelens.web.errors import TemporaryFailure, Unfetchable
from wastelens.web.limits import Cancellation

AnyManager = TypeVar("AnyManager", bound=urllib3.PoolManager)

FIRST_CONTACT_S = 5.5  # a dead first name server alone takes five
GONE_AFTER_S = 20.0  # switching to another network may take as long
GONE_AFTER_FAILURES = 10
_SLOWEST_BYTES = 1 << 13  # within each read timeout; a slower server would keep a thread busy for days
_SLICE_S = 0.1
_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}
_POOLS = {"num_pools": 32, "maxsize": 64}  # connections are kept open to 32 addresses, 64 to each


class Network:
    """Tells, for all threads together, whether there is a network at all.

    A host that cannot be reached may be gone itself, and so may all the hosts at the end of a list. So what counts is
    that nobody has answered yet, or that hosts which did answer fail again and again while nobody else answers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: set[str] = set()
        self._failures, self._since = 0, 0.0
        self._first_contact_until = time.monotonic() + FIRST_CONTACT_S

    @property
    def reached(self) -> bool:
        """Whether any host has answered so far."""
        return bool(self._answered)

    def answered(self, host: str) -> None:
        """Record that a host, or the proxy for it, has answered."""
        with self._lock:
            self._failures = 0
            self._answered.add(host)

    def first_contact_s(self) -> float:
        """Return how many seconds are left until the first host has to have answered; infinite if one has."""
        return math.inf if self.reached else self._first_contact_until - time.monotonic()

    def is_gone(self, host: str) -> bool:
        """Record a host that cannot be reached; tell whether none can be, or none any more."""
        with self._lock:
            if host in self._answered:
                self._since = self._since if self._failures else time.monotonic()
                self._failures += 1
            lost = self._failures >= GONE_AFTER_FAILURES and time.monotonic() - self._since >= GONE_AFTER_S
        return lost or self.first_contact_s() <= 0


class _Impatient:
    """Mixin for sockets: a wait for bytes ends when it is cancelled, and when they only drip.

    A socket's own timeout starts again with every byte, which a hostile server may send one at a time.
    """

    cancellation: Cancellation
    window_s: float
    _window_ends = _received = 0.0

    def sendall(self, *arguments: Any) -> None:
        self._window_ends, self._received = time.monotonic() + self.window_s, 0
        super().sendall(*arguments)  # type: ignore[misc]  # of the socket that this is mixed into

    def recv_into(self, *arguments: Any) -> int:
        one: Any = self
        timeout = one.gettimeout()
        silent_until = time.monotonic() + timeout
        one.settimeout(0)  # as even a readable TLS connection may hold nothing for us, such as a session ticket
        try:
            while True:
                self._check()
                try:
                    received: int = super().recv_into(*arguments)  # type: ignore[misc]
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    if time.monotonic() > silent_until:
                        raise TimeoutError from None
                    wait_for_read(one, _SLICE_S)
                else:
                    self._received += received
                    return received
        finally:
            one.settimeout(timeout)

    def _check(self) -> None:
        self.cancellation.check()
        if time.monotonic() > self._window_ends:
            if 0 < self._received < _SLOWEST_BYTES:  # silence is the timeout's matter
                raise TemporaryFailure(f"less than {_SLOWEST_BYTES >> 10} kB within {self.window_s:g} s", hung=True)
            self._window_ends, self._received = time.monotonic() + self.window_s, 0


class Connections:
    """Opens responses; urllib3 keeps their connections open for later requests."""

    def __init__(self, config: WebConfig, gate: Gate, cancellation: Cancellation) -> None:
        self._config = config
        self._gate = gate
        self._cancellation = cancellation
        self.network = Network()
        self._lock = threading.Lock()
        impatient = {"cancellation": cancellation, "window_s": config.read_timeout_s}
        self._socket_type = type("Socket", (_Impatient, socket.socket), impatient)
        tls = ssl.create_default_context()
        tls.sslsocket_class = type("SecureSocket", (_Impatient, ssl.SSLSocket), impatient)
        tls.load_verify_locations(certifi.where())  # for systems without certificates of their own
        self._settings: dict[str, Any] = {**_POOLS, "ssl_context": tls}
        self._direct = self._impatient(urllib3.PoolManager(**self._settings))
        self._proxies: dict[str, urllib3.ProxyManager] = {}

    def close(self) -> None:
        """Close all connections that are not in use."""
        with self._lock:
            for manager in (self._direct, *self._proxies.values()):
                manager.clear()

    def get(self, location: Location, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Request a location without following redirects; only the head of the response is read.

        Raises Unfetchable if it may not be visited or its certificate is not trusted, TemporaryFailure without answer.
        """
        proxy = _proxy_for(location)
        try:
            response = self._get_by_proxy(proxy, location, headers) if proxy else self._get_directly(location, headers)
        except exceptions.HTTPError as error:
            raise self._translated(error, location) from None
        self.network.answered(location.host)
        return response

    def read(self, response: BaseHTTPResponse, location: Location, most_bytes: int) -> bytes:
        """Read a piece of a body as it was sent; empty at its end. Raises TemporaryFailure if it breaks off."""
        try:
            return response.read1(most_bytes, decode_content=False) or b""
        except exceptions.HTTPError as error:
            raise self._translated(error, location) from None

    def _translated(self, error: exceptions.HTTPError, location: Location) -> TemporaryFailure | Unfetchable:
        """Translate an error of urllib3, without any text that comes from the server."""
        if isinstance(error, exceptions.ProxyError):
            reason = f"the proxy in {location.scheme.upper()}_PROXY refuses or cannot be reached"
            return TemporaryFailure(reason, unreached=True)
        if isinstance(error, exceptions.NewConnectionError):
            number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
            return TemporaryFailure("connection failed", unreached=number in _NO_ROUTE)
        if isinstance(error, exceptions.ConnectTimeoutError):
            return TemporaryFailure("connection timed out", unreached=True, hung=True)
        if isinstance(error, exceptions.ReadTimeoutError):
            return TemporaryFailure(f"no answer within {self._config.read_timeout_s:g} s", hung=True)
        if isinstance(error, exceptions.SSLError) and isinstance(error.args[0], ValueError):
            return Unfetchable(location.shown, "its certificate is not trusted", permanent=False)
        return TemporaryFailure("the connection broke off")

    def _get_directly(self, location: Location, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Try one address after the other until one can be connected to."""
        addresses = self._gate.addresses(location, self._connect_s(), self._cancellation)
        tls = {"server_hostname": location.host, "assert_hostname": location.host}
        if location.scheme == "http" or literal_address(location.host):
            tls = {}
        headers = {"Host": location.netloc, **headers}
        options, failure = self._options(self._connect_s(len(addresses))), None
        for address in addresses:
            self._cancellation.check()
            pool = self._direct.connection_from_host(address, location.port, location.scheme, pool_kwargs=tls)
            try:
                return pool.urlopen("GET", location.target, headers=headers, **options)
            except (exceptions.NewConnectionError, exceptions.ConnectTimeoutError) as error:
                self._gate.drop(location, address)
                failure = error
        raise failure or TemporaryFailure("its name has no address", unreached=True)

    def _get_by_proxy(self, proxy: str, location: Location, headers: Mapping[str, str]) -> BaseHTTPResponse:
        self._gate.judge_name(location)
        with self._lock:
            if proxy not in self._proxies:
                self._proxies[proxy] = self._impatient(_proxy_manager(proxy, location, self._settings))
            manager = self._proxies[proxy]
        return manager.urlopen("GET", location.url, headers=dict(headers), **self._options(self._connect_s()))

    def _options(self, connect_s: float) -> dict[str, Any]:
        raw = {"redirect": False, "retries": False, "preload_content": False, "decode_content": False}
        return {**raw, "timeout": urllib3.Timeout(connect=connect_s, read=self._config.read_timeout_s)}

    def _connect_s(self, addresses: int = 1) -> float:
        """Return how long connecting may take; until anyone has answered, this many addresses share a shorter time."""
        longest = self._config.connect_timeout_s
        return longest if self.network.reached else min(longest, FIRST_CONTACT_S / addresses)

    def _impatient(self, manager: AnyManager) -> AnyManager:
        """Let a manager's plain connections use our sockets, as the TLS context does for the others."""
        socket_type = self._socket_type

        class Connection(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                if isinstance(self.sock, socket.socket):
                    timeout = self.sock.gettimeout()
                    self.sock = socket_type(fileno=self.sock.detach())
                    self.sock.settimeout(timeout)

        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection

        manager.pool_classes_by_scheme = {"http": Pool, "https": urllib3.HTTPSConnectionPool}
        return manager


def _proxy_for(location: Location) -> str:
    """Return the proxy that the environment names for a location; empty: none, as always for loopback."""
    if location.host == "localhost" or is_loopback(location.host):
        return ""
    proxies = getproxies()
    proxy = proxies.get(location.scheme) or proxies.get("all") or ""
    return "" if not proxy or proxy_bypass(f"{location.host}:{location.port}") else proxy


def _proxy_manager(proxy: str, location: Location, settings: Mapping[str, Any]) -> urllib3.ProxyManager:
    """Return a manager for a proxy; raise InputError if it is not an HTTP proxy, without repeating its password."""
    address = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parsed = parse_url(address)
        headers = urllib3.make_headers(proxy_basic_auth=unquote(parsed.auth)) if parsed.auth else None
        return urllib3.ProxyManager(parsed._replace(auth=None).url, proxy_headers=headers, **settings)
    except (exceptions.HTTPError, ValueError):
        name = f"{location.scheme.upper()}_PROXY"
        raise InputError(f"{name} is not an HTTP proxy. Write {name}=http://HOST:PORT, or unset it.") from None
