"""The photos that settings name: folders, lists, archives, datasets."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from tests.factories import image_bytes, photo_array, write_dataset, write_photo

from wastelens.data.photos.decode import BadPhotoError
from wastelens.errors import DatasetError
from wastelens.using.photo_list import PhotoList, photos_of


def of(photos: Path | str = "", dataset: Path | str = "", root: Path = Path("data")) -> PhotoList:
    return photos_of(str(photos), str(dataset), root, root / "predictions")


def contents(photos: PhotoList) -> dict[str, bytes | str]:
    """Name → the file's bytes, or why there are none."""
    found: dict[str, bytes | str] = {}
    with photos.files.opened() as read:
        for number, name in enumerate(photos.files.names):
            try:
                found[name] = read(number)
            except BadPhotoError as error:
                found[name] = str(error)
    return found


def test_a_folder_with_all_that_may_lie_in_it(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a.JPG", "predictions/3.jpg", ".hidden/4.jpg"):
        write_photo(tmp_path / name)
    (tmp_path / "clip.mov").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    photos = of(tmp_path, root=tmp_path)
    assert list(photos.files.names) == ["a.JPG", "b/2.jpg", "clip.mov"]
    assert contents(photos)["clip.mov"] == "a .mov file: save their frames as JPEG"
    assert photos.notes == ["Files that are no photos, not read: 1 (1 .txt)."]
    assert photos.files.part(1, 3).names == ["b/2.jpg", "clip.mov"]


def test_the_folder_that_is_written_to_is_not_said_to_be_empty(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg")
    with pytest.raises(DatasetError) as told:
        photos_of(str(tmp_path), "", Path("data"), tmp_path / "." / "")
    assert str(told.value) == (
        f"photos='{tmp_path}' is the folder that predictions are written to. Write them elsewhere, such as "
        f"output={tmp_path / 'predictions'}."
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_a_row(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg")
    write_photo(tmp_path / "locked" / "b.jpg")
    (tmp_path / "locked").chmod(0)
    assert contents(of(tmp_path))["locked/"] == "a folder that cannot be read (Permission denied)"
    (tmp_path / "locked").chmod(0o700)


def test_one_photo_is_a_list_of_one(tmp_path: Path) -> None:
    photo, _ = write_photo(tmp_path / "a.JPG"), write_photo(tmp_path / "b.jpg")
    photos = of(photo)
    assert (photos.title, contents(photos)) == ("a", {"a.JPG": photo.read_bytes()})


def test_the_digest_tells_other_photos(tmp_path: Path) -> None:
    first = write_photo(tmp_path / "a.jpg")
    digests = {of(tmp_path).digest, of(tmp_path).digest}
    assert len(digests) == 1
    os.utime(first, ns=(1, 1))
    digests.add(of(tmp_path).digest)
    write_photo(tmp_path / "b.jpg")
    digests.add(of(tmp_path).digest)
    assert len(digests) == 3


def test_an_archive_is_read_where_it_lies(tmp_path: Path) -> None:
    photo = image_bytes(photo_array(1, 16)[0])
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x/b.jpg", "a.jpg", "../../out.jpg", "__MACOSX/._a.jpg", ".a.jpg", "x/readme.md"):
            archive.writestr(name, photo)
        archive.writestr("bomb.png", b"\0" * 30_000_000)
        archive.writestr("empty.jpg", b"")
    found = contents(of(tmp_path / "p.zip"))
    assert list(found) == ["../../out.jpg", "a.jpg", "bomb.png", "empty.jpg", "x/b.jpg"]
    assert found["a.jpg"] == found["x/b.jpg"] == photo
    assert "a file of 30.0 MB in " in str(found["bomb.png"])
    assert found["empty.jpg"] == "an empty file"
    assert {path.name for path in tmp_path.iterdir()} == {"p.zip"}


def test_a_damaged_member_of_an_archive_is_one_problem(tmp_path: Path) -> None:
    photo = image_bytes(photo_array(1, 64)[0])
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a.jpg", photo)
        archive.writestr("b.jpg", photo)
    raw = bytearray((tmp_path / "p.zip").read_bytes())
    raw[len(photo) // 2] ^= 255
    (tmp_path / "p.zip").write_bytes(raw)
    found = contents(of(tmp_path / "p.zip"))
    assert str(found["a.jpg"]).startswith("damaged in the archive (Bad CRC-32")
    assert found["b.jpg"] == photo


def test_lists_name_photos_beside_them_or_anywhere(tmp_path: Path) -> None:
    near, far = write_photo(tmp_path / "lists" / "near.jpg"), write_photo(tmp_path / "far.jpg")
    (tmp_path / "lists" / "some.txt").write_text(f"{far}\n\n# a comment\nnear.jpg\nnear.jpg\ngone.jpg\n")
    photos = of(tmp_path / "lists" / "some.txt")
    found = contents(photos)
    assert found == {str(far): far.read_bytes(), "gone.jpg": "missing", "near.jpg": near.read_bytes()}
    assert photos.title == "some"
    assert photos.notes == ["Names that some.txt has more than once: 1; each gets one row."]


def test_a_dataset_in_a_known_layout(tmp_path: Path) -> None:
    write_dataset(tmp_path / "litter", batches=2, photos_per_batch=2)
    photos = of(dataset=tmp_path / "litter", root=tmp_path)
    assert list(photos.files.names) == [f"batch_{batch}/{number:06}.jpg" for batch in (1, 2) for number in (0, 1)]
    assert all(isinstance(content, bytes) for content in contents(photos).values())
    for photo in (tmp_path / "litter").rglob("*.jpg"):
        photo.unlink()
    with pytest.raises(DatasetError, match="None of the photos of dataset="):
        of(dataset=tmp_path / "litter", root=tmp_path)


def test_a_prepared_dataset_is_predicted_from_its_own_files(prepared_folder: Path) -> None:
    photos = of(dataset="litter", root=prepared_folder / "data")
    assert len(photos) == 60
    assert photos.files.names[0] == "batch_1/000000.jpg"
    assert contents(photos)["batch_1/000000.jpg"] == (prepared_folder / "litter/batch_1/000000.jpg").read_bytes()
