"""A CSV file that grows by a row as each photo ends, and that a kill at any moment leaves readable."""

from __future__ import annotations

import csv
import io
import os
import re
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
    """Rows by key in a CSV file, UTF-8; threads share one, processes do not.

    A cell is one line: ends of lines and other control characters in it become spaces. A cell that a spreadsheet would
    take for a formula (``=``, ``+``, ``-`` or ``@`` first) has an apostrophe before it in the file, not in the rows.

    Args:
        path: of the file; it need not be there.
        columns: in their order in the file.
        key: the column, or the columns together, that tell rows apart; none of them can be empty.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], key: str | tuple[str, ...]) -> None:
        self.path = path
        self.columns = columns
        self._key = (key,) if isinstance(key, str) else key
        self._lock = threading.Lock()
        self._sound = False

    def rows(self) -> dict[str, dict[str, str]]:
        """Key → its row, in the file's order; the last row of a key counts. A last line cut short is left out.

        The key is that column's cell, or those columns' cells with spaces between.

        Raises:
            DatasetError: the file is another table.
        """
        with self._lock:
            return self._read()

    def append(self, row: Mapping[str, object]) -> None:
        """Write a row; columns that are not given are empty. Once this returns, a kill does not lose it.

        Raises:
            DatasetError: the file is another table.
        """
        with self._lock:
            if not self._sound:
                self._mend()
            self._sound = False  # if a full disk cuts the line short
            with self.path.open("ab") as file:
                file.write(_line([_written(row.get(column, "")) for column in self.columns]))
            self._sound = True

    def finish(self) -> None:
        """Write the file anew: a row a key, sorted by its columns from the left, in one step.

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

    def _mend(self) -> None:
        """Leave the file so that a line can be added: with our columns, its last line whole."""
        header = _line(self.columns)
        content = self.path.read_bytes() if self.path.exists() else b""
        if not content.startswith(header) or not content.endswith(_LINE_END):
            self._replace(self._read().values())
        self._sound = True

    def _replace(self, rows: Iterable[Mapping[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f"{self.path.name}.part")
        lines = [_line(self.columns)]
        lines += [_line([_written(row[column]) for column in self.columns]) for row in rows]
        aside.write_bytes(b"".join(lines))
        os.replace(aside, self.path)


def _line(cells: Iterable[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=_LINE_END.decode()).writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _written(value: object) -> str:
    cell = _CONTROL.sub(" ", str(value)[:_LONGEST_CELL])
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _read_back(cell: str) -> str:
    return cell[1:] if _HIDDEN_FORMULA.match(cell) else cell
