"""Connections to exactly the addresses that were judged, or to a proxy where the environment names one."""

from __future__ import annotations

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
from urllib3 import BaseHTTPResponse
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

from wastelens.errors import InputError
from wastelens.getting_config import WebConfig
from wastelens.web.addresses import Gate, Location, is_loopback, literal_address
from wastelens.web.errors import Passing, Unfetchable
from wastelens.web.manners import Patience

AnyManager = TypeVar("AnyManager", bound=urllib3.PoolManager)

_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}
_HOSTS_REMEMBERED = 32  # connections that are kept open go to so many addresses at most,
_KEPT_OPEN = 64  # and so many to each, which may be that of several hosts
_SHORTEST_TIMEOUT_S = 0.2


class Connections:
    """Opens responses; urllib3 keeps their connections open for the next ones."""

    def __init__(self, config: WebConfig, gate: Gate, patience: Patience) -> None:
        self._config = config
        self._gate = gate
        self._patience = patience
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._tls = ssl.create_default_context()
        self._tls.load_verify_locations(certifi.where())  # for systems that have no certificates of their own
        self._direct = self._remembering(urllib3.PoolManager(**self._pool_settings()))
        self._proxies: dict[str, urllib3.ProxyManager] = {}
        self.reached_anybody = False

    def close(self) -> None:
        """Break off all connections, also those that other threads read from."""
        with self._lock:
            open_sockets, managers = list(self._sockets), [self._direct, *self._proxies.values()]
        for one in open_sockets:
            try:
                socket.socket.shutdown(one, socket.SHUT_RDWR)
            except OSError:  # it is closed already
                continue
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
            response = self._by_proxy(proxy, location, headers, until) if proxy else self._by(location, headers, until)
        except HTTPError as error:
            raise self.reason(error, location) from None
        self.reached_anybody = True
        return response

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
        for number, address in enumerate(addresses, 1):
            self._patience.check()
            try:
                return self._at(address, location, headers, until)
            except (NewConnectionError, ConnectTimeoutError):
                if number == len(addresses):
                    self._gate.forget(location)
                    raise
        raise Passing("its name leads nowhere", unreached=True)

    def _at(self, address: str, location: Location, headers: Mapping[str, str], until: float) -> BaseHTTPResponse:
        named = {"server_hostname": location.host, "assert_hostname": location.host}
        if location.scheme == "http" or literal_address(location.host):
            named = {}
        pool = self._direct.connection_from_host(address, location.port, location.scheme, pool_kwargs=named)
        headers = {"Host": location.netloc, **headers}
        return pool.urlopen("GET", location.target, headers=headers, **self._asking(until))

    def _by_proxy(self, proxy: str, location: Location, headers: Mapping[str, str], until: float) -> BaseHTTPResponse:
        self._gate.judge_name(location)
        return self._manager_of(proxy, location).urlopen(
            "GET", location.url, headers=dict(headers), **self._asking(until)
        )

    def _asking(self, until: float) -> dict[str, Any]:
        return {
            "redirect": False,
            "retries": False,
            "preload_content": False,
            "decode_content": False,
            "timeout": urllib3.Timeout(connect=self._connect_s(until), read=self._config.read_timeout_s),
        }

    def _connect_s(self, until: float) -> float:
        longest = self._config.connect_timeout_s
        return longest if self.reached_anybody else min(longest, max(_SHORTEST_TIMEOUT_S, until - time.monotonic()))

    def _manager_of(self, proxy: str, location: Location) -> urllib3.ProxyManager:
        with self._lock:
            if proxy not in self._proxies:
                manager = _proxy_manager(proxy, location, self._pool_settings())
                self._proxies[proxy] = self._remembering(manager)
            return self._proxies[proxy]

    def _pool_settings(self) -> dict[str, Any]:
        return {"num_pools": _HOSTS_REMEMBERED, "maxsize": _KEPT_OPEN, "ssl_context": self._tls}

    def _remembering(self, manager: AnyManager) -> AnyManager:
        """Let every socket be known here, so that `close` can wake those who read from it."""

        def remember(connection: HTTPConnection) -> None:
            if isinstance(connection.sock, socket.socket):
                with self._lock:
                    self._sockets.add(connection.sock)

        manager.pool_classes_by_scheme = _pool_classes(remember)
        return manager


def _unconnected(error: HTTPError, location: Location) -> Passing:
    if isinstance(error, ProxyError):
        return Passing(f"the proxy of {_environment_name(location)} does not let through", unreached=True)
    if isinstance(error, NewConnectionError):
        number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
        return Passing("cannot be connected to", unreached=number in _NO_WAY)
    return Passing("cannot be connected to in time", unreached=True)


def _pool_classes(remember: Callable[[HTTPConnection], None]) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    class Connection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            remember(self)

    class SecureConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            remember(self)

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
