"""A CSV file of photos' names and labels: a 0/1 column a label, or one column of labels' names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from wastelens.data.coco import CocoDataset
from wastelens.data.digests import file_digest
from wastelens.data.layouts.layout import Layout, Marked, assemble, name_below
from wastelens.data.materials import label_name
from wastelens.data.photo_files import files_called
from wastelens.errors import AnnotationsError

LABELS = "labels.csv"
_LISTS_OF_OURS = ("download.csv", "collected.csv")  # of what was fetched: they tell no labels
FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_LABEL_COLUMNS = ("labels", "label", "category", "class")
_BETWEEN_LABELS = re.compile(r"[;|,]")
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True}


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
        return f"labels by file name in {self.file}"

    def read(self) -> CocoDataset:
        """Each row's photo and labels; rows of one photo are taken together where labels stand as names."""
        photos: dict[str, list[Marked]] = {}
        for _, name, _, labels in self._labelled():
            photos.setdefault(name, []).extend(Marked(label) for label in labels)
        distinct = {name: list({marked.label: marked for marked in marks}.values()) for name, marks in photos.items()}
        return assemble(self.file, self.root, distinct, has_outlines=False)

    def _labelled(self) -> Iterator[tuple[int, str, dict[str, str], list[str]]]:
        """Each row as line, photo's name, all its cells, labels."""
        rows = self._rows()
        _, columns = next(rows)
        file_column = _named(columns, FILE_COLUMNS)
        if not file_column:
            raise self._error(1, f"has no column {', '.join(FILE_COLUMNS)}", "Name the column of photos' names so")
        label_column = _named(columns, _LABEL_COLUMNS)
        flags = [name for name in columns if name and name.lower() not in FILE_COLUMNS]
        if not flags:
            raise self._error(1, "has no column of labels", "Add a 0/1 column a label, or one column 'labels'")
        line_of: dict[str, int] = {}
        for line, cells in rows:
            row = dict(zip(columns, cells, strict=True))
            name = self._photo(line, row[file_column])
            if name in line_of and not label_column:
                raise self._error(line, f"'{name}' stands in line {line_of[name]} too", "Keep one of the lines")
            line_of[name] = line
            if label_column:
                labels = [label_name(label) for label in _BETWEEN_LABELS.split(row[label_column])]
            else:
                labels = [label_name(flag) for flag in flags if self._is_set(line, flag, row[flag])]
            yield line, name, row, [label for label in labels if label]
        if not line_of:
            raise self._error(1, "names no photo", "Add a line a photo")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and stripped cells of each line that is not empty, the header first."""
        try:
            with self.file.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=_delimiter(file.readline()))
                file.seek(0)
                columns: list[str] = []
                for cells in reader:
                    stripped = [cell.strip() for cell in cells]
                    if not any(stripped):
                        continue
                    if columns and len(cells) != len(columns):
                        fact = f"has {len(cells)} cells, the first line {len(columns)}"
                        raise self._error(
                            reader.line_num, fact, "Give every line as many; quote labels that hold a comma"
                        )
                    self._refuse_repeated_column(stripped if not columns else [])
                    columns = columns or stripped
                    yield reader.line_num, stripped
        except OSError as error:
            raise AnnotationsError(
                f"{self.file}: cannot be read ({error.strerror}). Mend the file or its permissions."
            ) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise AnnotationsError(f"{self.file}: no CSV text ({error}). Save it as UTF-8 CSV.") from None
        if not columns:
            raise AnnotationsError(f"{self.file}: the file is empty. Add a first line of columns, and a line a photo.")

    def _refuse_repeated_column(self, columns: list[str]) -> None:
        repeated = next((name for name in columns if name and columns.count(name) > 1), "")
        if repeated:
            raise self._error(1, f"has the column '{repeated}' twice", "Rename one of them")

    def _photo(self, line: int, text: str) -> str:
        if not text:
            raise self._error(line, "names no photo", "Write its file name, or remove the line")
        name = name_below(self.root, text)
        if name is None:
            raise self._error(line, f"'{text}' leaves the dataset's folder", "Use a path below it, like 'photos/1.jpg'")
        return name

    def _is_set(self, line: int, column: str, text: str) -> bool:
        if text not in _FLAGS:
            raise self._error(
                line,
                f"column '{column}' holds '{text[:40]}', which is neither 0 nor 1",
                "Correct it, or remove the column",
            )
        return _FLAGS[text]

    def _error(self, line: int, fact: str, fix: str) -> AnnotationsError:
        return AnnotationsError(f"{self.file}, line {line}: {fact}. {fix}.")

    def digest(self) -> str:
        """Of the file."""
        return file_digest(self.file)

    def of_label(self, label: str) -> str:
        """A label, and the file."""
        return f"{self.file}: label '{label}'"

    def image_columns(self) -> list[dict[str, Any]]:
        """The cells of each photo's last row."""
        identity = {image.file_name: image.id for image in self.read().images}
        of_photo = {name: {**cells, "id": identity[name]} for _, name, cells, _ in self._labelled()}
        return list(of_photo.values())

    def first_photo(self) -> str:
        """The name of its first photo; nothing where the first line is not of a photo and its labels."""
        try:
            return next(name for _, name, _, _ in self._labelled())
        except AnnotationsError:
            return ""

    def is_other_list(self) -> bool:
        """Whether it tells something else of photos than their labels: where they were taken, say."""
        return self.file.name != LABELS and not self.first_photo()


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
        with file.open(encoding="utf-8-sig", newline="") as opened:
            header = opened.readline(1 << 16)
        columns = next(csv.reader([header], delimiter=_delimiter(header)), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return bool(_named([column.strip() for column in columns], FILE_COLUMNS))
