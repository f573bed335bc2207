"""Fetches files and API answers from other people's servers, politely and without being led astray."""

from __future__ import annotations

import contextlib
import errno
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode, urljoin

from urllib3 import BaseHTTPResponse

from wastelens.config.getting import WebConfig
from wastelens.web.addresses import Gate, Location, locate
from wastelens.web.answers import Answer, leave, retry_after_s, status_words
from wastelens.web.connections import Connections
from wastelens.web.errors import NoNetwork, Passing, Unchanged, Unfetchable
from wastelens.web.files import Fetched, FileWish, finish, receive
from wastelens.web.manners import Backoff, HostManners, Patience
from wastelens.web.network import Network
from wastelens.web.partial import Part

__all__ = ["Fetched", "Web"]

MOST_REDIRECTS = 10
MOST_ATTEMPTS = 50
MOST_JSON_BYTES = 32_000_000
FIRST_CONTACT_S = 5.5  # a dead first name server alone takes five
NEXT_CONTACT_S = 1.0

_REDIRECTS = (301, 302, 303, 307, 308)
_MAY_PASS = (408, 425, 429)
_WILL_NOT_PASS = (501, 505)  # what a server cannot do at all; its other troubles, 5xx, may pass
_FROM_BETWEEN = (407, 511)  # a proxy's, or a network's that asks for a log-in: they say nothing of the file
_LEFT_ALONE = (429, 503)
_FULL = (errno.ENOSPC, errno.EDQUOT)

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Request:
    """What is asked; ``seconds_between``: from one such request to the host to the next."""

    url: str
    headers: Mapping[str, str]
    seconds_between: float = 0.0


class Web:
    """The web, for all threads of a process together: a context manager.

    Where threads fetch, open it within their pool, ``with ThreadPoolExecutor() as pool, Web(…) as web``: then what they
    wait for ends before the pool waits for them.

    Parameters:
        manners: how many requests, how often, how patiently.
        hosts: ``name`` (its ports 80 and 443) or ``name:port`` that may be visited though they are not public.
        contact: an e-mail address or a page, for the servers' owners.
        seed: of the jitter.
    """

    def __init__(
        self, manners: WebConfig, *, hosts: tuple[str, ...] = (), contact: str = "", seed: int | None = None
    ) -> None:
        self._config = manners
        self._patience = Patience()
        self._backoff = Backoff(manners, seed)
        self._network = Network()
        self._connections = Connections(manners, Gate(hosts), self._patience, self._network)
        self._of_host: defaultdict[str, HostManners] = defaultdict(lambda: HostManners(manners, self._patience))
        self._lock = threading.Lock()
        self._first_contact_until = 0.0
        self._user_agent = f"Wastelens/{_own_version()} ({contact or 'no contact given'}) urllib3/{version('urllib3')}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all waiting and fetching, also in other threads, which meet a `Closed`."""
        self._patience.close()
        self._connections.close()

    def fetch_file(
        self,
        url: str,
        target: Path,
        *,
        kinds: tuple[str, ...] = (),
        max_bytes: int | None = None,
        progress: Callable[[int], None] = lambda received: None,
    ) -> Fetched:
        """Fetch a file as it is, in pieces; on its way it is ``TARGET.part``, and goes on from there after a cut.

        Parameters:
            kinds: the beginnings of content types that will do, as in ``image/``; empty: any.
            max_bytes: a longer file is cut off and not kept; None: the config's.
            progress: is told how many bytes have come in since the last time.

        Raises:
            Unfetchable: it is not to be had, or not as it was asked for.
            NoNetwork: nobody at all can be reached, or nobody any more.
            OSError: it cannot be written.
        """
        limit = self._config.max_bytes if max_bytes is None else max_bytes
        return self._fetch(FileWish(url, Part(target), kinds, limit, progress))

    def fetch_if_changed(self, url: str, target: Path, etag: str, *, max_bytes: int | None = None) -> Fetched | None:
        """Fetch a file as `fetch_file` does, unless it is still the version of this ETag; then None."""
        limit = self._config.max_bytes if max_bytes is None else max_bytes
        try:
            return self._fetch(FileWish(url, Part(target), (), limit, lambda received: None, etag))
        except Unchanged:
            return None

    def fetch_json(
        self,
        url: str,
        parameters: Mapping[str, str | int] = MappingProxyType({}),
        *,
        seconds_between: float = 0.0,
    ) -> Any:
        """Fetch an API's answer, of 32 MB at most once it is decompressed.

        Parameters:
            parameters: of the query.
            seconds_between: at least so long from one such request to this host to the next.

        Raises:
            Unfetchable: it is not to be had, or is no JSON.
            NoNetwork: nobody at all can be reached, or nobody any more.
        """
        asked = f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}" if parameters else url
        request = _Request(asked, {"Accept": "application/json", "Accept-Encoding": "gzip"}, seconds_between)
        content = self._patiently(asked, lambda until: self._content_once(request, until))
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise Unfetchable(locate(asked).shown, "the answer is no JSON", lasting=False) from None

    def _patiently(self, url: str, attempt: Callable[[float], Result], grown: Callable[[], int] = lambda: 0) -> Result:
        """Attempt until it works, until there were too many failures in a row, or until it is clear that it cannot.

        Parameters:
            attempt: gets the time until when a first contact has to be made, in monotonic seconds.
            grown: how much there is so far; failures count anew where that is more than ever.
        """
        until = self._contact_until()
        most, failures, attempts = grown(), 0, 0
        while True:
            attempts += 1
            try:
                return attempt(until)
            except Passing as failure:
                self._patience.check()
                failures = 0 if grown() > most else failures + 1
                most = max(most, grown())
                last = attempts == MOST_ATTEMPTS or failures >= self._config.attempts
                self._give_up(url, failure, last, late=time.monotonic() >= until)
                seconds = self._backoff.seconds(max(1, failures))
                if failure.unreached and not self._network.reached_anybody:
                    seconds = min(seconds, until - time.monotonic())
            self._patience.wait(seconds)

    def _contact_until(self) -> float:
        """Until when a host has to answer while nobody has, in monotonic seconds: without a network all are silent."""
        now = time.monotonic()
        with self._lock:
            self._first_contact_until = self._first_contact_until or now + FIRST_CONTACT_S
            return max(self._first_contact_until, now + NEXT_CONTACT_S)

    def _give_up(self, url: str, failure: Passing, last: bool, *, late: bool) -> None:
        """Raise what a failure comes to, if no further attempt is to be made."""
        location = locate(url)
        if failure.unreached and not self._network.reached_anybody and (last or late):
            raise NoNetwork(location.host, failure.reason) from None
        if failure.unreached and self._network.reached_anybody and self._network.is_gone():
            raise NoNetwork(location.host, f"{failure.reason}, nor can those who answered before") from None
        if last:
            raise Unfetchable(location.shown, failure.reason, lasting=False) from None

    @contextlib.contextmanager
    def _answer(self, request: _Request, until: float) -> Iterator[Answer]:
        """The answer, after redirects, each judged like a first address; its host's slot is kept meanwhile."""
        location = locate(request.url)
        seen: set[str] = set()
        while True:
            seen.add(location.url)
            host = self._manners_of(location)
            with (
                host.visit(location.shown, request.seconds_between),
                self._response(request, location, until) as response,
            ):
                self._heed(response, location, host)
                if response.status not in _REDIRECTS:
                    by = self._connections
                    yield Answer(response, location, self._config.read_timeout_s, by.reason, by.reading)
                    return
                location = _redirected(location, response, seen)

    @contextlib.contextmanager
    def _response(self, request: _Request, location: Location, until: float) -> Iterator[BaseHTTPResponse]:
        headers = {"User-Agent": self._user_agent, **request.headers}
        response = self._connections.get(location, headers, until)
        try:
            yield response
        finally:
            leave(response)

    def _heed(self, response: BaseHTTPResponse, location: Location, host: HostManners) -> None:
        """Do as a server asks that wants to be left alone for a while, and raise what its status means."""
        seconds = retry_after_s(response)
        if response.status in _LEFT_ALONE:
            host.asked_to_wait(seconds)
            host.check_open(location.shown)
        elif seconds <= self._config.longest_wait_s:  # as MediaWiki does with status 200
            host.asked_to_wait(seconds)
        if response.status in _FROM_BETWEEN:
            raise Unfetchable(location.shown, status_words(response.status), lasting=False, status=response.status)
        if response.status in _MAY_PASS or (response.status // 100 == 5 and response.status not in _WILL_NOT_PASS):
            raise Passing(status_words(response.status))

    def _manners_of(self, location: Location) -> HostManners:
        with self._lock:
            return self._of_host[location.netloc]

    def _content_once(self, request: _Request, until: float) -> bytearray:
        with self._answer(request, until) as answer:
            answer.check_status(200)
            return answer.content(MOST_JSON_BYTES)

    def _fetch(self, wish: FileWish) -> Fetched:
        try:
            return self._patiently(wish.url, lambda until: self._file_once(wish, until), wish.part.size_bytes)
        except Unfetchable as error:
            if error.lasting:
                wish.part.discard()
            raise
        except OSError as error:
            if error.errno in _FULL:
                wish.part.discard()
            raise
        finally:
            wish.part.discard_unless_of_use(wish.url)

    def _file_once(self, wish: FileWish, until: float) -> Fetched:
        begun = wish.begun()
        if begun is not None and wish.is_whole(begun):
            return finish(wish, begun)
        with self._answer(_Request(wish.url, wish.headers(begun)), until) as answer:
            return receive(wish, begun, answer, self._patience)


def _redirected(location: Location, response: BaseHTTPResponse, seen: set[str]) -> Location:
    """Where a redirect leads to; raises Unfetchable where it must not, or leads nowhere."""
    to = response.headers.get("Location", "")
    if not to:
        raise Unfetchable(location.shown, f"{status_words(response.status)}, but not where to", lasting=True)
    try:
        following = locate(urljoin(location.url, to))
    except ValueError:
        raise Unfetchable(location.shown, "redirected to what is no address", lasting=True) from None
    if location.scheme == "https" and following.scheme == "http":
        raise Unfetchable(location.shown, "refused: redirected from https to http", lasting=True)
    if following.url in seen:
        raise Unfetchable(location.shown, "redirected in a circle", lasting=True)
    if len(seen) > MOST_REDIRECTS:
        raise Unfetchable(location.shown, f"redirected more than {MOST_REDIRECTS} times", lasting=True)
    return following


def _own_version() -> str:
    try:
        return version("wastelens")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
