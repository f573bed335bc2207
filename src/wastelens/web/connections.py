"""Connections to exactly the addresses that were judged, or to a proxy where the environment names one."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from urllib3 import BaseHTTPResponse, HTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import parse_url

from wastelens.config.getting import WebConfig
from wastelens.errors import InputError
from wastelens.web.addresses import Gate, Location, is_loopback, literal_address
from wastelens.web.deadlines import Deadlines, shut
from wastelens.web.errors import Passing, Unfetchable
from wastelens.web.manners import Patience
from wastelens.web.network import Network

AnyManager = TypeVar("AnyManager", bound=urllib3.PoolManager)

_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}
_HOSTS_REMEMBERED = 32  # connections that are kept open go to so many addresses at most,
_KEPT_OPEN = 64  # and so many to each, which may be that of several hosts
_SHORTEST_TIMEOUT_S = 0.2


class Connections:
    """Opens responses; urllib3 keeps their connections open for the next ones."""

    def __init__(self, config: WebConfig, gate: Gate, patience: Patience, network: Network) -> None:
        self._config = config
        self._network = network
        self._gate = gate
        self._patience = patience
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._socket_of: weakref.WeakKeyDictionary[object, socket.socket] = weakref.WeakKeyDictionary()
        self._deadlines = Deadlines()
        self._lock = threading.Lock()
        self._tls = ssl.create_default_context()
        self._tls.load_verify_locations(certifi.where())  # for systems that have no certificates of their own
        self._direct = self._remembering(urllib3.PoolManager(**self._pool_settings()))
        self._proxies: dict[str, urllib3.ProxyManager] = {}
        self._closed = False

    def close(self) -> None:
        """Break off all connections, also those that other threads read from."""
        with self._lock:
            self._closed = True
            open_sockets, managers = list(self._sockets), [self._direct, *self._proxies.values()]
        self._deadlines.close()
        for one in open_sockets:
            shut(one)
        for manager in managers:
            manager.clear()

    def get(self, location: Location, headers: Mapping[str, str], until: float) -> BaseHTTPResponse:
        """Ask for a location, follow nothing, read nothing yet.

        Parameters:
            until: as long as nobody at all has answered, connecting takes no longer than this, in monotonic seconds.

        Raises:
            Unfetchable: it may not be visited, or its certificate is not to be trusted.
            Passing: no answer.
        """
        proxy = _proxy_for(location)
        try:
            return self._by_proxy(proxy, location, headers, until) if proxy else self._by(location, headers, until)
        except HTTPError as error:
            raise self.reason(error, location) from None

    def reading(self, response: BaseHTTPResponse) -> contextlib.AbstractContextManager[None]:
        """Within it, a piece of a response is read; raises TimeoutError where that has taken far too long."""
        with self._lock:
            connection = self._socket_of.get(response)
        if connection is None:
            return contextlib.nullcontext()
        return self._deadlines.within(self._longest_s(), connection)

    def _longest_s(self) -> float:
        """Silence ends a wait after the read timeout, a byte now and then after this time."""
        return 2 * self._config.read_timeout_s

    def reason(self, error: HTTPError, location: Location) -> Passing | Unfetchable:
        """What one of urllib3's errors means to us, without anything the server could have written into it."""
        if isinstance(error, ProxyError | NewConnectionError | ConnectTimeoutError):
            return _unconnected(error, location)
        if isinstance(error, ReadTimeoutError):
            return Passing(f"no answer within {self._config.read_timeout_s:g} s")
        if isinstance(error, SSLError) and isinstance(error.args[0], ValueError):
            return Unfetchable(location.shown, "its certificate is not to be trusted", lasting=False)
        if isinstance(error, SSLError | ProtocolError):
            return Passing("the connection broke off")
        return Passing("no valid answer")

    def _by(self, location: Location, headers: Mapping[str, str], until: float) -> BaseHTTPResponse:
        """Ask at one address after the other, until one can be connected to."""
        addresses = self._gate.addresses(location, self._connect_s(until), self._patience)
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            self._patience.check()
            try:
                return self._at(address, location, headers, self._connect_s(until, left))
            except (NewConnectionError, ConnectTimeoutError):
                self._gate.try_last(location, address)
                if left == 1:
                    self._gate.forget(location)
                    raise
        raise Passing("its name leads nowhere", unreached=True)

    def _at(self, address: str, location: Location, headers: Mapping[str, str], connect_s: float) -> BaseHTTPResponse:
        named = {"server_hostname": location.host, "assert_hostname": location.host}
        if location.scheme == "http" or literal_address(location.host):
            named = {}
        pool = self._direct.connection_from_host(address, location.port, location.scheme, pool_kwargs=named)
        headers = {"Host": location.netloc, **headers}
        response = pool.urlopen("GET", location.target, headers=headers, **self._asking(connect_s))
        self._network.answered((address, location.port))
        return response

    def _by_proxy(self, proxy: str, location: Location, headers: Mapping[str, str], until: float) -> BaseHTTPResponse:
        self._gate.judge_name(location)
        manager = self._manager_of(proxy, location)
        asking = self._asking(self._connect_s(until))
        response = manager.urlopen("GET", location.url, headers=dict(headers), **asking)
        if manager.proxy is not None and manager.proxy.host:
            self._network.answered((manager.proxy.host, manager.proxy.port or 80))
        return response

    def _asking(self, connect_s: float) -> dict[str, Any]:
        return {
            "redirect": False,
            "retries": False,
            "preload_content": False,
            "decode_content": False,
            "timeout": urllib3.Timeout(connect=connect_s, read=self._config.read_timeout_s),
        }

    def _connect_s(self, until: float, addresses: int = 1) -> float:
        """How long connecting may take; a first contact's time is shared by so many addresses."""
        longest = self._config.connect_timeout_s
        if self._network.reached_anybody:
            return longest
        return min(longest, max(_SHORTEST_TIMEOUT_S, (until - time.monotonic()) / addresses))

    def _manager_of(self, proxy: str, location: Location) -> urllib3.ProxyManager:
        with self._lock:
            if proxy not in self._proxies:
                manager = _proxy_manager(proxy, location, self._pool_settings())
                self._proxies[proxy] = self._remembering(manager)
            return self._proxies[proxy]

    def _pool_settings(self) -> dict[str, Any]:
        return {"num_pools": _HOSTS_REMEMBERED, "maxsize": _KEPT_OPEN, "ssl_context": self._tls}

    def _remembering(self, manager: AnyManager) -> AnyManager:
        """Let every socket be known here, so that `close` and deadlines can wake those who read from it."""

        def remember(connection: HTTPConnection) -> None:
            if isinstance(connection.sock, socket.socket):
                with self._lock:
                    self._sockets.add(connection.sock)
                    late = self._closed
                if late:  # another thread was on its way here when all was closed
                    shut(connection.sock)

        def head(connection: HTTPConnection, read: Callable[[], HTTPResponse]) -> HTTPResponse:
            wire = connection.sock
            if not isinstance(wire, socket.socket):  # TLS within TLS, to a proxy that is the user's own
                return read()
            with contextlib.ExitStack() as if_late:
                with self._deadlines.within(self._longest_s(), wire):
                    response = read()
                    if_late.callback(response.close)
                if_late.pop_all()
            with self._lock:
                self._socket_of[response] = wire
            return response

        manager.pool_classes_by_scheme = _pool_classes(remember, head)
        return manager


def _unconnected(error: HTTPError, location: Location) -> Passing:
    if isinstance(error, ProxyError):
        return Passing(f"the proxy of {_environment_name(location)} does not let through", unreached=True)
    if isinstance(error, NewConnectionError):
        number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
        return Passing("cannot be connected to", unreached=number in _NO_WAY)
    return Passing("cannot be connected to in time", unreached=True)


def _pool_classes(
    remember: Callable[[HTTPConnection], None],
    head: Callable[[HTTPConnection, Callable[[], HTTPResponse]], HTTPResponse],
) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    class Connection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            remember(self)

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # urllib3 has it so
            return head(self, super().getresponse)

    class SecureConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            remember(self)

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # urllib3 has it so
            return head(self, super().getresponse)

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    return {"http": Pool, "https": SecurePool}


def _proxy_for(location: Location) -> str:
    """The proxy that the environment names for a location; empty: none. Loopback is never asked of a proxy."""
    if location.host == "localhost" or is_loopback(location.host):
        return ""
    proxies = getproxies()
    proxy = proxies.get(location.scheme) or proxies.get("all") or ""
    return "" if not proxy or proxy_bypass(f"{location.host}:{location.port}") else proxy


def _environment_name(location: Location) -> str:
    return f"{location.scheme.upper()}_PROXY"


def _proxy_manager(proxy: str, location: Location, settings: Mapping[str, Any]) -> urllib3.ProxyManager:
    """Raises InputError where the environment names a proxy that is none; its password stays out of the message."""
    address = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parsed = parse_url(address)
        headers = urllib3.make_headers(proxy_basic_auth=unquote(parsed.auth)) if parsed.auth else None
        return urllib3.ProxyManager(parsed._replace(auth=None).url, proxy_headers=headers, **settings)
    except (HTTPError, ValueError):
        name = _environment_name(location)
        raise InputError(f"{name} names no HTTP proxy. Write {name}=http://HOST:PORT, or unset it.") from None
