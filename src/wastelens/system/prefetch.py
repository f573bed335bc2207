"""Batches made by a thread while the network works on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")

# Batches that wait while the network works on one; more only costs memory.
AHEAD = 3


def prepared_ahead(make: Callable[[int], Made], count: int) -> Iterator[Made]:
    """``make(0)``, …, ``make(count - 1)``, made by a thread, three at most before they are asked for.

    An exception in ``make`` is raised where its result would have come. One thread: what is made need not be safe for
    several, and the network leaves little of the other core.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for number in range(count):
            waiting.append(thread.submit(make, number))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
