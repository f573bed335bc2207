"""Locks on folders, for one process at a time; a lock ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from wastelens.errors import DatasetError

try:
    import fcntl
except ImportError:  # Windows: no locks there
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def alone_in(folder: Path, setting: str) -> Iterator[None]:
    """Create a folder and lock it against other processes.

    Args:
        folder: the folder to lock.
        setting: the config key that chooses the folder, for the message.

    Raises:
        DatasetError: another process holds the lock.
    """
    with _opened(folder) as handle:
        if not _lock(handle, folder):
            raise DatasetError(f"Another run is writing to {folder}. Wait for it to end, or choose another {setting}.")
        yield


@contextlib.contextmanager
def in_turn(folder: Path, before_waiting: Callable[[], None]) -> Iterator[None]:
    """Create a folder and lock it, after waiting for the process that holds the lock, if any.

    Args:
        folder: the folder to lock; no process may rename it.
        before_waiting: called before waiting, if another process holds the lock.
    """
    with _opened(folder) as handle:
        if not _lock(handle, folder) and handle is not None:
            before_waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """Open a folder; closing the handle ends its lock. Yield None if another process is just renaming the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY) if fcntl else None
    except (FileNotFoundError, FileExistsError):
        if folder.is_file():
            raise
        handle = None
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _lock(handle: int | None, folder: Path) -> bool:
    """Lock an open folder; return False if another process holds the lock or has renamed the folder meanwhile."""
    if fcntl is None:
        return True
    if handle is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks, such as some network drives
        return True
