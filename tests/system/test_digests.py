"""Digests of files: what is missing or changed is named."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from wastelens.system.digests import changed_file, file_digest


def test_a_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000  # more than two blocks
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == blake2b(content, digest_size=16).hexdigest()


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    digests = {name: file_digest(tmp_path / name) for name in ("a", "b")}
    assert changed_file(tmp_path, digests) == ""
    (tmp_path / "b").write_text("c")
    assert changed_file(tmp_path, digests) == "b is not the file that was logged"
    (tmp_path / "a").unlink()
    assert changed_file(tmp_path, digests) == "a is missing"


def test_names_lead_to_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "folder").mkdir()
    assert changed_file(tmp_path / "folder", {"../a": file_digest(tmp_path / "a")}) == "a is missing"
