"""Limits that keep the client polite: requests at a time and per second to each host, and pauses that hosts ask for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from wastelens.config.web import WebConfig
from wastelens.system import interrupts
from wastelens.web.errors import Closed, Unfetchable

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


class HostLimits:
    """The limits for one host, shared by all threads."""

    def __init__(self, config: WebConfig, cancellation: Cancellation) -> None:
        self._cancellation = cancellation
        self._seconds_between = 1 / config.requests_per_second
        self._longest_wait_s = config.longest_wait_s
        self._slots = threading.Semaphore(config.connections_per_host)
        self._lock = threading.Lock()
        self._next_at = self._next_spaced_at = self._paused_until = self._closed_until = 0.0

    @contextlib.contextmanager
    def request(self, place: str, seconds_between: float = 0.0) -> Iterator[None]:
        """Wait for a free connection slot and the time of the next request; hold the slot. Raises as `check_open`."""
        while not self._slots.acquire(timeout=_SLICE_S):
            self._cancellation.check()
        try:
            self._wait_for_turn(place, seconds_between)
            yield
        finally:
            self._slots.release()

    def check_open(self, place: str) -> None:
        """Raise Unfetchable while the host asks for a longer pause than ``longest_wait_s``."""
        left = self._closed_until - time.monotonic()
        if left > 0:
            raise Unfetchable(place, f"the server asks clients to wait {max(1, round(left))} s", permanent=False)

    def pause(self, seconds: float) -> None:
        """Delay all further requests to this host, or give it up for that time if it is longer than we wait."""
        until = time.monotonic() + seconds
        with self._lock:
            if seconds > self._longest_wait_s:
                self._closed_until = max(self._closed_until, until)
            else:
                self._paused_until = max(self._paused_until, until)

    def _wait_for_turn(self, place: str, seconds_between: float) -> None:
        while True:
            self._cancellation.wait(self._paused_until - time.monotonic())
            self.check_open(place)
            self._cancellation.wait(self._reserve(seconds_between) - time.monotonic())
            self.check_open(place)
            if time.monotonic() >= self._paused_until:  # otherwise another thread was told to pause meanwhile
                return

    def _reserve(self, seconds_between: float) -> float:
        """Reserve the time of the next request and return it, in monotonic seconds."""
        with self._lock:
            at = max(time.monotonic(), self._next_at, self._next_spaced_at if seconds_between else 0.0)
            self._next_at = at + self._seconds_between
            if seconds_between:
                self._next_spaced_at = at + seconds_between
        return at
