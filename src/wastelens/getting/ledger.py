"""The state of a folder of photos between runs: a list that survives a kill at any moment, and drafts of photos."""

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

_LINE_END = b"\r\n"  # RFC 4180
_LONGEST_CELL = 100_000  # characters; Python's reader gives up at 131,072
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
_FORMULA = re.compile(r"'*[=+\-@]")
_HIDDEN_FORMULA = re.compile(r"'+[=+\-@]")


class CsvLedger:
    """Rows by key in a CSV file (UTF-8) that is appended to; shared by threads, not by processes.

    A cell is one line: line ends and other control characters become spaces. A cell that a spreadsheet would take for
    a formula (beginning with ``=``, ``+``, ``-`` or ``@``) has an apostrophe before it in the file, not in the rows.

    Args:
        path: of the file, which need not exist.
        columns: in the order of the file.
        key: the column or columns that identify a row; they are never empty.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], key: str | tuple[str, ...]) -> None:
        self.path = path
        self.columns = columns
        self._key = (key,) if isinstance(key, str) else key
        self._lock = threading.Lock()
        self._sound = False

    def rows(self) -> dict[str, dict[str, str]]:
        """Return key → row, in the file's order; the last row of a key counts, a truncated last line is ignored.

        The key is the key column's cell, or the key columns' cells joined by spaces.

        Raises:
            DatasetError: the file is another table.
        """
        with self._lock:
            return self._read()

    def append(self, row: Mapping[str, object]) -> None:
        """Write a row; missing columns are empty. Once this returns, a kill does not lose the row.

        Raises:
            DatasetError: the file is another table.
        """
        with self._lock:
            if not self._sound:
                self._repair()
            self._sound = False  # in case a full disk cuts the line short
            with self.path.open("ab") as file:
                file.write(_line(_written(row.get(column, "")) for column in self.columns))
            self._sound = True

    def finish(self) -> None:
        """Rewrite the file in one step, with one row per key, sorted by its columns from the left.

        Raises:
            DatasetError: the file is another table.
        """
        with self._lock:
            rows = self._read().values()
            self._replace(sorted(rows, key=lambda row: [row[column] for column in self.columns]))

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        whole = content[: content.rfind(b"\n") + 1].decode("utf-8-sig", "replace")  # a spreadsheet may add a BOM
        try:
            header, *lines = csv.reader(io.StringIO(whole, newline="")) if whole else [list(self.columns)]
        except csv.Error as error:
            raise DatasetError(f"{self.path} cannot be read as CSV ({error}). Move it away.") from None
        for column in self._key:
            if column not in header:
                raise DatasetError(f"{self.path} has no column '{column}': it is another table. Move it away.")
        listed = [dict(zip(header, cells, strict=True)) for cells in lines if len(cells) == len(header)]
        rows = [{column: _read_back(cells.get(column, "")) for column in self.columns} for cells in listed]
        return {" ".join(row[key] for key in self._key): row for row in rows if all(row[key] for key in self._key)}

    def _repair(self) -> None:
        """Make sure that a line can be appended: that the columns are ours and the last line is whole."""
        content = self.path.read_bytes() if self.path.exists() else b""
        if not content.startswith(_line(self.columns)) or not content.endswith(_LINE_END):
            self._replace(self._read().values())

    def _replace(self, rows: Iterable[Mapping[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f"{self.path.name}.part")
        lines = [_line(_written(row[column]) for column in self.columns) for row in rows]
        aside.write_bytes(b"".join([_line(self.columns), *lines]))
        os.replace(aside, self.path)


class Drafts:
    """Photos that have no place in a folder yet, in a hidden folder below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ".unfinished"

    def path(self, name: str) -> Path:
        """Return the path for a draft of this name."""
        self._folder.mkdir(exist_ok=True)
        return self._folder / name

    def remove(self) -> None:
        """Remove all drafts."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _line(cells: Iterable[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=_LINE_END.decode()).writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _written(value: object) -> str:
    cell = _CONTROL.sub(" ", str(value)[:_LONGEST_CELL])
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _read_back(cell: str) -> str:
    return cell[1:] if _HIDDEN_FORMULA.match(cell) else cell
