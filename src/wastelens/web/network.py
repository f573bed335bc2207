"""Whether there is a network: at first, and whether it is still there while nobody answers any more."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque

GONE_AFTER_S = 20.0  # a change of networks may make as long a gap
GONE_AFTER_FAILURES = 10
_ASKED_AGAIN = 3
_LONGEST_S = 3.0  # to ask one of them

Place = tuple[str, int]


class Network:
    """What all threads know of the network together.

    A host that nobody can reach may be gone itself, and so may be all that is left of a list. So where nobody has
    answered for a while, those are asked who did before: the network is gone where none of them can be reached.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: deque[Place] = deque(maxlen=_ASKED_AGAIN)
        self._failures, self._since = 0, 0.0

    @property
    def reached_anybody(self) -> bool:
        """Whether anybody has answered at all."""
        return bool(self._answered)

    def answered(self, place: Place) -> None:
        """Somebody has; place: address and port that the connection goes to."""
        with self._lock:
            self._failures = 0
            if place not in self._answered:
                self._answered.append(place)

    def is_gone(self) -> bool:
        """Whether one more who cannot be reached means that nobody can be any more; takes seconds at most."""
        with self._lock:
            now = time.monotonic()
            self._since = self._since if self._failures else now
            self._failures += 1
            if self._failures < GONE_AFTER_FAILURES or now - self._since < GONE_AFTER_S:
                return False
            places = list(self._answered)
        if not any(_is_there(place) for place in places):
            return True
        with self._lock:
            self._failures = 0
        return False


def _is_there(place: Place) -> bool:
    """Whether anything answers at an address, and be it that nobody is at that port."""
    try:
        socket.create_connection(place, _LONGEST_S).close()
    except ConnectionError:
        return True
    except OSError:
        return False
    return True
