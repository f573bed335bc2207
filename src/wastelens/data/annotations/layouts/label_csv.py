"""A CSV file of photos' names and labels: a 0/1 column per label, or one column of label names."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from wastelens.data.annotations.coco import CocoDataset, flat_name
from wastelens.data.annotations.layout import LAYOUTS, Layout, Marked, assemble, first_names, name_below
from wastelens.data.annotations.materials import label_name
from wastelens.data.photos.files import files_called
from wastelens.errors import AnnotationsError
from wastelens.system.files import file_digest

LABELS = "labels.csv"
_LISTS_OF_OURS = ("download.csv", "collected.csv")  # of fetched files, without labels
FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_LABEL_COLUMNS = ("labels", "label", "category", "class")
_BETWEEN_LABELS = re.compile(r"[;|,]")
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True}
_LIKE_FLAGS = {*_FLAGS, "yes", "no", "true", "false"}  # a column with such a cell holds labels, right or wrong

_Lines = list[tuple[int, list[str]]]  # number and stripped cells of each non-empty line


class _Columns(NamedTuple):
    """The columns of a table by their use; a table with a column of label names has no 0/1 columns."""

    file: str
    names: str  # "" if there is none
    flags: tuple[str, ...]
    others: tuple[str, ...]  # to group by


class _Row(NamedTuple):
    """A line of a table: its number, the photo's name below the root, and the cell of each column."""

    line: int
    photo: str
    cells: dict[str, str]


@LAYOUTS.register("label_table")
@dataclass(frozen=True)
class LabelCsv(Layout):
    """Photos with any number of labels each, including none; without outlines."""

    file: Path
    kind: ClassVar[str] = "label_table"
    title: ClassVar[str] = "labels"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    @classmethod
    def find(cls, folder: Path) -> list[LabelCsv]:
        """Return ``labels.csv``, or every CSV file with a column of photo names."""
        if (folder / LABELS).is_file():
            return [cls.of_file(folder / LABELS)]
        others = [file for file in files_called(folder, ".csv") if file.name not in _LISTS_OF_OURS]
        return [cls.of_file(file) for file in others if _has_file_column(file)]

    @classmethod
    def of_file(cls, file: Path) -> LabelCsv:
        return cls(file.parent, file)

    @classmethod
    def sought(cls, folder: Path) -> str:
        return f"CSV with a column {FILE_COLUMNS[0]} or the like"

    @property
    def annotations(self) -> Path:
        return self.file

    @property
    def recognised(self) -> str:
        text = f"labels by file name in {self.file}"
        with contextlib.suppress(AnnotationsError):  # reported when the labels are read
            if others := self._content[0].others:
                return f"{text}; without labels, for group_by only: {first_names(others)}"
        return text

    def read(self) -> CocoDataset:
        """Read each row's photo and labels; with a column of label names, a photo may have several rows."""
        columns, rows = self._content
        photos: dict[str, dict[str, Marked]] = {}
        for row in rows:
            names = _BETWEEN_LABELS.split(row.cells[columns.names]) if columns.names else columns.flags
            labels = (label_name(name) for name in names if columns.names or self._is_set(row, name))
            marks = {label: Marked(label) for label in labels if label}
            photos.setdefault(row.photo, {}).update(marks)
        distinct = {name: list(marks.values()) for name, marks in photos.items()}
        return assemble(self.file, self.root, distinct, has_outlines=False)

    def _is_set(self, row: _Row, column: str) -> bool:
        cell = row.cells[column]
        if cell not in _FLAGS:
            raise self._error(
                row.line,
                f"column '{column}' holds '{cell[:40]}', which is neither 0 nor 1",
                "Correct it, or remove the column; a column for group_by must not contain 0 or 1",
            )
        return _FLAGS[cell]

    @cached_property
    def _content(self) -> tuple[_Columns, list[_Row]]:
        header, lines = self._lines()
        columns = self._columns(header, lines)
        rows = [self._row(number, header, cells, columns.file) for number, cells in lines]
        if not rows:
            raise self._error(1, "names no photo", "Add a line per photo")
        line_of: dict[str, int] = {}
        for row in rows:
            if row.photo in line_of and not columns.names:
                fact = f"'{row.photo}' is in line {line_of[row.photo]} too"
                raise self._error(row.line, fact, "Keep one of the lines")
            line_of[row.photo] = row.line
        return columns, rows

    def _lines(self, errors: str = "strict") -> tuple[list[str], _Lines]:
        """Return the column names and all further lines; errors: how to handle bytes that are not UTF-8."""
        try:
            with self.file.open(encoding="utf-8-sig", errors=errors, newline="") as file:
                reader = csv.reader(file, delimiter=_delimiter(file.readline()))
                file.seek(0)
                stripped = ((reader.line_num, [cell.strip() for cell in cells]) for cells in reader)
                lines = [(number, cells) for number, cells in stripped if any(cells)]
        except OSError as error:
            raise AnnotationsError(
                f"{self.file}: cannot be read ({error.strerror}). Repair the file or its permissions."
            ) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise AnnotationsError(f"{self.file}: not CSV text ({error}). Save it as UTF-8 CSV.") from None
        if not lines:
            raise AnnotationsError(f"{self.file}: the file is empty. Add a line of column names, and a line per photo.")
        return lines[0][1], lines[1:]

    def _columns(self, header: list[str], lines: _Lines) -> _Columns:
        """Sort the columns by use. A column of label names takes precedence over 0/1 columns.

        A column that is empty throughout counts as a 0/1 column, and is refused when it is read.
        """
        repeated = next((name for name in header if name and header.count(name) > 1), "")
        if repeated:
            raise self._error(1, f"has the column '{repeated}' twice", "Rename one of them")
        file, names = _named(header, FILE_COLUMNS), _named(header, _LABEL_COLUMNS)
        if not file:
            raise self._error(
                1, f"has no column {', '.join(FILE_COLUMNS)}", "Give the column of photo names one of these names"
            )
        held = _held(header, lines)
        if not held:
            raise self._error(1, "has no column of labels", "Add a 0/1 column per label, or one column 'labels'")
        if names:
            others = tuple(name for name in held if name != names)
            if flags := [name for name in others if held[name] - {""} and held[name] <= {*_FLAGS, ""}]:
                fact = (
                    f"has label names in the column '{names}' and 0 or 1 in {first_names(flags)}: two ways to read it"
                )
                raise self._error(1, fact, f"Rename or remove '{names}', or the others")
            return _Columns(file, names, (), others)
        columns = tuple(name for name, cells in held.items() if cells & _LIKE_FLAGS or not any(cells)) or tuple(held)
        return _Columns(file, "", columns, tuple(name for name in held if name not in columns))

    def _row(self, line: int, header: list[str], cells: list[str], file_column: str) -> _Row:
        if len(cells) != len(header):
            fact = f"has {len(cells)} cells, the first line {len(header)}"
            raise self._error(line, fact, "Give every line the same number; quote labels that contain a comma")
        named = dict(zip(header, cells, strict=True))
        text = named[file_column]
        name = name_below(self.root, text)
        if name is None:
            raise self._error(line, f"'{text}' leaves the dataset's folder", "Use a path below it, like 'photos/1.jpg'")
        if name == ".":
            raise self._error(line, "names no photo", "Write its file name, or remove the line")
        return _Row(line, name, named)

    def _error(self, line: int, fact: str, fix: str) -> AnnotationsError:
        return AnnotationsError(f"{self.file}, line {line}: {fact}. {fix}.")

    def digest(self) -> str:
        return file_digest(self.file)

    def of_label(self, label: str) -> str:
        return f"{self.file}: label '{label}'"

    def image_columns(self) -> list[tuple[str, dict[str, Any]]]:
        return [(flat_name(row.photo), dict(row.cells)) for row in self._content[1]]

    @property
    def accounts_for_folders(self) -> bool:
        """Whether its photos are in folders; False for a table that cannot be read."""
        try:
            return "/" in self._content[1][0].photo
        except AnnotationsError:
            return False

    @property
    def tells_labels(self) -> bool:
        """Whether it has labels, valid or not; other lists may say where photos were taken."""
        if self.file.name == LABELS:
            return True
        try:
            header, lines = self._lines(errors="replace")
        except AnnotationsError:
            return True
        return bool(_named(header, _LABEL_COLUMNS)) or any(
            cells & _LIKE_FLAGS for cells in _held(header, lines).values()
        )


def _held(header: Sequence[str], lines: _Lines) -> dict[str, set[str]]:
    """Return column → its distinct cells in lower case, for all named columns but those of photo names."""
    return {
        name: {cells[at].lower() for _, cells in lines if at < len(cells)}
        for at, name in enumerate(header)
        if name and name.lower() not in FILE_COLUMNS
    }


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)  # spreadsheets write semicolons in some languages


def _named(columns: list[str], names: tuple[str, ...]) -> str:
    """Return the column with the first of these names, in upper or lower case; "" if there is none."""
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), "")


def _has_file_column(file: Path) -> bool:
    """Return whether the first line of a CSV file has a column of photo names."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
            header = opened.readline(1 << 16)
        columns = next(csv.reader([header], delimiter=_delimiter(header)), [])
    except (OSError, csv.Error):
        return False
    return bool(_named([column.strip() for column in columns], FILE_COLUMNS))
