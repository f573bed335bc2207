"""Batches made by a thread while the network works on earlier ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")

# Finished batches kept waiting while the network works on one; more would only cost memory.
AHEAD = 3


def prepared_ahead(make: Callable[[int], Made], count: int) -> Iterator[Made]:
    """Yield ``make(0)``, …, ``make(count - 1)``, made by a thread up to three items ahead.

    An exception in ``make`` is raised in place of its result. There is one thread, since ``make`` need not be
    thread-safe and the network leaves little of the other core.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for number in range(count):
            waiting.append(thread.submit(make, number))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
