"""Ends of waits as a whole: a socket's own timeout begins anew with each byte, and a server may send one at a time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

_LOOKING_S = 0.2


class Deadlines:
    """Breaks connections off that are waited for too long; one thread looks after all of them."""

    def __init__(self) -> None:
        self._until: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    @contextlib.contextmanager
    def within(self, seconds: float, connection: socket.socket) -> Iterator[None]:
        """Break a connection off where what is done with it takes longer.

        Raises:
            TimeoutError: it did; where that has met an error of its own, it is that error.
        """
        with self._lock:
            self._until[connection] = time.monotonic() + seconds
            if self._watcher.ident is None:
                self._watcher.start()
        try:
            yield
        finally:
            with self._lock:
                in_time = self._until.pop(connection, None) is not None
        if not in_time:
            raise TimeoutError

    def _watch(self) -> None:
        while not self._closed.wait(_LOOKING_S):
            now = time.monotonic()
            with self._lock:
                for connection in [one for one, until in self._until.items() if until < now]:
                    del self._until[connection]
                    shut(connection)


def shut(connection: socket.socket) -> None:
    """Wake whoever reads from a connection, with its end."""
    with contextlib.suppress(OSError):  # it is closed already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
