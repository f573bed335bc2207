"""Files and folders: texts, disk space reserved before it is needed, locks that end with the process."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from wastelens.errors import DatasetError

try:
    import fcntl
except ImportError:  # Windows: no locks there
    fcntl = None  # type: ignore[assignment]


def read_text(path: Path, most_bytes: int, *, errors: str = "strict", shorten: bool = False) -> str:
    """Read a text file as editors and spreadsheets save it: UTF-8 or UTF-16, with or without a byte order mark.

    Args:
        path: the file.
        most_bytes: no more is read.
        errors: how to handle bytes that are no text, as in ``bytes.decode``.
        shorten: whether to return the beginning of a longer file instead of refusing it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than ``most_bytes``, or in another encoding; the reason, to follow a file's name.
    """
    with path.open("rb") as file:
        raw = file.read(most_bytes + 1)
    if len(raw) > most_bytes and not shorten:
        raise ValueError(f"is longer than {most_bytes:,} bytes")
    encoding = _encoding(raw)
    try:
        return raw[:most_bytes].decode(encoding, errors).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not {encoding.upper()} text (byte {error.start:,})") from None


def _encoding(raw: bytes) -> str:
    """Return the encoding of a text by its byte order mark, or by where its first letters have zeros."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = [place for place, byte in enumerate(raw[:4]) if not byte]
    return "utf-16-le" if zeros == [1, 3] else "utf-16-be" if zeros == [0, 2] else "utf-8"


def reserve(path: Path) -> None:
    """Reserve the disk space of a file: writing to a mapped file on a full disk kills the process (SIGBUS).

    Raises:
        OSError: the disk is too full.
    """
    status = path.stat()
    taken = getattr(status, "st_blocks", 0) * 512
    if status.st_size - taken > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, status.st_size)


@contextlib.contextmanager
def alone_in(folder: Path, setting: str) -> Iterator[None]:
    """Create a folder and lock it against other processes; ``setting`` is the config key that chooses the folder.

    Raises:
        DatasetError: another process holds the lock.
    """
    with _opened(folder) as handle:
        if not _lock(handle, folder):
            raise DatasetError(f"Another run is writing to {folder}. Wait for it to end, or choose another {setting}.")
        yield


@contextlib.contextmanager
def in_turn(folder: Path, before_waiting: Callable[[], None]) -> Iterator[None]:
    """Create a folder, which no process may rename, and lock it.

    If another process holds the lock, call ``before_waiting`` and wait for it.
    """
    with _opened(folder) as handle:
        if not _lock(handle, folder) and handle is not None:
            before_waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """Open a folder; closing the handle ends its lock. Yield None if another process is just renaming the folder.

    Raises:
        DatasetError: its place takes no folders.
    """
    try:
        _make(folder)
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


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        if not folder.parent.is_dir():  # another process renames that one
            raise
        raise DatasetError(f"No folder can be made in {folder.parent}. Choose another than {folder}.") from None


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
