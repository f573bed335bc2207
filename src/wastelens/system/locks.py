"""One process at a time in a folder; the lock ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from wastelens.errors import DatasetError

try:
    import fcntl
except ImportError:  # Windows: nothing is held there
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def alone_in(folder: Path, setting: str) -> Iterator[None]:
    """Make a folder, and hold it against other processes.

    Args:
        folder: that is to be held.
        setting: the key of the configuration that chooses it, for the message.

    Raises:
        DatasetError: another process holds it.
    """
    with _opened(folder) as handle:
        if not _lock(handle, folder):
            raise DatasetError(
                f"Another run is writing {folder}. Wait for it to end, or give this one a {setting} of its own."
            )
        yield


@contextlib.contextmanager
def in_turn(folder: Path, before_waiting: Callable[[], None]) -> Iterator[None]:
    """Make a folder, and hold it against other processes once those that hold it now have ended.

    Args:
        folder: that is to be held; nobody may rename it.
        before_waiting: called where another process holds it, before this one waits for its end.
    """
    with _opened(folder) as handle:
        if not _lock(handle, folder) and handle is not None:
            before_waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """The folder's handle, whose closing ends its lock; None where another process renames it this moment."""
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
    """Lock an open folder; False where another process holds it, or has renamed it since it was looked for."""
    if fcntl is None:
        return True
    if handle is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks, as some network drives are
        return True
