"""A hidden folder for what has no place among the photos yet."""

from __future__ import annotations

import shutil
from pathlib import Path

_NAME = ".unfinished"


class Unfinished:
    """Drafts of photos in a folder, and what is needed to go on with them.

    Args:
        folder: where the photos go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _NAME

    def path(self, name: str) -> Path:
        """Where a draft of this name is, or may be put."""
        self._folder.mkdir(exist_ok=True)
        return self._folder / name

    def sweep(self, may_come: tuple[str, ...]) -> None:
        """Remove what was begun in vain; what begins with one of these names goes on at another call."""
        if not may_come:
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if not path.name.startswith(may_come):
                path.unlink()
