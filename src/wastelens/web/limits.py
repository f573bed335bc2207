"""Limits that keep the client polite: attempts, requests at a time and per second to each host, and pauses."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader

from wastelens.config.web import WebConfig
from wastelens.system import interrupts
from wastelens.web.errors import Closed, Unfetchable

GIVEN_UP_AFTER = 16  # requests in a row that hung: a minute by the usual timeout and number of connections
_SLICE_S = 0.1


class Cancellation:
    """Waits that end at once when the user interrupts or the ``Web`` is closed."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def close(self) -> None:
        """End all present and future waits, in all threads."""
        self._closed.set()

    def check(self) -> None:
        """Raise Closed if the ``Web`` is closed, or in the main thread KeyboardInterrupt after a Ctrl-C."""
        if threading.current_thread() is threading.main_thread():
            interrupts.check()
        if self._closed.is_set():
            raise Closed("The web client is closed.")

    def wait(self, seconds: float) -> None:
        """Wait; raise as `check` does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            self._closed.wait(min(left, _SLICE_S))
        self.check()


class Attempts(Retry):
    """urllib3's count of attempts, waits between them, and ``Retry-After``, which here never raises."""

    def get_backoff_time(self) -> float:
        """Return the seconds to wait: uniform in [0, factor · 2^(n-1)] after n failures, so-called full jitter.

        Brooker, Exponential Backoff And Jitter, AWS Architecture Blog. urllib3 itself repeats at once the first time.
        """
        longest = self.backoff_factor * 2 ** max(0, len(self.history) - 1)
        return random.uniform(0, min(longest, self.backoff_max))

    def get_retry_after(self, response: BaseHTTPResponse) -> float:
        """Return the pause that the server asks for, in seconds, stated as such or as a date; 0 if it asks for none."""
        with contextlib.suppress(InvalidHeader, ValueError, OverflowError):
            return self.parse_retry_after(response.headers.get("Retry-After", "")[:60])
        return 0.0


class HostLimits:
    """The limits for one host, shared by all threads."""

    def __init__(self, config: WebConfig, cancellation: Cancellation) -> None:
        self._cancellation = cancellation
        self._seconds_between = 1 / config.requests_per_second
        self._longest_wait_s = config.longest_wait_s
        self._slots = threading.Semaphore(config.connections_per_host)
        self._lock = threading.Lock()
        self._next_at = self._next_spaced_at = self._paused_until = 0.0
        self._hung_in_a_row = 0

    @contextlib.contextmanager
    def request(self, place: str, seconds_between: float = 0.0) -> Iterator[None]:
        """Wait for a free connection slot and the time of the next request; hold the slot. Raises as `check_open`."""
        while not self._slots.acquire(timeout=_SLICE_S):
            self._cancellation.check()
        try:
            self.check_open(place)
            while (seconds := self._reserve(seconds_between) - time.monotonic()) > 0:
                self._cancellation.wait(seconds)
                self.check_open(place)
                if time.monotonic() >= self._paused_until:  # otherwise another thread was told to pause meanwhile
                    break
            yield
        finally:
            self._slots.release()

    def check_open(self, place: str) -> None:
        """Raise Unfetchable while the host asks for a longer pause than ``longest_wait_s``, or if it is given up."""
        if self._hung_in_a_row >= GIVEN_UP_AFTER:
            reason = f"given up until the next run: {GIVEN_UP_AFTER} requests in a row hung"
            raise Unfetchable(place, reason, permanent=False)
        left = self._paused_until - time.monotonic()
        if left > self._longest_wait_s:
            raise Unfetchable(place, f"the server asks clients to wait {round(left)} s", permanent=False)

    def record(self, *, hung: bool) -> None:
        """Record how a request ended; a host is given up when many in a row hung."""
        with self._lock:
            self._hung_in_a_row = self._hung_in_a_row + 1 if hung else 0

    def pause(self, seconds: float) -> None:
        """Delay all further requests to this host."""
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _reserve(self, seconds_between: float) -> float:
        """Reserve the time of the next request and return it, in monotonic seconds."""
        with self._lock:
            spaced_at = self._next_spaced_at if seconds_between else 0.0
            at = max(time.monotonic(), self._paused_until, self._next_at, spaced_at)
            self._next_at = at + self._seconds_between
            if seconds_between:
                self._next_spaced_at = at + seconds_between
        return at
