"""Where the raw files of a prepared dataset were found, and whether they are as they were: ``raw_files.csv``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from wastelens.system.tables import write_csv

RAW_FILES = "raw_files.csv"
_COLUMNS = ("file_name", "path", "size_bytes", "modified_ns")
_SURROGATES: Final = "surrogateescape"  # names of files need not be UTF-8


def raw_file_table(root: Path, photos: Mapping[str, Path], annotations: Iterable[Path]) -> pd.DataFrame:
    """Return a table with a row per file: photo's flat name ("" for annotations), path, size and time of change.

    Paths are below ``root``, with forward slashes. Folders, whose time changes with their list of files, have size 0.
    A file that is gone by now is left out.
    """
    rows = []
    for name, path in [*photos.items(), *(("", path) for path in annotations)]:
        if (state := _state(path)) is not None:
            rows.append((name, path.relative_to(root).as_posix(), *state))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def write_raw_files(folder: Path, table: pd.DataFrame) -> None:
    """Write the table into a prepared folder."""
    write_csv(table, folder / RAW_FILES, errors=_SURROGATES)


def read_raw_files(folder: Path) -> pd.DataFrame:
    """Return the table of a prepared folder, which is empty where there is none that can be read."""
    try:
        table = pd.read_csv(folder / RAW_FILES, dtype=str, keep_default_na=False, encoding_errors=_SURROGATES)
        return table[list(_COLUMNS)].astype({"size_bytes": "int64", "modified_ns": "int64"})
    except (OSError, ValueError, KeyError):
        return pd.DataFrame(columns=list(_COLUMNS))


def is_unchanged(path: Path, size_bytes: int, modified_ns: int) -> bool:
    """Return whether a file is there and has the size and time of change that it had when it was prepared."""
    return _state(path) == (size_bytes, modified_ns)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (0 if path.is_dir() else status.st_size), status.st_mtime_ns
