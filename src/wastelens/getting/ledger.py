"""The state of a folder of photos between runs: a list that survives a kill at any moment, and unfinished files."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from wastelens.errors import DatasetError
from wastelens.system.tables import as_text, from_text

_LINE_END = "\r\n"  # RFC 4180
_LONGEST_CELL = 100_000  # characters; Python's reader gives up at 131,072
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")


class CsvLedger:
    """Rows by key in a CSV file (UTF-8) that is appended to; shared by threads, not by processes.

    A cell is one line: line ends and other control characters become spaces. A cell that a spreadsheet would take for
    a formula (beginning with ``=``, ``+``, ``-`` or ``@``) has an apostrophe before it in the file, not in the rows.
    All methods raise DatasetError if the file is another table, which is left alone.

    Args:
        path: of the file, which need not exist.
        columns: in the order of the file.
        key: the columns that identify a row; they are never empty.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], *key: str) -> None:
        self.path = path
        self.columns = columns
        self._key = key
        self._lock = threading.RLock()
        self._sound = False

    def rows(self) -> dict[str, dict[str, str]]:
        """Return key → row, in the file's order; the last row of a key counts, a truncated last line is ignored."""
        with self._lock:
            content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1].decode("utf-8-sig", "replace")  # a spreadsheet may add a BOM
        try:
            header, *lines = csv.reader(io.StringIO(whole, newline="")) if whole else [list(self.columns)]
        except csv.Error as error:
            raise DatasetError(f"{self.path} cannot be read as CSV ({error}). Move it away.") from None
        for column in self._key:
            if column not in header:
                raise DatasetError(f"{self.path} has no column '{column}': it is another table. Move it away.")
        listed = [dict(zip(header, cells, strict=True)) for cells in lines if len(cells) == len(header)]
        rows = [{column: from_text(cells.get(column, "")) for column in self.columns} for cells in listed]
        return {self.key_of(row): row for row in rows if all(row[column] for column in self._key)}

    def key_of(self, row: Mapping[str, str]) -> str:
        """Return the cells of the key columns, joined by spaces."""
        return " ".join(row[column] for column in self._key)

    def append(self, row: Mapping[str, object]) -> None:
        """Write a row; missing columns are empty. Once this returns, a kill does not lose the row."""
        with self._lock:
            if not self._sound:
                self._repair()
            self._sound = False  # in case a full disk cuts the line short
            with self.path.open("ab") as file:
                file.write(_line(row.get(column, "") for column in self.columns))
            self._sound = True

    def finish(self) -> None:
        """Rewrite the file in one step, with one row per key, sorted by its columns from the left."""
        with self._lock:
            self._replace(sorted(self.rows().values(), key=lambda row: [*row.values()]))

    def _repair(self) -> None:
        """Make sure that a line can be appended: the columns are ours, the last line is whole, and it is no link."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content.startswith(_line(self.columns)) and content.endswith(_LINE_END.encode())
        if self.path.is_symlink() or not whole:
            self._replace(self.rows().values())

    def _replace(self, rows: Iterable[Mapping[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f"{self.path.name}.part")
        lines = [_line(row[column] for column in self.columns) for row in rows]
        aside.unlink(missing_ok=True)  # a link would lead to another file
        aside.write_bytes(b"".join([_line(self.columns), *lines]))
        os.replace(aside, self.path)


class ListedFolder:
    """A folder of photos, a list of them, and a hidden folder below it for files that have no place there yet.

    The row of a photo is written before the photo gets its name, so that a kill never leaves one that is not listed.

    Attributes:
        folder: where the photos are.
        list_path: the path of the list.
    """

    def __init__(self, folder: Path, name: str, columns: tuple[str, ...], *key: str) -> None:
        self.folder = folder
        self.list_path = folder / name
        self._ledger = CsvLedger(self.list_path, columns, *key)
        self._rows = self._ledger.rows()
        self._unfinished = folder / ".unfinished"
        self._holds: dict[Path, bool] = {}  # a folder of photos → whether it is below ours

    def holds(self, name: str) -> bool:
        """Tell whether a file of this name is below the folder, wherever links lead."""
        parent = (self.folder / name).parent
        if parent not in self._holds:
            try:
                self._holds[parent] = parent.resolve().is_relative_to(self.folder.resolve())
            except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no file can have
                self._holds[parent] = False
        return self._holds[parent]

    def unfinished(self, name: str) -> Path:
        """Return a path for something that has no place in the folder yet; `remove_unfinished` removes it."""
        if self._unfinished.is_symlink():
            self._unfinished.unlink()
        self._unfinished.mkdir(exist_ok=True)
        return self._unfinished / name

    def remove_unfinished(self) -> None:
        """Remove all that has got no place in the folder; of links, not what they lead to."""
        if self._unfinished.is_symlink():
            self._unfinished.unlink()
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _list(self, row: dict[str, str]) -> None:
        self._ledger.append(row)
        self._rows[self._ledger.key_of(row)] = row

    def _move(self, file: Path, name: str) -> None:
        """Give a file its place in the folder; raise DatasetError if that is not below it."""
        if not self.holds(name):
            raise DatasetError(f"{self.folder}: '{name}' leads out of this folder. Remove the link or the name.")
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)


def _line(cells: Iterable[object]) -> bytes:
    text = io.StringIO(newline="")
    plain = [_CONTROL.sub(" ", str(cell)[:_LONGEST_CELL]) for cell in cells]
    csv.writer(text, lineterminator=_LINE_END).writerow([as_text(cell) for cell in plain])
    return text.getvalue().encode("utf-8", "backslashreplace")
