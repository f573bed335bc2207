"""Whether the disk has room, before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from wastelens.errors import DatasetError

_MB, _GB = 1e6, 1e9


def check_space(folder: Path, needed_bytes: float, what: str) -> None:
    """Compare what is to come with what is free.

    Raises:
        DatasetError: the disk is too full.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise DatasetError(
            f"{what} take about {in_words(needed_bytes)}, and {folder} has {in_words(free)} free. "
            "Free space, or choose another data_folder."
        )


def in_words(size_bytes: float) -> str:
    """``2.6 GB``, or ``0.3 MB``."""
    return f"{size_bytes / _GB:,.1f} GB" if size_bytes >= _GB else f"{size_bytes / _MB:,.1f} MB"
