"""Whether the disk has room, before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from wastelens.errors import DatasetError
from wastelens.web.sizes import in_words


def check_space(folder: Path, needed_bytes: float, what: str, setting: str) -> None:
    """Compare what is to come with what is free.

    Args:
        folder: it goes there.
        needed_bytes: about how much it takes.
        what: that is, for messages.
        setting: the key of the configuration that chooses the folder, for messages.

    Raises:
        DatasetError: the disk is too full.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise DatasetError(
            f"{what} take about {in_words(needed_bytes)}, and {folder} has {in_words(free)} free. "
            f"Free space, or choose another {setting}."
        )
