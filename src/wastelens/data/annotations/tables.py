"""Read tables as people and spreadsheets save them, for labels and for mappings."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from wastelens.system.files import read_text

LARGEST_BYTES = 100_000_000
MOST_COLUMNS = 10_000
MOST_CELLS = 20_000_000
_LONGEST_HEADER_BYTES = 1_000_000
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?\s*', re.IGNORECASE)  # written for Excel above the header
_QUOTED = re.compile(r'"[^"]*"')


class TextTable(NamedTuple):
    """A table's column names, and the number and stripped cells of each further line that is not blank."""

    header: list[str]
    lines: list[tuple[int, list[str]]]


def read_table(path: Path, *, errors: str = "strict") -> TextTable:
    """Read a table: comma, semicolon or tab; UTF-8 or UTF-16; with or without ``sep=;`` in its first line.

    Column names are stripped, with composed accents; blank cells beyond the last column are dropped.

    Args:
        path: the file.
        errors: how to handle bytes that are no text, as in ``bytes.decode``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, empty, or no such table; the reason, to follow the file's name.
    """
    try:
        rows = _rows(read_text(path, LARGEST_BYTES, errors=errors))
    except ValueError as error:
        raise ValueError(f"is not CSV text (it {error})") from None
    _, header = next(rows, (0, []))
    if not header:
        raise ValueError("is empty")
    lines: list[tuple[int, list[str]]] = []
    cells = len(header)
    for number, row in rows:
        cells += len(row)
        if cells > MOST_CELLS:
            raise ValueError(f"has more than {MOST_CELLS:,} cells")
        while len(row) > len(header) and not row[-1]:
            row.pop()
        lines.append((number, row))
    return TextTable([unicodedata.normalize("NFC", name) for name in header], lines)


def read_header(path: Path) -> list[str]:
    """Return the column names of a table, [] if it cannot be read."""
    try:
        _, header = next(_rows(read_text(path, _LONGEST_HEADER_BYTES, errors="replace", shorten=True)), (0, []))
    except (OSError, ValueError):
        return []
    return [unicodedata.normalize("NFC", name) for name in header]


def named_column(columns: Sequence[str], names: Sequence[str]) -> str:
    """Return the column with the first of these names, in upper or lower case; "" if there is none."""
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), "")


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the stripped cells of each line that is not blank."""
    lines = io.StringIO(text, newline="")
    first = _first_line(lines)
    told = _SEPARATOR_LINE.fullmatch(first)
    header = _first_line(lines) if told else first
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=told[1] if told else _delimiter(header), strict=True)
    try:
        for cells in reader:
            if len(cells) > MOST_COLUMNS:
                raise ValueError(f"has more than {MOST_COLUMNS:,} columns in line {reader.line_num}")
            stripped = [cell.strip() for cell in cells]
            if any(stripped) and not (told and reader.line_num == 1):
                yield reader.line_num, stripped
    except csv.Error as error:
        raise ValueError(f"is not CSV text (line {reader.line_num}: {error})") from None


def _first_line(lines: io.StringIO) -> str:
    """Return the next line that is not blank; "" at the end."""
    return next((line for line in lines if line.strip()), "")


def _delimiter(header: str) -> str:
    bare = _QUOTED.sub("", header)
    return max(",;\t", key=bare.count)  # spreadsheets write semicolons in some languages
