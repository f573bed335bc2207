"""Disk space, reserved before it is needed."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path


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
