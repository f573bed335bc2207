"""Tasks for the tests of the engine; started as a module, a coordinator that waits for a slow one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from wastelens.engine.engine import opened
from wastelens.engine.task import Task
from wastelens.errors import EngineError
from wastelens.system import interrupts


def fails(message: str) -> None:
    raise EngineError(message)


def process_id_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def variable(name: str) -> str:
    return os.environ[name]


def has_event_loop() -> bool:
    """Return whether this thread runs an event loop, which a slow function would hold up."""
    return asyncio._get_running_loop() is not None


def count_up(file: Path) -> int:
    """Append a character to a file; return how many it has."""
    with file.open("a") as opened_file:
        opened_file.write("x")
    return len(file.read_text())


def kills_its_process(folder: Path, times: int) -> int:
    """Kill this process the first few times; then return how often the task was begun."""
    begun = count_up(folder / "begun")
    if begun <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return begun


def works_until_interrupted(seconds: float, folder: Path) -> None:
    until = time.monotonic() + seconds
    (folder / "started").touch()
    while time.monotonic() < until:
        interrupts.check()
        time.sleep(0.01)


def fails_once(folder: Path) -> str:
    if (folder / "failed").exists():
        return "second time"
    (folder / "failed").touch()
    raise EngineError("first time")


def slow(folder: Path) -> int:
    (folder / "started").touch()
    time.sleep(3)
    return count_up(folder / "count")


if __name__ == "__main__":
    from tests.engine.tasks import slow  # by a name that its worker knows

    with opened(sys.argv[1], retries=0) as engine:
        engine.start(Task("slow", slow, (Path(sys.argv[2]),)))
        list(engine.finished())
