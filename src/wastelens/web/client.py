"""Fetches files and API answers from other people's servers, politely and safely."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import MaxRetryError

from wastelens.config.web import WebConfig
from wastelens.system.machine import package_version
from wastelens.web.addresses import Gate, Location, locate
from wastelens.web.connections import Connections
from wastelens.web.errors import NoNetwork, TemporaryFailure, Unfetchable
from wastelens.web.files import Answer, Fetched, Part, leave, status_text
from wastelens.web.limits import Attempts, Cancellation, HostLimits

MOST_REDIRECTS = 10
MOST_ATTEMPTS = 50
MOST_JSON_BYTES = 32_000_000

_REDIRECTS = (301, 302, 303, 307, 308)
_FROM_BETWEEN = (407, 511)  # from a proxy, or a network that asks for a log-in: they say nothing about the file
_TEMPORARY = {408, 425, 429, *range(500, 600)} - {501, 505, 511}  # what a server cannot do at all stays so
_OVERLOADED = (429, 503)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Result = TypeVar("Result")
Progress = Callable[[int], None]


class Web(contextlib.AbstractContextManager["Web"]):
    """The web client of a process, shared by its threads; a context manager.

    If threads fetch, open it within their pool, ``with ThreadPoolExecutor() as pool, Web(…) as web``: then their
    waiting ends before the pool waits for them.

    Parameters:
        config: how many requests, how often, how many attempts.
        hosts: ``name`` (its ports 80 and 443) or ``name:port`` that may be visited even if they are not public.
        contact: an e-mail address or a page, told to the servers' owners.
    """

    def __init__(self, config: WebConfig, *, hosts: tuple[str, ...] = (), contact: str = "") -> None:
        self._config = config
        self._cancellation = Cancellation()
        self._connections = Connections(config, Gate(hosts), self._cancellation)
        self._network = self._connections.network
        self._limits: defaultdict[str, HostLimits] = defaultdict(lambda: HostLimits(config, self._cancellation))
        self._attempts = Attempts(
            total=MOST_ATTEMPTS - 1,
            other=config.attempts - 1,
            status_forcelist=_TEMPORARY,
            backoff_factor=config.backoff_s,
            backoff_max=config.longest_wait_s,
        )
        self._lock = threading.Lock()
        own, client = map(package_version, ("wastelens", "urllib3"))
        self._user_agent = f"Wastelens/{own} ({contact or 'no contact given'}) urllib3/{client}"

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all waiting and fetching; other threads get a `Closed`."""
        self._cancellation.close()
        self._connections.close()

    def fetch_file(
        self, url: str, target: Path, *, max_bytes: int | None = None, progress: Progress = lambda received: None
    ) -> Fetched:
        """Fetch a file unchanged, in pieces; until it is whole it is ``TARGET.part``, which is resumed after a cut.

        Parameters:
            max_bytes: a longer file is cut off and not kept; None: the config's limit.
            progress: called with the number of bytes received since the last call.

        Raises:
            Unfetchable: the file is not available, or not as requested.
            NoNetwork: no host at all can be reached, or none any more.
            OSError: it cannot be written.
        """
        limit = self._config.max_bytes if max_bytes is None else max_bytes
        part = Part(target, url)
        try:
            return self._retry(url, lambda: self._file_once(url, part, limit, progress), part.size_bytes)
        except (Unfetchable, OSError) as error:
            if error.permanent if isinstance(error, Unfetchable) else error.errno in _DISK_FULL:
                part.discard()
            raise
        finally:
            if part.version() is None:
                part.discard()

    def fetch_json(
        self, url: str, parameters: Mapping[str, str | int] = MappingProxyType({}), *, seconds_between: float = 0.0
    ) -> Any:
        """Fetch an API's JSON answer of at most 32 MB.

        Parameters:
            parameters: of the query.
            seconds_between: the pause between such requests to one host.

        Raises:
            Unfetchable: the answer is not available, or not JSON.
            NoNetwork: no host at all can be reached, or none any more.
        """
        asked = f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}" if parameters else url

        def content() -> bytearray:
            with self._answer(asked, {"Accept": "application/json"}, seconds_between) as answer:
                answer.check_head(200)
                return answer.content(MOST_JSON_BYTES)

        received = self._retry(asked, content)
        try:
            return json.loads(received)
        except (ValueError, RecursionError):
            raise Unfetchable(locate(asked).shown, "the answer is not JSON", permanent=False) from None

    def _retry(self, url: str, attempt: Callable[[], Result], received: Callable[[], int] = lambda: 0) -> Result:
        """Attempt until it works, until too many attempts in a row failed, or until there is no network.

        Parameters:
            received: returns how much has arrived; when it grows, the count of failures in a row starts again.
        """
        location, attempts, most = locate(url), self._attempts, received()
        while True:
            try:
                return attempt()
            except TemporaryFailure as failure:
                self._cancellation.check()
                if (now := received()) > most:
                    attempts, most = attempts.new(other=self._config.attempts, history=()), now
                if failure.unreached and self._network.is_gone(location.host):
                    gone = ", and hosts that answered before are gone" if self._network.reached else ""
                    raise NoNetwork(location.host, f"{failure.reason}{gone}") from None
                try:
                    attempts = attempts.increment(url=location.shown, error=failure)
                except MaxRetryError:
                    if failure.unreached and not self._network.reached:
                        raise NoNetwork(location.host, failure.reason) from None
                    raise Unfetchable(location.shown, failure.reason, permanent=False) from None
                longest = self._network.first_contact_s() if failure.unreached else math.inf
            self._cancellation.wait(min(attempts.get_backoff_time(), longest))

    @contextlib.contextmanager
    def _answer(self, url: str, headers: Mapping[str, str], seconds_between: float = 0.0) -> Iterator[Answer]:
        """Yield the answer after redirects, each judged like a first address; hold its host's slot meanwhile."""
        location = locate(url)
        # Not compressed: what is stored is what was sent, and nothing can be a bomb.
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **headers}
        seen: set[str] = set()
        while True:
            seen.add(location.url)
            with self._lock:
                limits = self._limits[location.netloc]
            with contextlib.ExitStack() as opened:
                opened.enter_context(limits.request(location.shown, seconds_between))
                opened.enter_context(_recorded(limits))
                response = self._connections.get(location, headers)
                opened.callback(leave, response)
                self._heed(response, location, limits)
                if response.status not in _REDIRECTS:
                    yield Answer(response, location, self._connections)
                    return
                location = _redirected(location, response, seen)

    def _heed(self, response: BaseHTTPResponse, location: Location, limits: HostLimits) -> None:
        """Pause if the server asks for it, and raise if its status means that there is no answer."""
        seconds = self._attempts.get_retry_after(response)
        if response.status in _OVERLOADED or seconds <= self._config.longest_wait_s:  # MediaWiki sends it with 200
            limits.pause(seconds)
            limits.check_open(location.shown)
        if response.status in _FROM_BETWEEN:
            raise Unfetchable(location.shown, status_text(response.status), permanent=False, status=response.status)
        if self._attempts.is_retry("GET", response.status):
            raise TemporaryFailure(status_text(response.status))

    def _file_once(self, url: str, part: Part, max_bytes: int, progress: Progress) -> Fetched:
        begun = part.version()
        headers = {"Accept": "*/*"}
        if begun is not None:
            headers |= {"Range": f"bytes={part.size_bytes()}-", "If-Range": begun.validator}
        with self._answer(url, headers) as answer:
            return part.receive(begun, answer, max_bytes, progress)


@contextlib.contextmanager
def _recorded(limits: HostLimits) -> Iterator[None]:
    try:
        yield
    except TemporaryFailure as failure:
        limits.record(hung=failure.hung)
        raise
    limits.record(hung=False)


def _redirected(location: Location, response: BaseHTTPResponse, seen: set[str]) -> Location:
    """Return the location that a redirect leads to; raise Unfetchable if it must not be followed."""

    def refusal(reason: str) -> Unfetchable:
        return Unfetchable(location.shown, reason, permanent=True)

    to = response.headers.get("Location", "")
    if not to:
        raise refusal(f"{status_text(response.status)} without a Location")
    try:
        following = locate(urljoin(location.url, to))
    except ValueError:
        raise refusal("redirected to an invalid address") from None
    if location.scheme == "https" and following.scheme == "http":
        raise refusal("refused: redirected from https to http")
    if following.url in seen:
        raise refusal("redirected in a loop")
    if len(seen) > MOST_REDIRECTS:
        raise refusal(f"redirected more than {MOST_REDIRECTS} times")
    return following
