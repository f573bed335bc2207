"""Before anything is fetched: what a run logs of its settings, and whether the disk has room."""

from __future__ import annotations

import shutil
from pathlib import Path

from wastelens.config.base import flatten
from wastelens.config.web import FetchingConfig
from wastelens.errors import DatasetError
from wastelens.web.addresses import locate
from wastelens.web.answers import size_text
from wastelens.web.errors import Unfetchable


def logged_parameters(config: FetchingConfig) -> dict[str, object]:
    """Return the settings to log: URLs cut to host and path, as the rest may hold a key, and without the contact."""
    settings: dict[str, object] = {name: value for name, value in flatten(config).items() if name != "contact"}
    for name in [name for name in settings if name.endswith(("_url", ".url"))]:
        try:
            settings[name] = locate(str(settings[name])).shown
        except Unfetchable:  # reported when it is fetched
            del settings[name]
    return settings


def check_space(folder: Path, needed_bytes: float, what: str, setting: str) -> None:
    """Check that the disk has room.

    Args:
        folder: where the files go.
        needed_bytes: about how much they take.
        what: the files, for the message.
        setting: the setting that chooses the folder, for the message.

    Raises:
        DatasetError: the disk is too full.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise DatasetError(
            f"{what} take about {size_text(needed_bytes)}, and {folder} has {size_text(free)} free. "
            f"Free space, or choose another {setting}."
        )
