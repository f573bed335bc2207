"""A CSV file of photos' names and labels: a 0/1 column a label, or one column of labels' names."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from wastelens.data.annotations.coco import CocoDataset, flat_name
from wastelens.data.annotations.layout import Layout, Marked, assemble, listed, name_below
from wastelens.data.annotations.materials import label_name
from wastelens.data.photos.files import files_called
from wastelens.errors import AnnotationsError
from wastelens.system.digests import file_digest

LABELS = "labels.csv"
_LISTS_OF_OURS = ("download.csv", "collected.csv")  # of what was fetched: they tell no labels
FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_LABEL_COLUMNS = ("labels", "label", "category", "class")
_BETWEEN_LABELS = re.compile(r"[;|,]")
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True}
_LIKE_FLAGS = {*_FLAGS, "yes", "no", "true", "false"}  # a column of such cells is of a label, if a wrong one

_Lines = list[tuple[int, list[str]]]  # number and stripped cells of each line that is not empty


@dataclass(frozen=True)
class _Columns:
    """What the columns of a table are.

    Attributes:
        file: that of the photos' names.
        names: that of labels' names, or nothing.
        flags: the 0/1 columns, a label each, where there is none of names.
        others: the rest, for groups.
    """

    file: str
    names: str
    flags: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    """A line of a table: its number, the photo's name below the root, the cell of each column."""

    line: int
    photo: str
    cells: dict[str, str]


@dataclass(frozen=True)
class LabelTable(Layout):
    """Photos with any number of labels, none among them; without outlines."""

    file: Path
    kind: ClassVar[str] = "label_table"

    @property
    def annotations(self) -> Path:
        """The CSV file."""
        return self.file

    @property
    def recognised(self) -> str:
        """What was recognised."""
        text = f"labels by file name in {self.file}"
        with contextlib.suppress(AnnotationsError):  # it is told when the labels are read
            if others := self._content[0].others:
                return f"{text}; without labels, for group_by only: {listed(others)}"
        return text

    def read(self) -> CocoDataset:
        """Each row's photo and labels; rows of one photo are taken together where labels stand as names."""
        columns, rows = self._content
        photos: dict[str, dict[str, Marked]] = {}
        for row in rows:
            labels = self._labels(row, columns)
            photos.setdefault(row.photo, {}).update({label: Marked(label) for label in labels})
        distinct = {name: list(marks.values()) for name, marks in photos.items()}
        return assemble(self.file, self.root, distinct, has_outlines=False)

    def _labels(self, row: _Row, columns: _Columns) -> list[str]:
        if columns.names:
            names = (label_name(label) for label in _BETWEEN_LABELS.split(row.cells[columns.names]))
            return [name for name in names if name]
        return [label_name(flag) for flag in columns.flags if self._is_set(row, flag)]

    def _is_set(self, row: _Row, column: str) -> bool:
        cell = row.cells[column]
        if cell not in _FLAGS:
            raise self._error(
                row.line,
                f"column '{column}' holds '{cell[:40]}', which is neither 0 nor 1",
                "Correct it, or remove the column; one that is for group_by only has no cell with 0 or 1",
            )
        return _FLAGS[cell]

    @cached_property
    def _content(self) -> tuple[_Columns, list[_Row]]:
        header, lines = self._lines()
        columns = self._columns(header, lines)
        rows = [self._row(number, header, cells, columns.file) for number, cells in lines]
        if not rows:
            raise self._error(1, "names no photo", "Add a line a photo")
        line_of: dict[str, int] = {}
        for row in rows:
            if row.photo in line_of and not columns.names:
                fact = f"'{row.photo}' stands in line {line_of[row.photo]} too"
                raise self._error(row.line, fact, "Keep one of the lines")
            line_of[row.photo] = row.line
        return columns, rows

    def _lines(self, errors: str = "strict") -> tuple[list[str], _Lines]:
        """The columns' names and all further lines; errors: what to do about bytes that are no UTF-8."""
        try:
            with self.file.open(encoding="utf-8-sig", errors=errors, newline="") as file:
                reader = csv.reader(file, delimiter=_delimiter(file.readline()))
                file.seek(0)
                stripped = ((reader.line_num, [cell.strip() for cell in cells]) for cells in reader)
                lines = [(number, cells) for number, cells in stripped if any(cells)]
        except OSError as error:
            raise AnnotationsError(
                f"{self.file}: cannot be read ({error.strerror}). Mend the file or its permissions."
            ) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise AnnotationsError(f"{self.file}: no CSV text ({error}). Save it as UTF-8 CSV.") from None
        if not lines:
            raise AnnotationsError(f"{self.file}: the file is empty. Add a first line of columns, and a line a photo.")
        return lines[0][1], lines[1:]

    def _columns(self, header: list[str], lines: _Lines) -> _Columns:
        """Columns of labels' names come first; 0/1 columns have a 0 or 1, or nothing at all, which is then refused."""
        repeated = next((name for name in header if name and header.count(name) > 1), "")
        if repeated:
            raise self._error(1, f"has the column '{repeated}' twice", "Rename one of them")
        file, names = _named(header, FILE_COLUMNS), _named(header, _LABEL_COLUMNS)
        if not file:
            raise self._error(1, f"has no column {', '.join(FILE_COLUMNS)}", "Name the column of photos' names so")
        held = _held(header, lines)
        if not held:
            raise self._error(1, "has no column of labels", "Add a 0/1 column a label, or one column 'labels'")
        if names:
            others = tuple(name for name in held if name != names)
            self._refuse_two_ways(names, [name for name in others if held[name] - {""} and held[name] <= {*_FLAGS, ""}])
            return _Columns(file, names, (), others)
        flags = tuple(name for name, cells in held.items() if cells & _LIKE_FLAGS or not any(cells)) or tuple(held)
        return _Columns(file, "", flags, tuple(name for name in held if name not in flags))

    def _refuse_two_ways(self, names: str, flags: Sequence[str]) -> None:
        if flags:
            fact = f"has labels' names in the column '{names}' and 0 or 1 in {listed(flags)}: two ways to read it"
            raise self._error(1, fact, f"Rename or remove '{names}', or the others")

    def _row(self, line: int, header: list[str], cells: list[str], file_column: str) -> _Row:
        if len(cells) != len(header):
            fact = f"has {len(cells)} cells, the first line {len(header)}"
            raise self._error(line, fact, "Give every line as many; quote labels that hold a comma")
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
        """Of the file."""
        return file_digest(self.file)

    def of_label(self, label: str) -> str:
        """A label, and the file."""
        return f"{self.file}: label '{label}'"

    def image_columns(self) -> list[tuple[str, dict[str, Any]]]:
        """The cells of each row."""
        return [(flat_name(row.photo), dict(row.cells)) for row in self._content[1]]

    def first_photo(self) -> str:
        """The name of its first photo; nothing where there is none, or the table cannot be read."""
        try:
            return self._content[1][0].photo
        except AnnotationsError:
            return ""

    def tells_labels(self) -> bool:
        """Whether it is of labels, be they right or wrong; other lists tell where photos were taken, say."""
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
    """Column → its distinct cells in lower case, of all columns that have a name and are not of photos' names."""
    return {
        name: {cells[at].lower() for _, cells in lines if at < len(cells)}
        for at, name in enumerate(header)
        if name and name.lower() not in FILE_COLUMNS
    }


def _delimiter(header: str) -> str:
    """What separates the columns: spreadsheets of some languages write semicolons."""
    return max(",;\t", key=header.count)


def _named(columns: list[str], names: tuple[str, ...]) -> str:
    """The column that has the first of these names, in any case; nothing where there is none."""
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), "")


def of_file(file: Path) -> LabelTable:
    """The file that was named."""
    return LabelTable(file.parent, file)


def look(folder: Path) -> list[LabelTable]:
    """``labels.csv``, or every CSV file with a column of photos' names."""
    if (folder / LABELS).is_file():
        return [of_file(folder / LABELS)]
    others = [file for file in files_called(folder, ".csv") if file.name not in _LISTS_OF_OURS]
    return [of_file(file) for file in others if _has_file_column(file)]


def _has_file_column(file: Path) -> bool:
    """Whether the first line of a CSV file has a column of photos' names."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
            header = opened.readline(1 << 16)
        columns = next(csv.reader([header], delimiter=_delimiter(header)), [])
    except (OSError, csv.Error):
        return False
    return bool(_named([column.strip() for column in columns], FILE_COLUMNS))
