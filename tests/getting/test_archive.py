"""Damaged archives end in one line, and are not used again."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.getting.test_photo_folder import wanted
from tests.web_server import photo

from wastelens.errors import DatasetError
from wastelens.getting.photo_folder import DONE, WRONG, PhotoFolder
from wastelens.getting.taco import Archive


def packed() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("TACO/data/annotations.json", json.dumps({"images": [{"id": n} for n in range(20)]}))
        archive.writestr("TACO/data/batch_1/a.jpg", photo(width=64, height=64))
    return content.getvalue()


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a few bytes, mostly in the directory at the end."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        place = int(len(changed) - 1 - rng.integers(0, 320 if rng.random() < 0.7 else len(changed)))
        changed[place] = int(
            rng.choice([0, 1, 255, int(rng.integers(256)), changed[place] ^ 1 << int(rng.integers(8))])
        )
    return bytes(changed[: int(rng.integers(len(changed)))] if rng.random() < 0.1 else changed)


def test_damaged_archives(tmp_path: Path) -> None:
    rng, whole = np.random.default_rng(0), packed()
    path, target = tmp_path / "archive.zip", tmp_path / "draft.json"
    one = wanted(width=64, height=64)
    outcomes = set()
    for number in range(3000):
        path.write_bytes(mutated(whole, rng))
        folder = tmp_path / f"taco_{number % 3}"
        folder.mkdir(exist_ok=True)
        photos = PhotoFolder(folder)
        try:
            archive = Archive(path, 1_000_000)
        except DatasetError as error:
            assert "\n" not in str(error)
            assert not path.exists()
            outcomes.add("no archive")
            continue
        try:
            archive.unpack_annotations(target)
            archive.unpack_photo(one, photos)
            outcomes.add(photos.row(one)["status"])
        except DatasetError as error:
            assert "\n" not in str(error)
            outcomes.add("no annotations")
        archive.discard()
        assert not path.exists()
        (folder / "download.csv").unlink(missing_ok=True)
        photos.path(one).unlink(missing_ok=True)
    assert outcomes >= {"no archive", "no annotations", DONE, WRONG}


def test_a_link_in_place_of_a_draft_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "draft.json").symlink_to(tmp_path / "precious")
    (tmp_path / "archive.zip").write_bytes(packed())
    archive = Archive(tmp_path / "archive.zip", 1_000_000)
    archive.unpack_annotations(tmp_path / "draft.json")
    archive.close()
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "draft.json").read_bytes().startswith(b'{"images"')


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"<html>"])
def test_what_is_no_archive_is_removed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "archive.zip").write_bytes(content)
    with pytest.raises(DatasetError, match="Correct archive_url, or run the command again"):
        Archive(tmp_path / "archive.zip", 1_000_000)
    assert not (tmp_path / "archive.zip").exists()
