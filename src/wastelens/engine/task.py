"""Tasks, how they end, and what runs them: the interface of all engines."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wastelens.errors import EngineError, WastelensError


@dataclass(frozen=True)
class Task:
    """A function to call, once, on any worker.

    Attributes:
        key: identifies the task among all that run on a cluster.
        function: at the top level of a module of Wastelens.
        arguments: of the function; they can be pickled.
    """

    key: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Done:
    """A task that has ended: its result, or the exception that ended it."""

    task: Task
    result: Any = None
    error: BaseException | None = None


class WorkerLost(EngineError):  # noqa: N818  a state of the world, no fault of the input
    """The workers of a task died, one after another."""


class TaskInterrupted(WastelensError):  # noqa: N818  asked for
    """A task was ended before it was done."""


class Engine(Protocol):
    """Runs tasks.

    Attributes:
        is_local: whether tasks run in this process.
    """

    is_local: bool

    def workers(self) -> int:
        """Return how many tasks run at once."""

    def is_known(self, key: str) -> bool:
        """Return whether a task of this key is queued, running, or done without its result having been delivered."""

    def start(self, task: Task) -> None:
        """Queue a task, or join the one of the same key that a coordinator left running."""

    def is_started(self, key: str) -> bool:
        """Return whether this process started a task of this key that has not ended."""

    def running(self) -> int:
        """Return how many of the started tasks have not ended."""

    def finished(self, more: Callable[[], None] = lambda: None) -> Iterator[Done]:
        """Yield each started task as it ends; tasks started meanwhile are included.

        Args:
            more: called now and then while there are fewer tasks than workers; it may start some.
        """

    def stop_others(self, owner: str, keep: Container[str]) -> None:
        """End the tasks that an earlier coordinator left, whose keys end in ``owner``, except those to keep."""

    def send(
        self, function: Callable[..., Any], *arguments: Any, workers: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Call a short function on these workers, or on all, even while tasks run; worker → result or exception."""
