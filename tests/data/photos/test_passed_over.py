"""Files in a dataset's folders that nothing reads."""

from __future__ import annotations

from pathlib import Path

from wastelens.data.photos.files import PHOTO_SUFFIXES, UNREAD_PHOTO_SUFFIXES, how_to_read
from wastelens.data.photos.passed_over import passed_over


def test_what_is_not_read_is_counted_by_suffix_whatever_leads_to_it(tmp_path: Path) -> None:
    names = ("a.jpg", "b/c.JPG", "b/d.HEIC", "b/e.heic", "notes.txt", ".hidden/f.heic", "out/g.heic", "none")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "linked").symlink_to(tmp_path / "b")
    (tmp_path / "again.jpg").symlink_to(tmp_path / "a.jpg")
    read = [tmp_path / "a.jpg", tmp_path / "b" / ".." / "linked" / "c.JPG"]
    assert passed_over(tmp_path, read, [tmp_path / "out", tmp_path / "gone"]) == {
        ".heic": ["b/d.HEIC", "b/e.heic"],
        "": ["none"],
        ".txt": ["notes.txt"],
    }


def test_every_suffix_of_an_unread_photo_has_an_advice() -> None:
    assert not UNREAD_PHOTO_SUFFIXES & PHOTO_SUFFIXES
    advice = {suffix: how_to_read(suffix) for suffix in UNREAD_PHOTO_SUFFIXES | {".xyz"}}
    assert all(advice.values())
    assert how_to_read(".CR2") == advice[".cr2"] == "develop them to JPEG or TIFF"
