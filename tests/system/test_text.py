"""Text of others in messages, and text files as people save them."""

from __future__ import annotations

from pathlib import Path

import pytest

from wastelens.system.files import read_text
from wastelens.system.text import one_line


def test_text_of_others_stays_in_one_line() -> None:
    assert one_line("a\nb\x1b[31m\u2028") == r"a\nb\x1b[31m\u2028"
    assert one_line("纸 ä") == "纸 ä"
    assert one_line("\udcff") == r"\udcff"


def test_long_text_keeps_its_ends() -> None:
    shown = one_line("a" * 5000 + "z", 100)
    assert shown.startswith("aaa")
    assert shown.endswith("z")
    assert len(shown) < 110


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("a,ä\r\n".encode(encoding))
    assert read_text(tmp_path / "a.txt", 100) == "a,ä\r\n"


def test_other_encodings_and_long_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("ä".encode("latin-1"))
    with pytest.raises(ValueError, match=r"^is not UTF-8 text \(byte 0\)$"):
        read_text(file, 100)
    assert read_text(file, 100, errors="replace") == "\ufffd"
    with pytest.raises(ValueError, match=r"^is longer than 0 bytes$"):
        read_text(file, 0)
    assert read_text(file, 0, shorten=True) == ""
