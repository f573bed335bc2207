"""Threads that work through a list, and do not keep a Ctrl-C waiting."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from wastelens.system import interrupts

Item = TypeVar("Item")
Result = TypeVar("Result")

_LISTENING_S = 0.2


def work_through(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    *,
    workers: int,
    after_each: Callable[[Result], None],
    give_up: Callable[[], None],
) -> None:
    """Work on all items in so many threads; ``after_each`` is told each result by the calling thread.

    An error in ``work``, or an interruption of the caller, ends it all: what has not begun does not, and ``give_up``
    is to end what the threads wait for.
    """
    ended: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pool.submit(work, item).add_done_callback(ended.put)
            for _ in items:
                after_each(_listening(ended).result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            give_up()
            raise


def result_of(future: Future[Result]) -> Result:
    """What a thread comes to, waited for without keeping a Ctrl-C waiting."""
    ended: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()
    future.add_done_callback(ended.put)
    return _listening(ended).result()


def _listening(ended: queue.SimpleQueue[Future[Result]]) -> Future[Result]:
    """Not without a timeout: a signal that another thread gets would not be seen before the next photo ends."""
    while True:
        interrupts.check()
        try:
            return ended.get(timeout=_LISTENING_S)
        except queue.Empty:
            continue
