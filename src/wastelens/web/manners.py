"""Manners towards other people's servers: how many requests at a time, how often, and when to come back."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator

from wastelens.config.getting import WebConfig
from wastelens.system import interrupts
from wastelens.web.errors import Closed, Unfetchable

_SLICE_S = 0.1


class Patience:
    """Waits that end at once when the user interrupts, or when nobody wants their end any more."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def close(self) -> None:
        """End all waits, of now and later, in all threads."""
        self._closed.set()

    def check(self) -> None:
        """Go on, if that is still wanted.

        Raises:
            KeyboardInterrupt: the user does not want to; in the main thread alone, where it belongs.
            Closed: nobody does.
        """
        if threading.current_thread() is threading.main_thread():
            interrupts.check()
        if self._closed.is_set():
            raise Closed("The answer is not wanted any more.")

    def wait(self, seconds: float) -> None:
        """Wait; raises as `check` does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            self._closed.wait(min(left, _SLICE_S))
        self.check()

    def acquire(self, slots: threading.Semaphore) -> None:
        """Wait for one of the slots; raises as `check` does."""
        while not slots.acquire(timeout=_SLICE_S):
            self.check()


class HostManners:
    """The manners towards one host, shared by all threads."""

    def __init__(self, config: WebConfig, patience: Patience) -> None:
        self._patience = patience
        self._seconds_between = 1 / config.requests_per_second
        self._longest_wait_s = config.longest_wait_s
        self._slots = threading.Semaphore(config.connections_per_host)
        self._lock = threading.Lock()
        self._next_at = self._next_spaced_at = self._paused_until = self._closed_until = 0.0

    @contextlib.contextmanager
    def visit(self, place: str, seconds_between: float = 0.0) -> Iterator[None]:
        """Wait for a connection's slot and the next request's time, and keep the slot.

        Raises:
            Unfetchable: the host has asked for more patience than there is.
        """
        self._patience.acquire(self._slots)
        try:
            self._take_turn(place, seconds_between)
            yield
        finally:
            self._slots.release()

    def check_open(self, place: str) -> None:
        """Raise the Unfetchable of a host that wants to be left alone for longer than we wait."""
        left = self._closed_until - time.monotonic()
        if left > 0:
            raise Unfetchable(place, f"the server asks to come back in {max(1, round(left))} s", lasting=False)

    def asked_to_wait(self, seconds: float) -> None:
        """Let all further requests to this host wait for so long, or give it up for that time."""
        until = time.monotonic() + seconds
        with self._lock:
            if seconds > self._longest_wait_s:
                self._closed_until = max(self._closed_until, until)
            else:
                self._paused_until = max(self._paused_until, until)

    def _take_turn(self, place: str, seconds_between: float) -> None:
        while True:
            self._patience.wait(self._paused_until - time.monotonic())
            self.check_open(place)
            self._patience.wait(self._reserve(seconds_between) - time.monotonic())
            self.check_open(place)
            if time.monotonic() >= self._paused_until:  # otherwise another thread has been told to wait meanwhile
                return

    def _reserve(self, seconds_between: float) -> float:
        """When the next request may go, which is hereby taken, in monotonic seconds."""
        with self._lock:
            at = max(time.monotonic(), self._next_at, self._next_spaced_at if seconds_between else 0.0)
            self._next_at = at + self._seconds_between
            if seconds_between:
                self._next_spaced_at = at + seconds_between
        return at


class Backoff:
    """How long to wait before the next attempt: exponential, with full jitter.

    Brooker, Exponential Backoff And Jitter, AWS Architecture Blog: uniform in [0, base · 2^(n-1)] after n failures.
    """

    def __init__(self, config: WebConfig, seed: int | None) -> None:
        self._base_s = config.backoff_s
        self._longest_s = config.longest_wait_s
        self._random = random.Random(seed)

    def seconds(self, failures: int) -> float:
        """A random time in seconds; failures: how many there were in a row, from 1."""
        return self._random.uniform(0, min(self._base_s * 2 ** (failures - 1), self._longest_s))
