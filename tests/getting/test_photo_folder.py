"""The state of a folder of photos, also after a kill at the worst moment."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from tests.factories import write_json
from tests.web_server import photo

from wastelens.errors import AnnotationsError
from wastelens.getting.photo_folder import DEAD, DONE, FAILED, WRONG, PhotoFolder, WantedPhoto, wanted_photos
from wastelens.getting.taco import estimated_bytes
from wastelens.web.files import Fetched, sha256_of


def wanted(name: str = "batch_1/a.jpg", url: str = "https://example.org/a.jpg", **more: Any) -> WantedPhoto:
    values = {"same_at": frozenset({url}), "width": 320, "height": 240, "licence": "CC BY"}
    return WantedPhoto(name, url, **{**values, **more})


def keep(folder: PhotoFolder, one: WantedPhoto, content: bytes) -> None:
    draft = folder.draft(one)
    draft.write_bytes(content)
    folder.keep(one, Fetched(len(content), sha256_of(draft)))


def test_a_kept_photo_is_settled_for_good(tmp_path: Path) -> None:
    folder, one = PhotoFolder(tmp_path), wanted()
    assert not folder.is_settled(one)
    keep(folder, one, photo())
    assert (tmp_path / "batch_1" / "a.jpg").read_bytes() == photo()
    for again in (folder, PhotoFolder(tmp_path)):
        assert again.is_settled(one)
        assert again.is_settled(one, retry_dead=True)
    row = {"file_name": "batch_1/a.jpg", "status": "done", "bytes": str(len(photo())), "width": "320", "height": "240"}
    assert row.items() <= PhotoFolder(tmp_path).row(one).items()


def test_photos_that_are_not_available(tmp_path: Path) -> None:
    folder = PhotoFolder(tmp_path)
    dead, failed = wanted("dead.jpg"), wanted("failed.jpg")
    folder.leave_out(dead, DEAD, "404 Not Found")
    folder.leave_out(failed, FAILED, "no answer")
    again = PhotoFolder(tmp_path)
    assert again.is_settled(dead)
    assert not again.is_settled(dead, retry_dead=True)
    assert not again.is_settled(wanted("dead.jpg", "https://elsewhere.org/a.jpg"))
    assert not again.is_settled(failed)
    (tmp_path / "dead.jpg").write_bytes(photo())  # somebody had it
    assert not again.is_settled(dead)
    assert again.take_over(dead)
    assert again.is_settled(dead)


def test_a_wrong_file_never_gets_the_name(tmp_path: Path) -> None:
    folder, one = PhotoFolder(tmp_path), wanted()
    keep(folder, one, b"<html>")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["download.csv"]
    assert folder.row(one)["status"] == WRONG
    assert folder.is_settled(one)


def test_a_kill_before_the_photo_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, one = PhotoFolder(tmp_path), wanted()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        keep(folder, one, photo())
    monkeypatch.undo()
    again = PhotoFolder(tmp_path)
    assert not again.is_settled(one)
    assert not again.take_over(one)
    keep(again, one, photo())
    again.finish()
    assert again.is_settled(one)
    assert not (tmp_path / ".unfinished").exists()


def test_a_torn_last_line_is_forgotten(tmp_path: Path) -> None:
    folder = PhotoFolder(tmp_path)
    first, second = wanted("a.jpg"), wanted("b.jpg")
    folder.leave_out(first, DEAD, "410 Gone")
    folder.leave_out(second, DEAD, "410 Gone")
    path = tmp_path / "download.csv"
    path.write_bytes(path.read_bytes()[:-9])
    again = PhotoFolder(tmp_path)
    assert (again.is_settled(first), again.is_settled(second)) == (True, False)
    again.leave_out(second, DEAD, "410 Gone")
    again.finish()
    with path.open(newline="") as file:
        assert [row["file_name"] for row in csv.DictReader(file)] == ["a.jpg", "b.jpg"]


def test_a_file_that_has_changed_is_checked_again(tmp_path: Path) -> None:
    folder, one = PhotoFolder(tmp_path), wanted()
    keep(folder, one, photo())
    path = tmp_path / "batch_1" / "a.jpg"
    path.write_bytes(photo()[:-50])
    assert not folder.is_settled(one)
    assert not folder.take_over(one)
    assert not path.exists()


def test_a_placeholder_is_known_after_a_kill_amid_its_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = PhotoFolder(tmp_path)
    photos = [wanted(f"{number}.jpg") for number in range(5)]
    for number, one in enumerate(photos):
        keep(folder, one, photo(max(0, number - 2)))  # the first three are one and the same
    unlink = Path.unlink

    def killed(path: Path, **options: Any) -> None:
        if path.name == "1.jpg":
            raise KeyboardInterrupt
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.remove_placeholders(photos)
    monkeypatch.undo()
    again = PhotoFolder(tmp_path)
    for one in photos:
        if not again.is_settled(one):
            again.take_over(one)
    again.remove_placeholders(photos)
    assert [again.row(one)["status"] for one in photos] == [WRONG, WRONG, WRONG, DONE, DONE]
    assert {again.row(one)["reason"] for one in photos[:3]} == {"the same picture as 2 other photos: a placeholder"}
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == ["3.jpg", "4.jpg"]


class TestList:
    def images(self, folder: Path, *images: dict[str, Any]) -> Path:
        named = [{"id": n, "file_name": f"b/{n}.jpg", "width": 100, "height": 80} | one for n, one in enumerate(images)]
        return write_json(folder / "annotations.json", {"images": named, "annotations": [], "categories": []})

    def test_addresses_and_licences(self, tmp_path: Path) -> None:
        both = {"flickr_url": "https://f/o.png", "flickr_640_url": "https://f/z.jpg", "license": " ODBL (c)\nOLM "}
        one = {"flickr_url": "https://olm/x.jpeg", "flickr_640_url": None, "license": None}
        annotations = self.images(tmp_path, both, one, {"flickr_url": 7, "license": 3}, {})
        archive = "https://z/TACO.zip"
        originals, small = wanted_photos(annotations, "original", archive), wanted_photos(annotations, "640", archive)
        assert [image.url for image in originals] == [both["flickr_url"], one["flickr_url"], "", ""]
        assert [image.url for image in small] == [both["flickr_640_url"], one["flickr_url"], "", ""]
        assert [image.licence for image in originals] == ["ODBL (c) OLM", "not stated", "not stated", "not stated"]
        packed = wanted_photos(annotations, "original", archive, from_archive=True)
        assert {image.url for image in packed} == {archive}
        assert packed[0].same_at == originals[0].same_at == {archive, "https://f/o.png"}
        assert small[0].same_at == {"https://f/z.jpg"}
        assert small[1].same_at == {archive, "https://olm/x.jpeg"}  # of which there is one size only

    @pytest.mark.parametrize("name", ["download.csv", "ANNOTATIONS.1234.json", r".\download.csv", ".unfinished/x"])
    def test_names_of_other_files(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(AnnotationsError, match="which is reserved"):
            wanted_photos(self.images(tmp_path, {"file_name": name}), "original", "")


def test_room_is_estimated_by_size_and_form() -> None:
    large = {"width": 2000, "height": 1000}
    assert estimated_bytes(wanted(url="https://f.org/o.jpg", **large), "original") == 1_000_000
    assert estimated_bytes(wanted(url="https://f.org/o.png", **large), "original") == 3_000_000
    assert estimated_bytes(wanted(url="https://farm8.staticflickr.com/z.jpg", **large), "640") == 150_000
    assert estimated_bytes(wanted(width=-5), "original") == 0


def elsewhere(tmp_path: Path) -> tuple[Path, Path]:
    """Return a dataset's folder, and a file of somebody else's that links in it may lead to."""
    folder, other = tmp_path / "taco", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (other / "a.jpg").write_bytes(b"precious")
    return folder, other / "a.jpg"


def test_a_linked_folder_of_photos_is_left_alone(tmp_path: Path) -> None:
    folder, precious = elsewhere(tmp_path)
    (folder / "batch_1").symlink_to(precious.parent)
    photos, one = PhotoFolder(folder), wanted()
    assert not photos.is_settled(one)
    assert not photos.take_over(one)
    keep(photos, one, photo())
    assert photos.row(one)["status"] == WRONG
    assert photos.row(one)["reason"] == "its folder is a link that leads out of the dataset's"
    with (folder / "download.csv").open("a", newline="") as file:  # or claimed to be there
        csv.writer(file).writerow(["batch_1/a.jpg", "done", "8", "0" * 64, "320", "240", one.url, "", ""])
    again = PhotoFolder(folder)
    assert not again.is_settled(one)
    again.remove_placeholders([one] * 3)
    again.finish()
    assert precious.read_bytes() == b"precious"


def test_links_in_place_of_our_own_files_are_replaced(tmp_path: Path) -> None:
    folder, precious = elsewhere(tmp_path)
    for name in ("download.csv", "download.csv.part"):
        (folder / name).symlink_to(precious)
    (folder / ".unfinished").symlink_to(precious.parent)
    precious.write_bytes(b"file_name\r\n")  # a table that could be ours
    photos, one = PhotoFolder(folder), wanted()
    keep(photos, one, photo())
    photos.finish()
    assert precious.read_bytes() == b"file_name\r\n"
    assert [path.name for path in precious.parent.iterdir()] == ["a.jpg"]
    assert PhotoFolder(folder).is_settled(one)
    (folder / ".unfinished").symlink_to(precious.parent)
    PhotoFolder(folder).remove_unfinished()
    assert not (folder / ".unfinished").is_symlink()
    assert precious.exists()


@pytest.mark.parametrize("name", ["batch_1/" + "a" * 300 + ".jpg", "batch_1", "batch_1/a.jpg/b.jpg"])
def test_one_name_that_no_file_can_have_stops_no_other(tmp_path: Path, name: str) -> None:
    folder, good = PhotoFolder(tmp_path), wanted()
    keep(folder, good, photo())
    keep(folder, wanted(name), photo(1))
    assert folder.row(wanted(name))["status"] == WRONG
    assert "name" in folder.row(wanted(name))["reason"]
    folder.finish()
    assert PhotoFolder(tmp_path).is_settled(good)


def test_a_key_in_the_address_of_the_archive_is_not_listed(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg", "width": 320, "height": 240, "flickr_url": "https://example.org/a.jpg"}]
    path = write_json(tmp_path / "annotations.json", {"images": images, "annotations": [], "categories": []})
    address = "https://example.org/TACO.zip?token=secret"
    (one,) = wanted_photos(path, "original", address, from_archive=True)
    folder = PhotoFolder(tmp_path)
    keep(folder, one, photo())
    folder.finish()
    assert "secret" not in (tmp_path / "download.csv").read_text()
    assert folder.is_settled(one)
    (from_web,) = wanted_photos(path, "original", address)
    assert folder.is_settled(from_web)


@pytest.mark.parametrize("odd", [{"id": "one"}, {"file_name": "\ud800.jpg"}, {"width": "wide"}])
def test_annotations_edited_by_hand_are_refused_in_one_line(tmp_path: Path, odd: dict[str, Any]) -> None:
    images = [{"id": 1, "file_name": "a.jpg", "width": 320, "height": 240, **odd}]
    path = write_json(tmp_path / "annotations.json", {"images": images, "annotations": [], "categories": []})
    with pytest.raises(AnnotationsError):
        wanted_photos(path, "original", "https://example.org/TACO.zip")
