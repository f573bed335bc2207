"""CSV tables of photos' names and labels: a column per label, or one column of label names."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from wastelens.data.annotations.coco import CocoDataset, flat_name
from wastelens.data.annotations.layout import (
    LAYOUTS,
    OWN_SPLIT,
    Layout,
    Marked,
    assemble,
    combined_digest,
    first_names,
    name_below,
    split_folders,
)
from wastelens.data.annotations.materials import label_name
from wastelens.data.annotations.tables import TextTable, named_column, read_header, read_table
from wastelens.data.photos.files import exists, files_called, find_photo
from wastelens.errors import AnnotationsError
from wastelens.system.digests import file_digest
from wastelens.system.text import one_line

LABELS = "labels.csv"
_LISTS_OF_OURS = ("download.csv", "collected.csv")  # of fetched files, without labels
FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_LABEL_COLUMNS = ("labels", "label", "category", "class")
_BETWEEN_LABELS = re.compile(r"[;|,]")
_YES, _NO = ("1", "true", "yes", "y", "x"), ("0", "false", "no", "n")
_COUNT = re.compile(r"(\d{1,9})([.,]0{1,9})?")
_NUMBER = re.compile(r"-?\d{1,18}([.,]\d{1,18})?")
_FLAGS = {"0", "1", "0.0", "1.0", "yes", "no", "true", "false"}  # a column of these holds labels without being named


class _Columns(NamedTuple):
    """The columns of a table by their use; a table with a column of label names has no columns of one label each."""

    file: str
    names: str  # "" if there is none
    flags: tuple[str, ...]  # a label each
    others: tuple[str, ...]  # to group by


class _Row(NamedTuple):
    """A line of a table: its file and number, the photo's name below the root, and the cell of each column."""

    file: Path
    line: int
    photo: str
    place_of: dict[str, int]  # column → its place among the cells
    cells: list[str]

    def cell(self, column: str) -> str:
        return self.cells[self.place_of[column]]


@LAYOUTS.register("label_table")
@dataclass(frozen=True)
class LabelCsv(Layout):
    """Photos with any number of labels each, including none; without outlines.

    Several files, one in the folder of each split, are joined.
    """

    files: tuple[Path, ...]
    # Names in lower case: a column that is called so is a label, whatever it holds.
    known: frozenset[str] = field(default=frozenset(), compare=False)
    kind: ClassVar[str] = "label_table"
    title: ClassVar[str] = "labels"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    @classmethod
    def find(cls, folder: Path) -> list[LabelCsv]:
        """Return ``labels.csv``, or every CSV file with a column of photo names, or those in the splits' folders."""
        if (folder / LABELS).is_file():
            return [cls.of_file(folder / LABELS)]
        if tables := _tables_in(folder):
            return [cls.of_file(file) for file in tables]
        of_name: dict[str, list[Path]] = {}
        for split in split_folders(entry.name for entry in folder.iterdir() if entry.is_dir()):
            for file in _tables_in(folder / split):
                of_name.setdefault(file.name.lower(), []).append(file)
        return [cls(folder, tuple(files)) for files in of_name.values()]

    @classmethod
    def of_file(cls, file: Path) -> LabelCsv:
        return cls(file.parent, (file,))

    @classmethod
    def sought(cls, folder: Path) -> str:
        """Return the column that is needed, and the columns of a table that lacks it."""
        text = f"CSV with a column {FILE_COLUMNS[0]} or the like"
        others = (file for file in files_called(folder, ".csv") if file.name not in _LISTS_OF_OURS)
        without = next((f" ({file.name} has {first_names(read_header(file))})" for file in others), "")
        return text + without

    def told(self, labels: frozenset[str]) -> LabelCsv:
        return replace(self, known=frozenset(label.casefold() for label in labels))

    @property
    def annotations(self) -> Path:
        return self.files[0]

    @property
    def recognised(self) -> str:
        text = f"labels by file name in {self.files[0]}"
        if len(self.files) > 1:
            names = ", ".join(file.relative_to(self.root).as_posix() for file in self.files)
            text = f"labels by file name in {len(self.files)} files of {self.root} ({names}); {OWN_SPLIT}"
        with contextlib.suppress(AnnotationsError):  # reported when the labels are read
            if others := self._content[0].others:
                return f"{text}; without labels, for group_by only: {first_names(others)}"
        return text

    def read(self) -> CocoDataset:
        """Read each row's photo and labels; with a column of label names, a photo may have several rows."""
        columns, rows = self._content
        self._refuse_unclear_blanks(columns, rows)
        photos: dict[str, dict[str, Marked]] = {}
        for row in rows:
            labels = self._named_labels(row.cell(columns.names)) if columns.names else self._set(row, columns.flags)
            photos.setdefault(row.photo, {}).update({label: Marked(label) for label in labels})
        distinct = {name: list(marks.values()) for name, marks in photos.items()}
        return assemble(self.files[0], self.root, distinct, has_outlines=False)

    def _named_labels(self, cell: str) -> list[str]:
        """Return the labels that a cell names; a label that the mapping knows may contain a comma."""
        if label_name(cell).casefold() in self.known:
            return [label_name(cell)]
        return [label for name in _BETWEEN_LABELS.split(cell) if (label := label_name(name))]

    def _set(self, row: _Row, columns: Sequence[str]) -> list[str]:
        """Return the columns that say yes about a row's photo."""
        cells = ((column, row.cell(column)) for column in columns)
        return [column for column, cell in cells if cell and self._is_yes(row, column, cell)]

    def _is_yes(self, row: _Row, column: str, cell: str) -> bool:
        told = _told(cell)
        if told is None:
            raise _error(
                row.file,
                row.line,
                f"column '{column}' holds '{cell[:40]}', which is neither 0 nor 1, a count, yes or no",
                "Correct it, or remove the column; a column for group_by must not contain 0 or 1",
            )
        return told

    def _refuse_unclear_blanks(self, columns: _Columns, rows: list[_Row]) -> None:
        """Raise AnnotationsError for a blank cell in a column that says no elsewhere: it may mean no, or unknown."""
        for column in columns.flags:
            blank = next((row for row in rows if not row.cell(column)), None)
            if blank and any(_told(row.cell(column)) is False for row in rows if row.cell(column)):
                raise _error(
                    blank.file,
                    blank.line,
                    f"column '{column}' holds '', which is neither 0 nor 1, and has a 0 elsewhere",
                    "Write 0 in blank cells that mean no, and remove lines of photos that nobody looked at",
                )

    @cached_property
    def _content(self) -> tuple[_Columns, list[_Row]]:
        tables = [(file, self._table(file)) for file in self.files]
        if not any(table.lines for _, table in tables):
            raise _error(self.files[0], 1, "names no photo", "Add a line per photo")
        columns = self._columns(tables)
        rows = [row for file, table in tables for row in self._rows(file, table, columns.file)]
        first: dict[str, _Row] = {}
        for row in rows:
            if not columns.names and (before := first.setdefault(row.photo, row)) is not row:
                where = "" if before.file == row.file else f" of {before.file}"
                raise _error(
                    row.file, row.line, f"'{row.photo}' is in line {before.line}{where} too", "Keep one of them"
                )
        return columns, rows

    def _table(self, file: Path, errors: str = "strict") -> TextTable:
        try:
            return read_table(file, errors=errors)
        except OSError as error:
            raise AnnotationsError(
                f"{file}: cannot be read ({error.strerror}). Repair the file or its permissions."
            ) from None
        except ValueError as error:
            raise AnnotationsError(
                f"{file}: {error}. Give it as UTF-8 CSV, with a line of column names and a line per photo."
            ) from None

    def _columns(self, tables: list[tuple[Path, TextTable]]) -> _Columns:
        """Sort the columns by use. A column of label names takes precedence over columns of one label each."""
        for file, table in tables:
            _check_header(file, table.header, self.files[0], tables[0][1].header)
        file, header = self.files[0], tables[0][1].header
        files, names = named_column(header, FILE_COLUMNS), named_column(header, _LABEL_COLUMNS)
        held: dict[str, set[str]] = {}
        for _, table in tables:
            for name, cells in _held(table).items():
                held.setdefault(name, set()).update(cells)
        if not held:
            raise _error(file, 1, "has no column of labels", "Add a 0/1 column per label, or one column 'labels'")
        if names:
            others = [name for name in held if name != names]
            mapped = {name for name in others if name.casefold() in self.known}
            if flags := [name for name in others if _holds_flags(held[name]) or name in mapped]:
                fact = (
                    f"has label names in the column '{names}' and 0 or 1 in {first_names(flags)}: two ways to read it"
                )
                raise _error(file, 1, fact, f"Rename or remove '{names}', or the others")
            return _Columns(files, names, (), tuple(name for name in others if held[name] - {""}))
        flags = self._flags(held)
        if not flags:
            numbers = [
                name for name, cells in held.items() if cells - {""} and all(map(_COUNT.fullmatch, cells - {""}))
            ]
            unclear = f"; the numbers in {first_names(numbers)} may be counts" if numbers else ""
            fact = (
                f"has no column of labels: none of {first_names(list(held))} is named in the mapping or holds 0 and 1"
            )
            fix = "Give a mapping (materials=MY.csv) with a row, category and material, for each column that is a label"
            raise _error(file, 1, fact + unclear, fix)
        others = [name for name in held if name not in flags and held[name] - {""}]
        return _Columns(files, "", tuple(flags), tuple(others))

    def _flags(self, held: dict[str, set[str]]) -> list[str]:
        """Return the columns that are labels: named in the mapping, or holding yes and no.

        A column that holds other words beside is a label too, and is refused when it is read. Other numbers may be
        counts as well as ids: the mapping has to tell.
        """
        return [
            name
            for name, cells in held.items()
            if name.casefold() in self.known or (cells & _FLAGS and not _holds_numbers(cells))
        ]

    def _rows(self, file: Path, table: TextTable, file_column: str) -> Iterator[_Row]:
        place_of = {name: place for place, name in enumerate(table.header)}
        place = next(place_of[name] for name in table.header if name.lower() == file_column.lower())
        folder = file.parent.relative_to(self.root).as_posix()
        for line, cells in table.lines:
            if len(cells) != len(table.header):
                fact = f"has {len(cells)} cells, the first line {len(table.header)}"
                fix = "Give every line the same number; quote labels that contain a comma"
                raise _error(file, line, fact, fix)
            yield _Row(file, line, self._photo(file, line, folder, cells[place]), place_of, cells)

    def _photo(self, file: Path, line: int, folder: str, text: str) -> str:
        """Return the name below the root of the photo that a cell names: beside the table, or else in the root."""
        texts = [text] if folder == "." or Path(text).is_absolute() else [f"{folder}/{text}", text]
        names = [name_below(self.root, one) for one in texts]
        if None in names:
            fact = f"'{text}' leaves the dataset's folder"
            raise _error(file, line, fact, "Use a path below it, like 'photos/1.jpg'")
        if not text or "." in names:
            raise _error(file, line, "names no photo", "Write its file name, or remove the line")
        there = (name for name in names if name and len(names) > 1 and exists(find_photo(self.root, name)))
        return next(there, str(names[0]))

    def digest(self) -> str:
        if len(self.files) == 1:
            return file_digest(self.files[0])
        return combined_digest((file.relative_to(self.root).as_posix(), file_digest(file)) for file in self.files)

    def label_files(self) -> list[Path]:
        return list(self.files)

    def of_label(self, label: str) -> str:
        return f"{self.files[0]}: label '{one_line(label, 100)}'"

    def image_columns(self) -> list[tuple[str, dict[str, Any]]]:
        rows = self._content[1]
        return [(flat_name(row.photo), dict(zip(row.place_of, row.cells, strict=False))) for row in rows]

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
        if self.files[0].name == LABELS:
            return True
        try:
            tables = [self._table(file, errors="replace") for file in self.files]
        except AnnotationsError:
            return True
        return any(
            bool(named_column(table.header, _LABEL_COLUMNS)) or bool(self._flags(_held(table))) for table in tables
        )


def _tables_in(folder: Path) -> list[Path]:
    """Return a folder's CSV files with a column of photo names."""
    files = (file for file in files_called(folder, ".csv") if file.name not in _LISTS_OF_OURS)
    return [file for file in files if named_column(read_header(file), FILE_COLUMNS)]


def _check_header(file: Path, header: list[str], first: Path, expected: list[str]) -> None:
    if repeated := [name for name, times in Counter(header).items() if name and times > 1]:
        raise _error(file, 1, f"has the column '{repeated[0]}' twice", "Rename one of them")
    if not named_column(header, FILE_COLUMNS):
        fix = "Give the column of photo names one of these names"
        raise _error(file, 1, f"has no column {', '.join(FILE_COLUMNS)}", fix)
    if unlike := sorted({name for name in {*header} ^ {*expected} if name}):
        raise _error(file, 1, f"and {first} do not have the same columns: {first_names(unlike)}", "Give both the same")


def _error(file: Path, line: int, fact: str, fix: str) -> AnnotationsError:
    return AnnotationsError(f"{file}, line {line}: {one_line(fact)}. {fix}.")


def _told(cell: str) -> bool | None:
    """Return whether a cell says yes (1, a count, x), or no (0); None if it says neither."""
    lower = cell.lower()
    if lower in _YES or lower in _NO:
        return lower in _YES
    count = _COUNT.fullmatch(cell)
    return int(count[1]) > 0 if count else None


def _holds_flags(cells: set[str]) -> bool:
    return bool(cells - {""}) and cells <= {*_FLAGS, ""}


def _holds_numbers(cells: set[str]) -> bool:
    """Return whether a column holds numbers, and others than 0 and 1."""
    return not _holds_flags(cells) and all(_NUMBER.fullmatch(cell) for cell in cells if cell)


def _held(table: TextTable) -> dict[str, set[str]]:
    """Return column → its distinct cells in lower case, for all named columns but those of photo names."""
    return {
        name: {cells[at].lower() for _, cells in table.lines if at < len(cells)}
        for at, name in enumerate(table.header)
        if name and name.lower() not in FILE_COLUMNS
    }
