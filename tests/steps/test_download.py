"""The step ``download`` against a server that plays Flickr at its worst."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
import signal
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.factories import config, image_bytes
from tests.memory_tracking import MemoryRun, MemoryTracker
from tests.web_server import (
    Answer,
    Content,
    Cut,
    Gzip,
    Hang,
    Page,
    Promise,
    Redirect,
    Status,
    WebServer,
    WrongLength,
    photo,
)

from wastelens.errors import AnnotationsError, ConfigError, DatasetError, InputError
from wastelens.steps import download
from wastelens.system.files import alone_in
from wastelens.web.errors import NoNetwork

SIDE = (320, 240)
FAST = (
    "web.backoff_s=0.01 web.read_timeout_s=1.5 web.connect_timeout_s=1 web.requests_per_second=10000 web.attempts=3 "
    "web.longest_wait_s=2 web.max_bytes=2000000"
)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as running:
        yield running


def coco(images: list[dict[str, Any]]) -> bytes:
    content = {"images": images, "annotations": [], "categories": [{"id": 0, "name": "Drink can"}]}
    return json.dumps(content).encode()


def image(number: int, name: str, url: str | None, **more: Any) -> dict[str, Any]:
    base = {"id": number, "file_name": name, "width": SIDE[0], "height": SIDE[1], "license": None}
    return {**base, "flickr_url": url, "flickr_640_url": None, **more}


class Place:
    """A data folder, and a server with annotations and photos for it."""

    def __init__(self, server: WebServer, root: Path) -> None:
        self.server = server
        self.folder = root / "data" / "raw" / "taco"
        self.root = root
        self.images: list[dict[str, Any]] = []

    def add(self, name: str, *answers: Answer, **more: Any) -> None:
        url = self.server.serve(f"/photos/{name}", *answers) if answers else None
        self.images.append(image(len(self.images), name, **{"url": url, **more}))

    def fill(self, photos: int) -> None:
        for number in range(photos):
            self.add(f"batch_1/{number:06}.jpg", Content(photo(number)))

    def publish(self, etag: str = '"1"', **more: Answer) -> None:
        content = Content(coco(self.images), kind="text/plain", etag=etag)
        self.server.serve("/annotations.json", more.get("answer", content))

    def download(self, settings: str = "", tracker: MemoryTracker | None = None, **parameters: str) -> MemoryRun:
        tracker = tracker or MemoryTracker()
        address = self.server.address
        chosen = config(
            "download",
            f"data_folder={self.root / 'data'} hosts=[{self.server.host}] annotations_url={address}/annotations.json "
            f"unofficial_url={address}/unofficial.json archive_url={address}/TACO.zip?download=1 {FAST} {settings}",
            **parameters,
        )
        result = download.run(chosen, tracker)
        return next(run for run in tracker.runs if run.id == result.run_id)

    def rows(self) -> dict[str, dict[str, str]]:
        with (self.folder / "download.csv").open(encoding="utf-8", newline="") as file:
            return {row["file_name"]: row for row in csv.DictReader(file)}

    def statuses(self) -> dict[str, str]:
        return {name: row["status"] for name, row in self.rows().items()}

    def files(self) -> dict[str, bytes]:
        """Return the folder's files, except for the list and hidden files."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        named = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}
        return {name: content for name, content in named.items() if name != "download.csv" and name[0] != "."}

    def asked_since(self, count: int) -> list[str]:
        return [request.path for request in self.server.requests[count:]]


@pytest.fixture
def place(server: WebServer, tmp_path: Path) -> Place:
    return Place(server, tmp_path)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return image_bytes(Image.open(io.BytesIO(photo(8))), exif=exif)


def good_photos(server: WebServer) -> dict[str, tuple[bytes, tuple[Answer, ...]]]:
    """Map names to the bytes that must arrive and the server's answers until they do."""
    plain, moved = [photo(number) for number in range(9)], photo(9)
    return {
        "batch_1/plain.jpg": (plain[0], (Content(plain[0]),)),
        "batch_1/trouble.jpg": (plain[1], (Status(500), Content(plain[1]))),
        "batch_1/cut.JPG": (plain[2], (Cut(plain[2], etag='"c"'), Content(plain[2], etag='"c"'))),
        "batch_1/no_ranges.jpg": (plain[3], (Cut(plain[3], ranges=False), Content(plain[3], ranges=False))),
        "batch_2/come_back.jpg": (plain[4], (Status(429, {"Retry-After": "1"}), Content(plain[4]))),
        "batch_2/length.jpg": (plain[5], (WrongLength(plain[5][:900], len(plain[5])), Content(plain[5]))),
        "batch_2/png.jpg": (photo(10, form="PNG"), (Content(photo(10, form="PNG"), kind="image/png"),)),
        "batch_3/turned.jpg": (turned(), (Content(turned()),)),
        "batch_3/moved.jpg": (moved, (Redirect(server.serve("/elsewhere", Content(moved))),)),
        "batch_3/film.jpg": (plain[6] + b"film" * 9999, (Content(plain[6] + b"film" * 9999),)),
    }


def bad_photos(server: WebServer) -> dict[str, tuple[str, Answer]]:
    """Map names to the expected status and the server's answer."""
    return {
        "404.jpg": ("dead", Status(404)),
        "410.jpg": ("dead", Status(410)),
        "loop.jpg": ("dead", Redirect(f"{server.address}/photos/loop.jpg")),
        "private.jpg": ("dead", Redirect("http://169.254.169.254/latest/meta-data/")),
        "loopback.jpg": ("dead", Redirect("http://127.0.0.1:9/")),
        "scheme.jpg": ("dead", Redirect("file:///etc/passwd")),
        "promise.jpg": ("dead", Promise(10_000_000_000)),
        "bomb.jpg": ("dead", Gzip(bytes(50_000_000), kind="image/jpeg")),
        "hang.jpg": ("failed", Hang(20)),
        "500.jpg": ("failed", Status(500)),
        "page.jpg": ("wrong", Page()),
        "shape.jpg": ("wrong", Content(photo(31, 320, 320))),
        "text.jpg": ("wrong", Content(b"no longer available")),
        "half.jpg": ("wrong", Content(photo(32)[:-500])),
        "tiny.jpg": ("wrong", Content(photo(33, 32, 24))),
        **{f"placeholder{number}.jpg": ("wrong", Content(photo(34))) for number in range(3)},
    }


@pytest.fixture
def worst(place: Place, server: WebServer) -> Place:
    """Serve all of them, and two photos that no server has."""
    for name, (_, answers) in good_photos(server).items():
        place.add(name, *answers, license="CC BY" if "batch_3" in name else None)
    for name, (_, answer) in bad_photos(server).items():
        place.add(name, answer)
    place.add("nowhere.jpg")
    place.add("local.jpg", url="file:///etc/passwd")
    place.publish()
    return place


def test_every_good_photo_is_there_and_every_bad_one_is_listed(worst: Place, server: WebServer) -> None:
    run = worst.download(max_problem_share="0.9")
    files = worst.files()
    assert files.pop("annotations.json") == coco(worst.images)
    assert files == {name: content for name, (content, _) in good_photos(server).items()}
    expected = {name: status for name, (status, _) in bad_photos(server).items()} | dict.fromkeys(files, "done")
    assert worst.statuses() == expected | {"nowhere.jpg": "dead", "local.jpg": "dead"}
    rows = worst.rows()
    assert list(rows) == sorted(rows)
    assert all(bool(row["reason"]) == (row["status"] != "done") for row in rows.values())
    assert rows["page.jpg"]["reason"] == "a web page, not a photo"
    assert rows["shape.jpg"]["reason"] == "annotated as 320 x 240, the file is 320 x 320"
    assert rows["placeholder1.jpg"]["reason"] == "the same picture as 2 other photos: a placeholder"
    assert "169.254.169.254" in rows["private.jpg"]["reason"]
    assert rows["nowhere.jpg"]["reason"] == "the annotations give no address"
    assert [rows["batch_3/turned.jpg"][name] for name in ("width", "height", "licence")] == ["240", "320", "CC BY"]
    counts = {"photos": 30, "photos/done": 10, "photos/dead": 10, "photos/failed": 2, "photos/wrong": 8}
    assert {name: run.metrics[name] for name in counts} == counts
    assert run.metrics["megabytes"] == pytest.approx(sum(map(len, files.values())) / 1e6)
    assert (run.folder / "download.csv").read_bytes() == (worst.folder / "download.csv").read_bytes()
    assert '"not stated","7",' in (run.folder / "licences.csv").read_text()


def test_a_second_run_fetches_what_failed_temporarily_and_a_third_nothing(
    worst: Place, server: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    worst.download(max_problem_share="0.9")
    said = capsys.readouterr().out
    assert all(
        words in said for words in ("photos by licence", "a web page, not a photo", "2 photos may become available")
    )
    before = len(server.requests)
    server.serve("/photos/hang.jpg", Content(photo(40)))
    server.serve("/photos/500.jpg", Content(photo(41)))
    worst.download(max_problem_share="0.9")
    assert sorted(worst.asked_since(before)) == ["/annotations.json", "/photos/500.jpg", "/photos/hang.jpg"]
    assert worst.files()["hang.jpg"] == photo(40)
    before, files = len(server.requests), worst.files()
    capsys.readouterr()
    worst.download(max_problem_share="0.9")
    assert worst.asked_since(before) == ["/annotations.json"]
    assert worst.files() == files
    assert "Nothing to fetch" in capsys.readouterr().out
    assert not list(worst.folder.glob(".unfinished"))


def test_the_same_folder_whatever_the_number_of_workers(place: Place, server: WebServer, tmp_path: Path) -> None:
    place.fill(9)
    place.add("batch_2/gone.jpg", Status(404))
    place.publish()
    place.download(workers="1")
    other = Place(server, tmp_path / "other")
    other.download(workers="5")
    assert other.files() == place.files()
    assert (other.folder / "download.csv").read_bytes() == (place.folder / "download.csv").read_bytes()


def test_what_was_removed_is_fetched_again_and_what_is_there_is_not(place: Place, server: WebServer) -> None:
    place.fill(3)
    place.publish()
    place.download()
    (place.folder / "batch_1" / "000001.jpg").unlink()
    before = len(server.requests)
    place.download()
    assert place.asked_since(before) == ["/annotations.json", "/photos/batch_1/000001.jpg"]
    assert place.files()["batch_1/000001.jpg"] == photo(1)


def test_photos_without_a_row_are_checked_and_taken_over(place: Place, server: WebServer) -> None:
    place.fill(4)
    place.publish()
    folder = place.folder / "batch_1"
    folder.mkdir(parents=True)
    (folder / "000000.jpg").write_bytes(photo(0))
    (folder / "000001.jpg").write_bytes(photo(1)[:-99])
    place.download()
    asked = {request.path for request in server.requests}
    assert "/photos/batch_1/000000.jpg" not in asked
    assert "/photos/batch_1/000001.jpg" in asked
    assert place.statuses() == {f"batch_1/{number:06}.jpg": "done" for number in range(4)}
    assert place.files()["batch_1/000001.jpg"] == photo(1)


def test_another_size_is_fetched_and_the_small_copy_kept_where_there_is_no_other(place: Place) -> None:
    for number in range(3):
        small = place.server.serve(f"/small/{number}.jpg", Content(photo(number, 160, 120)))
        large = Status(404) if number == 1 else Content(photo(number))
        place.add(f"batch_1/{number}.jpg", large, flickr_640_url=small)
    place.add("batch_1/3.jpg", Content(photo(3)))  # as those of OpenLitterMap: there is one size only
    place.publish()
    place.download(size="640")
    assert place.files()["batch_1/0.jpg"] == photo(0, 160, 120)
    before = len(place.server.requests)
    place.download()
    assert len(place.asked_since(before)) == 4  # the annotations, and three photos of which there are two sizes
    assert place.files()["batch_1/0.jpg"] == photo(0)
    assert place.files()["batch_1/1.jpg"] == photo(1, 160, 120)
    assert "kept as fetched from" in place.rows()["batch_1/1.jpg"]["reason"]
    before = len(place.server.requests)
    place.download()
    assert place.asked_since(before) == ["/annotations.json"]


def test_the_dead_are_asked_for_again_on_request(place: Place) -> None:
    place.fill(4)
    place.add("gone.jpg", Status(404), Content(photo(9)))
    place.publish()
    place.download()
    place.download()
    assert place.statuses()["gone.jpg"] == "dead"
    place.download("retry_dead=true")
    assert place.files()["gone.jpg"] == photo(9)


def test_a_placeholder_is_known_again_when_one_more_photo_becomes_it(place: Place) -> None:
    place.fill(5)
    for number in range(3):
        place.add(f"gone{number}.jpg", Content(photo(99)))
    place.add("later.jpg", *[Status(500)] * 3, Content(photo(99)))
    place.publish()
    place.download(max_problem_share="0.5")
    place.download(max_problem_share="0.5")
    assert place.statuses()["later.jpg"] == "wrong"
    assert set(place.files()) == {"annotations.json", *(f"batch_1/{number:06}.jpg" for number in range(5))}


def test_more_missing_than_allowed(place: Place) -> None:
    place.fill(2)
    for number in range(3):
        place.add(f"gone{number}.jpg", Status(404))
    place.publish()
    tracker = MemoryTracker()
    with pytest.raises(DatasetError, match=r"3 of 5 photos \(60\.0%\).*max_problem_share=0\.3: 3 .*What was fetched"):
        place.download(tracker=tracker)
    assert tracker.runs[0].status == "FAILED"
    assert tracker.runs[0].metrics["photos/dead"] == 3
    assert len(place.files()) == 3


def test_file_names_that_leave_the_folder_or_replace_other_files(place: Place) -> None:
    for name in (
        "../out.jpg",
        "batch_1/../../out.jpg",
        "/tmp/out.jpg",
        "./download.csv",
        "annotations.json",
        ".x/a.jpg",
    ):
        shutil.rmtree(place.folder, ignore_errors=True)
        place.images = []
        place.add(name, Content(photo()))
        place.publish()
        with pytest.raises(AnnotationsError, match="file_name"):
            place.download()
    assert {path.name for path in place.root.rglob("*") if path.is_file()} <= {"annotations.json"}


class TestAnnotations:
    def test_a_change_is_reported_and_saved_beside(self, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
        place.fill(1)
        place.publish()
        place.download()
        old = place.files()["annotations.json"]
        place.add("new.jpg", Content(photo(50)))
        place.publish('"2"')
        capsys.readouterr()
        place.download()
        said = capsys.readouterr().out
        assert "published annotations have changed" in said
        assert "-P annotations=update" in said
        files = place.files()
        (beside,) = [name for name in files if name.startswith("annotations.") and name != "annotations.json"]
        assert (files["annotations.json"], files[beside]) == (old, coco(place.images))
        assert "new.jpg" not in files

        place.download()  # unchanged since, but still not those in use
        assert "published annotations have changed" in capsys.readouterr().out
        place.download(annotations="update")
        files = place.files()
        assert files["annotations.json"] == coco(place.images)
        assert files["new.jpg"] == photo(50)
        assert old in [content for name, content in files.items() if name.startswith("annotations.")]
        capsys.readouterr()
        place.download()
        assert "published annotations have changed" not in capsys.readouterr().out

    def test_the_users_own_annotations_are_kept(self, place: Place) -> None:
        place.fill(2)
        place.publish()
        place.folder.mkdir(parents=True)
        own = coco(place.images[:1])
        (place.folder / "annotations.json").write_bytes(own)
        place.download()
        assert place.files()["annotations.json"] == own
        assert len(place.rows()) == 1

    @pytest.mark.parametrize("answer", [Page(), Content(b'{"images": [', kind="text/plain"), Content(b"{}")])
    def test_what_is_not_coco(self, place: Place, answer: Answer) -> None:
        place.publish(answer=answer)
        with pytest.raises(AnnotationsError, match=r"127\.0\.0\.1:\d+/annotations\.json"):
            place.download()
        assert place.files() == {}
        place.fill(1)
        place.publish('"1"')
        place.download()
        before = place.files()
        place.publish(answer=answer)
        with pytest.raises(AnnotationsError, match="nothing here was changed"):
            place.download()
        assert place.files() == before

    def test_annotations_that_are_not_available(self, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
        place.publish(answer=Status(503))
        with pytest.raises(AnnotationsError, match="annotations_url=URL"):
            place.download()
        place.fill(2)
        place.publish()
        place.download()
        (place.folder / "batch_1" / "000000.jpg").unlink()
        place.publish(answer=Status(404))
        capsys.readouterr()
        place.download()
        assert "using those that are here" in capsys.readouterr().out
        assert "batch_1/000000.jpg" in place.files()

    def test_without_a_network(self, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
        place.fill(2)
        place.publish()
        place.download()
        nowhere = "annotations_url=http://nowhere.invalid/annotations.json"
        capsys.readouterr()
        place.download(nowhere)
        assert "changed (nowhere.invalid: " in capsys.readouterr().out
        (place.folder / "batch_1" / "000000.jpg").unlink()
        place.download(nowhere)  # the photos' host is there
        assert "batch_1/000000.jpg" in place.files()

    def test_no_network_at_all(self, place: Place) -> None:
        nowhere = "http://nowhere.invalid"
        with pytest.raises(NoNetwork):
            place.download(f"annotations_url={nowhere}/annotations.json")
        place.fill(2)
        for number, image in enumerate(place.images):
            image["flickr_url"] = f"{nowhere}/{number}.jpg"
        (place.folder / "annotations.json").write_bytes(coco(place.images))
        with pytest.raises(NoNetwork):
            place.download(f"annotations_url={nowhere}/annotations.json")

    def test_the_unofficial_set(self, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
        place.fill(1)
        place.server.serve("/unofficial.json", Content(coco(place.images), kind="text/plain"))
        place.download(unofficial="true")
        assert (place.root / "data" / "raw" / "taco_unofficial" / "batch_1" / "000000.jpg").read_bytes() == photo(0)
        assert "-P unlabelled=" in capsys.readouterr().out
        assert not place.folder.exists()


def test_too_little_room(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fill(2)
    place.images[0] |= {"width": 400_000, "height": 300_000}
    place.publish()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 1_500_000})())
    with pytest.raises(DatasetError, match=r"The photos to fetch \(2\) take about 2\.0 MB, and .* has 1\.5 MB free"):
        place.download()
    assert set(place.files()) == {"annotations.json"}


def test_room_for_photos_that_replace_a_smaller_copy(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    small = photo(0, 160, 120)
    place.add("a.jpg", Content(photo(0)), flickr_640_url=place.server.serve("/small.jpg", Content(small)))
    place.images[0] |= {"width": 4000, "height": 3000}
    place.publish()
    place.download("web.max_bytes=1000000", size="640")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 10**6 - len(small) - 1})())
    with pytest.raises(DatasetError, match=r"The photos to fetch \(1\) take about 0\.994 MB"):
        place.download("web.max_bytes=1000000")
    assert place.files()["a.jpg"] == small
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 10**6 - len(small)})())
    place.download("web.max_bytes=1000000")
    assert place.files()["a.jpg"] == photo(0)


def test_photos_brought_by_the_user_need_no_room(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fill(2)
    place.publish()
    for number in range(2):
        path = place.folder / "batch_1" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 0})())
    place.download()
    assert set(place.statuses().values()) == {"done"}
    assert place.asked_since(0) == ["/annotations.json"]


def test_one_process_a_folder(place: Place) -> None:
    with alone_in(place.folder, "data_folder"), pytest.raises(DatasetError, match="Another run is writing to"):
        place.download()


def test_no_password_gets_into_the_run(place: Place) -> None:
    tracker = MemoryTracker()
    with pytest.raises(AnnotationsError, match="refused"):
        place.download("annotations_url=https://me:secret@example.org/a.json", tracker)
    assert "secret" not in json.dumps(tracker.runs[0].parameters)


def test_the_run_logs_everything_but_the_contact(place: Place) -> None:
    place.fill(1)
    place.publish()
    parameters = place.download("contact=me@example.org").parameters
    assert "me@example.org" not in json.dumps(parameters)
    assert "me@example.org" in place.server.requests[0].headers["user-agent"]
    assert parameters["archive_url"] == f"{place.server.host}/TACO.zip"
    assert parameters["web.attempts"] == "3"


@pytest.fixture
def _plain_interrupts() -> Iterator[None]:
    """Use Python's own handler of Ctrl-C: that of Wastelens would remember it for later tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_plain_interrupts")
def test_ctrl_c_ends_soon_and_keeps_what_is_done(place: Place) -> None:
    place.fill(3)
    for number in range(20):
        place.add(f"slow{number}.jpg", Hang(600))
    place.publish()

    def press() -> None:
        while len(list(place.folder.glob("batch_1/*.jpg"))) < 3:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    tracker = MemoryTracker()
    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        place.download("web.read_timeout_s=600", tracker)
    thread.join()
    assert tracker.runs[0].status == "KILLED"
    assert len([name for name in place.files() if name.startswith("batch_1")]) == 3


class TestArchive:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(download, "USUAL_BYTES", 3_000_000)

    def pack(self, place: Place, files: dict[str, bytes], root: str = "TACO/data/", **more: Any) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"__MACOSX/{root}annotations.json", b"resource fork")
            archive.writestr(f"{root}annotations.json", coco(place.images))
            for name, content in files.items():
                archive.writestr(f"{root}{name}", content)
            archive.writestr("../../slipped.jpg", photo(7))
            archive.writestr(f"{root}readme.txt", b"not asked for")
            for info, content in more.get("others", []):
                archive.writestr(info, content)
        return packed.getvalue()

    def test_what_the_annotations_name_and_nothing_else(self, place: Place) -> None:
        good = {f"batch_1/{number}.jpg": photo(number) for number in range(4)}
        for name in [*good, "missing.jpg", "bomb.jpg", "large.jpg", "link.jpg", "page.jpg"]:
            place.add(name, Content(photo(60)))
        link = zipfile.ZipInfo("TACO/data/link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        bad = {"bomb.jpg": bytes(1_900_000), "large.jpg": photo(8) * 200, "page.jpg": b"<html>"}
        packed = self.pack(place, {**good, **bad}, others=[(link, b"/etc/passwd")])
        place.server.serve("/TACO.zip", Cut(packed, etag='"z"'), Content(packed, etag='"z"'))
        place.download(source="zenodo", max_problem_share="0.9")
        files = place.files()
        assert files.pop("annotations.json") == coco(place.images)
        assert files == good
        reasons = {name: row["reason"] for name, row in place.rows().items() if row["status"] != "done"}
        assert reasons["missing.jpg"] == "not in the archive"
        assert "200 times" in reasons["bomb.jpg"]
        assert "max_bytes" in reasons["large.jpg"]
        assert "a link" in reasons["link.jpg"]
        assert reasons["page.jpg"] == "a web page, not a photo"
        assert not list(place.root.rglob("slipped*"))
        assert not list(place.folder.glob(".unfinished"))
        assert {request.path for request in place.server.requests} == {"/TACO.zip?download=1"}
        assert place.server.requests[1].headers["range"].startswith("bytes=")

        before = len(place.server.requests)
        place.download(source="zenodo", max_problem_share="0.9")
        assert place.asked_since(before) == []

    def test_what_the_web_did_not_have_comes_from_the_archive(self, place: Place) -> None:
        place.fill(4)
        place.add("batch_2/gone.jpg", Status(404))
        place.publish()
        place.download()
        files = {"batch_1/000000.jpg": photo(70), "batch_2/gone.jpg": photo(71)}
        place.server.serve("/TACO.zip", Content(self.pack(place, files)))
        place.download(source="zenodo")
        assert place.files()["batch_2/gone.jpg"] == photo(71)
        assert place.files()["batch_1/000000.jpg"] == photo(0)  # what was there stays

    def test_what_came_from_the_archive_is_not_fetched_from_the_web(self, place: Place) -> None:
        place.fill(3)
        small = place.server.serve("/small.jpg", Content(photo(0, 160, 120)))
        place.images[0]["flickr_640_url"] = small
        place.publish()
        place.server.serve("/TACO.zip", Content(self.pack(place, {f"batch_1/{n:06}.jpg": photo(n) for n in range(3)})))
        place.download(source="zenodo")
        before, files = len(place.server.requests), place.files()
        place.download()
        assert place.asked_since(before) == ["/annotations.json"]
        assert place.files() == files
        before = len(place.server.requests)
        place.download(size="640")  # which says that the one of which there is a small copy is to lie there as such
        assert place.asked_since(before) == ["/annotations.json", "/small.jpg"]

    def test_the_part_of_an_archive_that_is_there_needs_no_more_room(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place.fill(3)
        noise = random.Random(0).randbytes(2_000_000)
        others = [(zipfile.ZipInfo("noise"), noise)]
        packed = self.pack(place, {f"batch_1/{n:06}.jpg": photo(n) for n in range(3)}, others=others)
        place.server.serve("/TACO.zip", Cut(packed, etag='"z"', at=0.9), Status(500))
        with pytest.raises(DatasetError, match="is not available"):
            place.download(source="zenodo")
        place.server.serve("/TACO.zip", Content(packed, etag='"z"'))
        there = int(0.9 * len(packed))
        monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 6_000_000 - there - 1})())
        with pytest.raises(DatasetError, match=r"The archive and its photos take about 4\.\d MB"):
            place.download(source="zenodo")
        capsys.readouterr()
        monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 6_000_000 - there})())
        place.download(source="zenodo")
        assert place.server.requests[-1].headers["range"] == f"bytes={there}-"
        said = capsys.readouterr().out
        assert f"of which {there / 1e6:.1f} MB are there" in said
        assert re.search(r"Archive, MB .* 2/3 ", said)

    def test_a_damaged_photo_in_it(self, place: Place) -> None:
        place.fill(5)
        packed = self.pack(place, {f"batch_1/{number:06}.jpg": photo(number) for number in range(5)})
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            info = archive.getinfo("TACO/data/batch_1/000002.jpg")
        broken = bytearray(packed)
        broken[info.header_offset + 200] ^= 255
        place.server.serve("/TACO.zip", Content(bytes(broken)))
        place.download(source="zenodo")
        assert place.statuses()["batch_1/000002.jpg"] == "wrong"
        assert "damaged in the archive" in place.rows()["batch_1/000002.jpg"]["reason"]

    def test_an_interruption_while_unpacking(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        place.fill(5)
        packed = self.pack(place, {f"batch_1/{number:06}.jpg": photo(number) for number in range(5)})
        place.server.serve("/TACO.zip", Content(packed))
        original = download.Speed.photo
        monkeypatch.setattr(download.Speed, "photo", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            place.download(source="zenodo")
        monkeypatch.setattr(download.Speed, "photo", original)
        place.download(source="zenodo")
        assert len(place.server.requests) == 1
        assert len(place.files()) == 6

    @pytest.mark.parametrize("answer", [Page(), Content(b"PK\x05\x06" + bytes(18)), Content(b"")])
    def test_what_is_no_archive_of_annotations(self, place: Place, answer: Answer) -> None:
        place.server.serve("/TACO.zip", answer)
        with pytest.raises(DatasetError, match="archive_url"):
            place.download(source="zenodo")
        assert place.files() == {}

    def test_an_archive_of_unusable_annotations_is_not_used_again(self, place: Place) -> None:
        place.fill(3)
        files = {f"batch_1/{number:06}.jpg": photo(number) for number in range(3)}
        good, place.images[0]["id"] = self.pack(place, files), "no number"
        place.server.serve("/TACO.zip", Content(self.pack(place, files)), Content(good))
        with pytest.raises(InputError, match="archive_url"):
            place.download(source="zenodo")
        place.images[0]["id"] = 0
        place.download(source="zenodo")  # the advice is to try again, or another URL
        assert len(place.files()) == 4

    def test_annotations_that_are_not_available(self, place: Place) -> None:
        with pytest.raises(DatasetError, match=r"404.*source=web"):
            place.download(source="zenodo")

    @pytest.mark.parametrize("setting", [{"size": "640"}, {"unofficial": "true"}])
    def test_what_it_does_not_have(self, place: Place, setting: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match="source=zenodo"):
            place.download(source="zenodo", **setting)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
