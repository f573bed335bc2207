"""Open an engine, which says where tasks run. Steps hand it functions and settings.

``local`` runs tasks one after another in this process, without Dask. ``processes:N`` starts a cluster of N processes on
this machine, and ``tcp://HOST:PORT`` or ``tls://HOST:PORT`` connects to a scheduler that is running already.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

from wastelens.config.engine import LOCAL, processes_of
from wastelens.engine.task import Done, Engine, Task


@contextlib.contextmanager
def opened(engine: str, *, retries: int) -> Iterator[Engine]:
    """Open an engine for the block; processes that it starts end with the block, whatever ends it.

    Args:
        engine: ``local``, ``processes:N`` or a scheduler's address.
        retries: number of times that a task is run again when its worker dies; a scheduler that is running already
            has its own number.

    Raises:
        EngineError: no scheduler answers, it has no workers, or a worker cannot be used.
    """
    if engine == LOCAL:
        yield LocalEngine()
        return
    from wastelens.engine import dask_cluster

    if number := processes_of(engine):
        with dask_cluster.on_processes(number, retries) as on_processes:
            yield on_processes
    else:
        with dask_cluster.on_scheduler(engine) as on_cluster:
            yield on_cluster


class LocalEngine:
    """Runs tasks in this process, in the order in which they are started."""

    is_local = True

    def __init__(self) -> None:
        self._queue: deque[Task] = deque()

    def workers(self) -> int:
        return 1

    def is_known(self, key: str) -> bool:
        return any(task.key == key for task in self._queue)

    def start(self, task: Task) -> None:
        if not self.is_known(task.key):
            self._queue.append(task)

    def running(self) -> int:
        return len(self._queue)

    def finished(self, more: Callable[[], None] = lambda: None) -> Iterator[Done]:
        while self._queue:
            task = self._queue.popleft()
            try:
                done = Done(task, task.function(*task.arguments))
            except Exception as error:  # as on a cluster: whoever started the task decides
                done = Done(task, error=error)
            yield done
            if not self._queue:
                more()

    def stop_others(self, owner: str, keep: Container[str]) -> None:
        pass

    def is_started(self, key: str) -> bool:
        return self.is_known(key)

    def send(
        self, function: Callable[..., Any], *arguments: Any, workers: Sequence[str] | None = None
    ) -> dict[str, Any]:
        return {}
