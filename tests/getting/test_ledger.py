"""The list that grows by a row per photo."""

from __future__ import annotations

import csv
import errno
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from wastelens.errors import DatasetError
from wastelens.getting.ledger import CsvLedger

COLUMNS = ("name", "status", "reason")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "list.csv"


def ledger(path: Path) -> CsvLedger:
    return CsvLedger(path, COLUMNS, "name")


def row(name: str, status: str = "done", reason: str = "") -> dict[str, str]:
    return {"name": name, "status": status, "reason": reason}


def test_rows_come_back_whatever_is_in_them(path: Path) -> None:
    rows = [
        row("a.jpg", reason='says "no", twice; naïve — 写真 🗑'),
        row("=1+1", reason="@SUM(A1)"),
        row("-b", reason="'=already quoted"),
        row("'c", reason="+49"),
    ]
    for one in rows:
        ledger(path).append(one)
    assert list(ledger(path).rows().values()) == rows


def test_no_cell_is_a_formula_to_a_spreadsheet(path: Path) -> None:
    for start in "=+-@":
        ledger(path).append(row(f"{start}cmd", reason=f"'{start}x"))
    cells = [cell for cells in csv.reader(path.read_text(encoding="utf-8").splitlines()) for cell in cells]
    assert cells
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@"))]


def test_a_cell_is_one_line(path: Path) -> None:
    ledger(path).append(row("a", reason="two\r\nlines\x00and\u2028more"))
    assert ledger(path).rows()["a"]["reason"] == "two lines and more"
    assert path.read_bytes().count(b"\n") == 2


def test_no_cell_is_too_long_to_be_read_again(path: Path) -> None:
    ledger(path).append(row("a", reason="x" * 1_000_000))
    ledger(path).append(row("b"))
    assert list(ledger(path).rows()) == ["a", "b"]


def test_the_last_row_of_a_key_counts(path: Path) -> None:
    for status in ("failed", "failed", "done"):
        ledger(path).append(row("a", status))
    assert ledger(path).rows() == {"a": row("a")}


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_kill_at_any_byte_loses_only_the_row_that_was_being_written(path: Path, cut: int) -> None:
    ledger(path).append(row("a"))
    ledger(path).append(row("b", reason='"'))
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(ledger(path).rows()) == ["a"]
    after = ledger(path)
    after.append(row("c"))
    assert list(ledger(path).rows()) == ["a", "c"]


@pytest.mark.parametrize("cut", [1, 5, 17])
def test_a_kill_within_the_header(path: Path, cut: int) -> None:
    path.parent.mkdir()
    path.write_bytes(b"name,status,reason\r\n"[:cut])
    assert ledger(path).rows() == {}
    ledger(path).append(row("a"))
    assert list(ledger(path).rows()) == ["a"]


def test_what_a_full_disk_cut_short_spoils_no_later_row(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ledger(path)
    one.append(row("a"))
    before = path.stat().st_size
    real = Path.open

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(bytes(content)[:3])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode="r", **options: Full(path, mode) if "a" in mode else real(path))
        with pytest.raises(OSError, match="No space left"):
            one.append(row("b"))
    assert path.stat().st_size == before + 3
    one.append(row("c"))
    assert set(ledger(path).rows()) == {"a", "c"}


def test_the_end_is_sorted_and_the_same_whatever_the_order(path: Path, tmp_path: Path) -> None:
    names = ["b", "a", "c", "a"]
    for name in names:
        ledger(path).append(row(name))
    ledger(path).finish()
    other = tmp_path / "other.csv"
    for name in reversed(names):
        ledger(other).append(row(name))
    ledger(other).finish()
    assert path.read_bytes() == other.read_bytes() == b"name,status,reason\r\na,done,\r\nb,done,\r\nc,done,\r\n"
    assert [file.name for file in path.parent.iterdir()] == ["list.csv"]


def test_an_empty_list_has_its_columns(path: Path) -> None:
    ledger(path).finish()
    assert path.read_bytes() == b"name,status,reason\r\n"


def test_threads_share_one(path: Path) -> None:
    shared = ledger(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(shared.append, [row(str(number)) for number in range(200)]))
    assert len(shared.rows()) == 200


def test_a_key_of_several_columns(path: Path) -> None:
    two = CsvLedger(path, COLUMNS, "name", "status")
    for one in (row("a", "x"), row("a", "y"), row("a", "x", "again"), row("", "z")):
        two.append(one)
    assert list(two.rows()) == ["a x", "a y"]
    assert two.rows()["a x"]["reason"] == "again"


def test_a_list_that_a_spreadsheet_has_saved(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("\ufeffreason,name,note\nwhy,a,mine\n", encoding="utf-8")
    assert ledger(path).rows() == {"a": {"name": "a", "status": "", "reason": "why"}}
    ledger(path).append(row("b"))
    assert path.read_text(encoding="utf-8").splitlines() == ["name,status,reason", "a,,why", "b,done,"]


@pytest.mark.parametrize("content", ["file;state\r\na;b\r\n", "<html>\n"])
def test_another_table_is_left_alone(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content.encode())
    for use in (ledger(path).rows, ledger(path).finish, lambda: ledger(path).append(row("a"))):
        with pytest.raises(DatasetError, match=r"no column 'name': it is another table. Move it away"):
            use()
    assert path.read_bytes() == content.encode()


def test_a_list_that_cannot_be_read_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    content = b'name,status,reason\r\n"' + b"x" * 200_000 + b'"\r\n'
    path.write_bytes(content)
    for use in (ledger(path).rows, ledger(path).finish):
        with pytest.raises(DatasetError, match=r"cannot be read as CSV .* Move it away"):
            use()
    assert path.read_bytes() == content
