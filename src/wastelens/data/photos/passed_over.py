"""Files in a dataset's folders that nothing reads: whoever put them there should know."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path

from wastelens.data.photos.files import files_below

_MOST_PER_READ_FILE = 10
_MOST_FILES = 10_000


def passed_over(root: Path, read: Iterable[Path], leave: Collection[Path] = ()) -> dict[str, list[str]]:
    """Return suffix, in lower case → names below the root of the visible files that are not read, most first.

    Args:
        root: the dataset's folder.
        read: the files that are read.
        leave: folders below it that are not of the dataset.
    """
    known = {os.path.normpath(path.absolute()) for path in read}
    real: set[str] = set()
    found: dict[str, list[str]] = {}
    # Far more files than are read are not a dataset's, but those of a home folder, say.
    for path, error in islice(files_below(root, leave), _MOST_PER_READ_FILE * len(known) + _MOST_FILES):
        if error is not None or os.path.normpath(path.absolute()) in known:
            continue
        real = real or {os.path.realpath(name) for name in known}  # links: rarely needed, so at the first such file
        if os.path.realpath(path) not in real:
            found.setdefault(path.suffix.lower(), []).append(path.relative_to(root).as_posix())
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))
