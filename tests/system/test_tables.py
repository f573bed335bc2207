"""Tables survive any name, and begin no cell of a spreadsheet with a formula."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from wastelens.system.tables import as_text, csv_text, for_spreadsheets, from_text, write_csv


def test_any_name_comes_back(tmp_path: Path) -> None:
    names = ["a\rb.jpg", "a\nb.jpg", "a\r\nb.jpg", 'a"b,c.jpg', " a ", "", "NA", "=1+1", "صورة.jpg"]
    write_csv(pd.DataFrame({"file_name": names, "number": range(len(names))}), tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv", dtype={"file_name": str}, keep_default_na=False)
    assert read["file_name"].tolist() == names
    assert read["number"].tolist() == list(range(len(names)))


@pytest.mark.parametrize("cell", ["=1+1", "+A1", "-cmd()", "@x", "'=1", "\t=1", "\r=1", "-1+2"])
def test_formulas_become_text_and_come_back(cell: str) -> None:
    assert as_text(cell).startswith("'")
    assert from_text(as_text(cell)) == cell


@pytest.mark.parametrize("cell", ["a=1", "-1.5", "+3e-4", "", "'tis", "1"])
def test_other_cells_stay(cell: str) -> None:
    assert as_text(cell) == from_text(cell) == cell


def test_numbers_of_a_table_stay() -> None:
    frame = pd.DataFrame({"=name": ["=1", "x"], "value": [-1.5, 2.0], "mixed": [-1, "-x"]})
    assert csv_text(for_spreadsheets(frame)) == ('"\'=name","value","mixed"\n"\'=1","-1.5","-1"\n"x","2.0","\'-x"\n')
