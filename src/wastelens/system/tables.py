"""CSV tables: every field quoted, and no cell that a spreadsheet takes for a formula.

Every field is quoted because Python's writer leaves a lone carriage return bare before 3.13, and readers take it for
the end of a row. Tables that people open begin a cell such as ``=cmd()`` with an apostrophe, which spreadsheets show as
text; tables that this package reads back as data (``labels.csv`` and the like) hold all cells as they are.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", re.IGNORECASE)


def csv_text(frame: pd.DataFrame) -> str:
    """Return a table as CSV, with every field quoted and without its index."""
    text: str = frame.to_csv(index=False, quoting=csv.QUOTE_ALL, lineterminator="\n")
    return text


def write_csv(frame: pd.DataFrame, path: Path, *, errors: str = "strict") -> None:
    """Write a table as CSV; errors: how to encode names that are not text."""
    path.write_bytes(csv_text(frame).encode("utf-8", errors))


def for_spreadsheets(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts no spreadsheet takes for formulas."""
    from pandas.api.types import is_numeric_dtype

    texts = [name for name in frame.columns if not is_numeric_dtype(frame[name])]
    cells = {name: [as_text(cell) if isinstance(cell, str) else cell for cell in frame[name]] for name in texts}
    return frame.assign(**cells).rename(columns=lambda name: as_text(str(name)))


def as_text(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would take for a formula."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def from_text(cell: str) -> str:
    """Undo :func:`as_text`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
