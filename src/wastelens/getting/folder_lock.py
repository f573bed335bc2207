"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from wastelens.errors import DatasetError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def only_one_in(folder: Path, setting: str) -> Iterator[None]:
    """Make a folder and hold it against other processes; the lock ends with the process, however that ends.

    Args:
        folder: that is to be held.
        setting: the key of the configuration that chooses it, for messages.

    Raises:
        DatasetError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"Another run is writing {folder}. Wait for it to end, or give this one a {setting} of its own."
            ) from None
        except OSError:  # a file system without locks, as some network drives are
            pass
        yield
    finally:
        os.close(handle)
