"""The step ``collect`` against a server that plays Openverse and Commons, and the places their photos are at."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from tests.factories import blocks, image_bytes, write_json
from tests.getting.test_catalogues import file_page, pages, record, results
from tests.memory_tracking import MemoryTracker
from tests.web_server import Answer, Content, Cut, Gzip, Hang, Json, Page, Promise, Redirect, Status, WebServer, photo

from wastelens.config.collect import CollectConfig
from wastelens.config.files import load_config
from wastelens.data.photos import cache as photo_cache
from wastelens.errors import ConfigError, DatasetError, InputError, PreparedDatasetError
from wastelens.getting.ledger import CsvLedger
from wastelens.getting.licences import is_reduced_copy
from wastelens.getting.shared import Gathered
from wastelens.steps import collect
from wastelens.system import interrupts
from wastelens.system.files import alone_in
from wastelens.training.unlabelled import UNLABELLED_CACHE, load_unlabelled
from wastelens.web.errors import NoNetwork

FAST = (
    "web.backoff_s=0.001 web.attempts=2 web.requests_per_second=10000 web.connect_timeout_s=1 web.read_timeout_s=1.5 "
    "web.longest_wait_s=0.5 web.max_bytes=1000000 openverse.seconds_between_requests=0 "
    "commons.seconds_between_requests=0 min_side_px=100 max_megapixels=1 max_decoding_mb=1.5"
)
OPENVERSE, COMMONS = "/v1/images/", "/w/api.php"
SIDE = (160, 120)


@dataclass
class World:
    """The part of the web that is needed, and a folder for photos collected from it."""

    server: WebServer
    prepared: Path
    folder: Path
    tracker: MemoryTracker = field(default_factory=MemoryTracker)

    def __post_init__(self) -> None:
        self.openverse()
        self.commons()

    def openverse(self, *records: Any) -> None:
        self.server.serve(OPENVERSE, results(*records))

    def commons(self, *listed: Any) -> None:
        self.server.serve(COMMONS, pages(*listed) if listed else Json({"batchcomplete": True}))

    def at(self, path: str, *answers: Answer) -> str:
        return self.server.serve(path, *answers)

    def on_openverse(self, number: int, *answers: Answer, **other: Any) -> dict[str, Any]:
        """Return Openverse's record of a photo that is available."""
        return record(number, url=self.at(f"/photo/{number}", *answers), **other)

    def on_commons(self, number: int, content: bytes, **told: Any) -> dict[str, Any]:
        """Return Commons' page of a file that is available."""
        return self.commons_page(number, Content(content), size=size_of(content), **told)

    def commons_page(
        self, number: int, *answers: Answer, size: tuple[int, int] = (1000, 750), **told: Any
    ) -> dict[str, Any]:
        url = self.at(f"/file/{number}", *answers)
        return file_page(number, number, info={"url": url, "width": size[0], "height": size[1]}, **told)

    def collect(
        self, settings: str = "", materials: str = "glass", config_file: str = "", **parameters: str
    ) -> Gathered:
        terms = "" if "terms." in settings else "terms.glass=[bottle] terms.paper=[paper]"
        parameters = {"contact": "me@example.org", "materials": materials, "photos": "10", **parameters}
        places = {"dataset": str(self.prepared / "litter"), "folder": str(self.folder)}
        chosen = load_config(
            "collect",
            parameters={**places, **parameters},
            config_file=config_file,
            settings=f"{FAST} {terms} openverse.url={self.server.address}{OPENVERSE} "
            f"commons.url={self.server.address}{COMMONS} hosts=[{self.server.host}] "
            f"data_folder={self.prepared / 'data'} {settings}",
        )
        assert isinstance(chosen, CollectConfig)
        return collect.run(chosen, self.tracker)

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "collected.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def row(self, number: int) -> dict[str, str]:
        (row,) = [row for row in self.rows() if row["photo_url"].endswith(f"/{number}")]
        return row

    def files(self) -> dict[str, bytes]:
        """Return the photos by their names below the folder, which may hold nothing else but the two lists."""
        below = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        assert {"collected.csv", "ATTRIBUTION.md"} <= below.keys()
        return {name: path.read_bytes() for name, path in below.items() if "/" in name}

    def attribution(self) -> str:
        return (self.folder / "ATTRIBUTION.md").read_text(encoding="utf-8")


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as running:
        yield running


@pytest.fixture
def world(server: WebServer, prepared_folder: Path, tmp_path: Path) -> Iterator[World]:
    yield World(server, prepared_folder, tmp_path / "collected")
    shutil.rmtree(prepared_folder / "data" / "prepared" / ".unlabelled", ignore_errors=True)


def size_of(content: bytes) -> tuple[int, int]:
    """Return a photo's stored width and height; zeros if it is not a photo."""
    with contextlib.suppress(UnidentifiedImageError), Image.open(io.BytesIO(content)) as header:
        return header.size
    return 0, 0


def picture(seed: int, side: tuple[int, int] = SIDE) -> bytes:
    """Return a JPEG unlike those of other seeds and the photos of the dataset."""
    return image_bytes(blocks(np.random.default_rng(1000 + seed), side), quality=90)


def judged_photo(world: World, split: str = "test") -> Path:
    """Return the file of a photo in this split of the dataset."""
    with (world.prepared / "data" / "prepared" / "litter" / "labels.csv").open(encoding="utf-8", newline="") as file:
        name = next(row["source_file"] for row in csv.DictReader(file) if row["split"] == split)
    return world.prepared / "litter" / name


def test_photos_from_both_with_their_licences(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.openverse(world.on_openverse(1, Content(picture(1)), license="by", license_version="2.0"))
    world.commons(world.on_commons(2, picture(2)))
    collected = world.collect()
    identity = record(1)["id"]
    names = ["glass/commons_2.jpg", f"glass/openverse_{identity}.jpg"]
    assert world.files() == {names[0]: picture(2), names[1]: picture(1)}
    assert {name: world.row(1)[name] for name in world.row(1) if name not in ("photo_url", "bytes")} == {
        "file": names[1],
        "material": "glass",
        "term": "bottle",
        "source": "openverse",
        "id": identity,
        "title": "Bottle on a beach",
        "creator": "Someone",
        "creator_url": "https://www.flickr.com/photos/someone",
        "licence": "by",
        "licence_version": "2.0",
        "licence_url": "https://creativecommons.org/licenses/by/2.0/",
        "page_url": "https://www.flickr.com/photos/someone/1",
        "width": "160",
        "height": "120",
        "sha256": hashlib.sha256(picture(1)).hexdigest(),
        "status": "kept",
        "reason": "",
        "decided_by": "",
    }
    assert (
        "[Bottle on a beach](<https://www.flickr.com/photos/someone/1>) by "
        "[Someone](<https://www.flickr.com/photos/someone>), "
        "[CC BY 2.0](<https://creativecommons.org/licenses/by/2.0/>)"
    ) in world.attribution()
    said = capsys.readouterr().out
    assert f"-P unlabelled={world.folder}" in said
    assert "CC BY-SA 4.0" in said
    assert collected.metrics["photos"] == collected.metrics["photos/glass"] == 2


def test_a_run_tells_of_it(world: World) -> None:
    world.commons(world.on_commons(2, picture(2)), world.on_commons(3, b"text"))
    collected = world.collect()
    (run,) = world.tracker.runs
    assert run.id == collected.run_id
    assert (run.name, run.tags["step"], run.tags["dataset"]) == ("collect", "collect", "litter")
    assert run.metrics["photos"] == run.metrics["photos/left_out"] == 1
    assert run.metrics == collected.metrics
    assert "me@example.org" not in str(run.parameters)
    assert {"collected.csv", "ATTRIBUTION.md"} <= {path.name for path in run.folder.iterdir()}


def test_pretrain_can_learn_from_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos that the second run decodes are where pretrain looks for them: of four, one is left to decode."""
    world.commons(*(world.on_commons(number, picture(number)) for number in range(1, 5)))
    world.collect(photos="3")
    world.collect(photos="4")
    decoded = []
    real = photo_cache.decode
    monkeypatch.setattr(photo_cache, "decode", lambda content, *rest: decoded.append(content) or real(content, *rest))
    cache = world.prepared / "data" / "prepared" / UNLABELLED_CACHE
    found = load_unlabelled(
        world.folder,
        cache_folder=cache,
        side_px=32,
        max_problem_share=0.3,
        workers=1,
        forbidden=np.empty((0, 32, 32, 3), dtype=np.uint8),
        near_duplicate_distance=6,
    )
    assert len(found.rows) == 4
    assert decoded == [picture(4)]


def test_a_second_call_asks_nobody(world: World, server: WebServer, capsys: pytest.CaptureFixture[str]) -> None:
    world.commons(*(world.on_commons(number, picture(number)) for number in range(1, 4)))
    world.collect(photos="2")
    before, asked = world.files(), len(server.requests)
    rows, attribution = world.rows(), world.attribution()
    world.collect(photos="2")
    assert len(server.requests) == asked
    assert (world.files(), world.rows(), world.attribution()) == (before, rows, attribution)
    assert "Nothing to collect" in capsys.readouterr().out


def test_no_more_than_is_wanted_over_all_calls(world: World, server: WebServer) -> None:
    world.commons(*(world.on_commons(number, picture(number)) for number in range(1, 8)))
    world.collect(photos="2")
    assert sorted(world.files()) == ["glass/commons_1.jpg", "glass/commons_2.jpg"]
    world.collect(photos="5")
    assert sorted(world.files()) == [f"glass/commons_{number}.jpg" for number in range(1, 6)]
    assert [len(server.asked(f"/file/{number}")) for number in range(1, 8)] == [1, 1, 1, 1, 1, 0, 0]


def test_each_material_has_a_folder_and_terms_of_its_own(world: World, server: WebServer) -> None:
    server.serve(COMMONS, *(pages(world.on_commons(number, picture(number))) for number in range(1, 4)))
    world.collect("terms.glass=[bottle,jar] terms.paper=[paper]", "glass,paper", sources="commons")
    assert {row["file"]: row["term"] for row in world.rows()} == {
        "glass/commons_1.jpg": "bottle",
        "glass/commons_2.jpg": "jar",
        "paper/commons_3.jpg": "paper",
    }
    assert not server.asked(OPENVERSE)


def test_a_photo_that_two_materials_ask_for_is_taken_once(world: World, server: WebServer) -> None:
    world.commons(world.on_commons(1, picture(1)))
    world.collect(materials="glass,paper")
    assert list(world.files()) == ["glass/commons_1.jpg"]
    assert len(server.asked("/file/1")) == 1


@pytest.mark.parametrize(
    "page",
    ["https://commons.wikimedia.org/wiki/File:Litter_2.jpg", "https://commons.wikimedia.org/w/index.php?curid=2"],
)
def test_a_photo_that_both_catalogues_have_is_taken_once(world: World, page: str) -> None:
    world.openverse(world.on_openverse(1, Content(picture(1)), foreign_landing_url=page))
    world.commons(world.on_commons(2, picture(2)))
    world.collect()
    assert [row["source"] for row in world.rows()] == ["openverse"]


def test_the_same_file_at_two_places_is_kept_once(world: World) -> None:
    world.commons(world.on_commons(1, picture(1)), world.on_commons(2, picture(1)))
    world.collect()
    assert list(world.files()) == ["glass/commons_1.jpg"]
    assert world.row(2)["reason"] == "the same file: as glass/commons_1.jpg"


def gif() -> bytes:
    return image_bytes(Image.effect_noise(SIDE, 60), "GIF")


def moving(kind: str) -> bytes:
    frames = [Image.effect_noise(SIDE, 60).convert("RGB") for _ in range(3)]
    written = io.BytesIO()
    frames[0].save(written, kind, save_all=True, append_images=frames[1:])
    return written.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="500" height="500"/>'


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Content(picture(1, (99, 400))), "too few pixels: 99 x 400, the shorter side needs 100"),
        (Content(image_bytes(Image.new("L", (1200, 1000), 9))), "too many pixels: 1200 x 1000, the limit is 1 mega"),
        (Content(image_bytes(Image.new("1", (20_000, 20_000)), "PNG"), kind="image/png"), "too many pixels"),
        (
            Content(image_bytes(Image.new("L", (900, 1000), 9), "PNG"), kind="image/png"),
            "too large for memory: decoding it takes about 3.6 MB, the limit is 1.5 MB",
        ),
        (
            Content(image_bytes(Image.new("L", (900, 1000), 9), progressive=True)),
            "too large for memory: decoding it takes about 1.9 MB, the limit is 1.5 MB",
        ),
        (Content(gif(), kind="image/gif"), "neither JPEG, PNG, WebP nor TIFF"),
        (Content(SVG, kind="image/svg+xml"), "neither JPEG, PNG, WebP nor TIFF"),
        (Content(b"%PDF-1.4 no photo"), "neither JPEG, PNG, WebP nor TIFF"),
        (Content(moving("PNG"), kind="image/png"), "animated: 3 frames"),
        (Content(moving("WEBP"), kind="image/webp"), "animated: 3 frames"),
        (Content(moving("TIFF"), kind="image/tiff"), "several pages: 3"),
        (Content(picture(1)[:-500]), "damaged image file"),
        (Content(b""), "an empty file"),
        (Page(), "neither JPEG, PNG, WebP nor TIFF"),
        (Status(404), "404"),
        (Status(410), "410"),
        (Redirect("http://169.254.169.254/latest/meta-data/"), "refused"),
        (Redirect("http://127.0.0.1:1/"), "refused"),
        (Redirect("file:///etc/passwd"), "refused: only http"),
        (Promise(10**10), "too large"),
        (Gzip(bytes(10**6), kind="image/jpeg"), "sent compressed"),
    ],
)  # fmt: skip
def test_unusable_photos_are_left_out_with_a_reason(
    world: World, server: WebServer, answer: Answer, reason: str
) -> None:
    world.openverse(world.on_openverse(1, answer, width=None, height=None), world.on_openverse(2, Content(picture(2))))
    world.collect()
    assert list(world.files()) == [world.row(2)["file"]]
    row = world.row(1)
    assert (row["status"], row["file"], row["sha256"]) == ("left out", "", "")
    assert row["reason"].startswith(reason)
    world.collect()
    assert len(server.asked("/photo/1")) == 1  # it will be no better


@pytest.mark.parametrize(
    "answers", [[Status(500)], [Hang(1)], [Cut(picture(1), at=0.1)], [Status(429, {"Retry-After": "60"})]]
)
def test_photos_may_become_available_later(world: World, server: WebServer, answers: list[Answer]) -> None:
    world.openverse(world.on_openverse(1, *answers))
    world.collect()
    assert world.row(1)["status"] == "failed"
    assert world.files() == {}
    world.openverse(world.on_openverse(1, Content(picture(1))))
    world.collect()
    assert world.row(1)["status"] == "kept"
    assert list(world.files().values()) == [picture(1)]


@pytest.mark.parametrize(
    ("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif"), ("MPO", "jpg")]
)
def test_a_file_is_named_by_what_it_is(world: World, kind: str, suffix: str) -> None:
    content = moving("MPO") if kind == "MPO" else photo(1, *SIDE, form=kind)
    url = world.at("/photo/1.gif", Content(content, kind="application/octet-stream"))
    world.openverse(record(1, url=url))
    world.collect()
    assert [name.rpartition(".")[2] for name in world.files()] == [suffix]


def test_a_turned_photo_is_described_upright(world: World) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    world.commons(world.on_commons(1, image_bytes(Image.effect_noise((200, 120), 60), exif=exif)))
    world.collect()
    assert (world.row(1)["width"], world.row(1)["height"]) == ("120", "200")


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("way", [Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT, None])
def test_no_photo_that_a_model_is_judged_on_gets_in(world: World, split: str, way: Image.Transpose | None) -> None:
    with Image.open(judged_photo(world, split)) as original:
        turned = original.transpose(way) if way is not None else original.resize((200, 200))
    shrunk = turned.resize((120, 120), Image.Resampling.LANCZOS)
    world.commons(world.on_commons(1, image_bytes(shrunk, quality=70)), world.on_commons(2, picture(2)))
    world.collect()
    assert world.row(1)["reason"] == "near-duplicate: of a val or test photo"
    assert list(world.files()) == ["glass/commons_2.jpg"]


def test_near_duplicates_of_what_is_there_are_left_out(world: World) -> None:
    first = Image.open(io.BytesIO(picture(1)))
    again = image_bytes(first.transpose(Image.Transpose.ROTATE_180).resize((140, 105)), quality=60)
    of_the_user = image_bytes(first.transpose(Image.Transpose.ROTATE_90), "PNG")
    world.commons(world.on_commons(1, picture(1)), world.on_commons(2, again))
    world.collect()
    assert world.row(2)["reason"] == "near-duplicate: of glass/commons_1.jpg"
    (world.folder / "mine").mkdir()
    (world.folder / "mine" / "own.jpg").write_bytes(picture(5))
    world.commons(
        world.on_commons(3, of_the_user),
        world.on_commons(4, image_bytes(Image.open(io.BytesIO(picture(5))).rotate(180))),
    )
    world.collect()
    assert world.row(3)["reason"] == "near-duplicate: of glass/commons_1.jpg"
    assert world.row(4)["reason"] == "near-duplicate: of mine/own.jpg"
    assert sorted(world.files()) == ["glass/commons_1.jpg", "mine/own.jpg"]


def test_of_two_that_look_alike_the_first_offered_is_kept(world: World) -> None:
    again = image_bytes(Image.open(io.BytesIO(picture(1))).transpose(Image.Transpose.ROTATE_90))
    world.commons(world.commons_page(1, Content(picture(1), delay_s=0.2)), world.on_commons(2, again))
    world.collect()
    assert list(world.files()) == ["glass/commons_1.jpg"]


def test_licences_that_are_not_allowed(world: World, server: WebServer) -> None:
    listed = [
        world.on_commons(1, picture(1), LicenseShortName="GFDL", License="gfdl"),
        world.on_commons(2, picture(2), LicenseShortName="CC BY-NC 2.0", License="cc-by-nc-2.0"),
        world.on_commons(3, picture(3), LicenseShortName="", License=""),
    ]
    world.commons(*listed)
    world.collect()
    assert world.files() == {}
    assert not server.asked("/file/1")
    assert world.row(1)["reason"] == "licence: GFDL, which is not allowed"
    assert world.row(3)["reason"] == "licence: not stated, which is not allowed"
    world.collect(licences="by-nc")
    assert list(world.files()) == ["glass/commons_2.jpg"]


def test_other_limits_give_what_was_left_out_another_chance(world: World, server: WebServer) -> None:
    world.openverse(world.on_openverse(1, Content(picture(1, (120, 90))), width=1024, height=768))
    world.collect()
    assert world.row(1)["reason"].startswith("too few pixels: 120 x 90")
    world.collect()
    assert len(server.asked("/photo/1")) == 1
    world.collect("min_side_px=64")
    assert world.row(1)["status"] == "kept"


def test_a_distance_that_hid_a_photo_does_so_no_longer(world: World, server: WebServer) -> None:
    with Image.open(judged_photo(world)) as original:
        alike = image_bytes(original.resize((160, 160), Image.Resampling.BICUBIC).rotate(2), quality=30)
    world.commons(world.on_commons(1, alike))
    for _ in range(2):
        world.collect("near_duplicate_distance=7")
    assert world.row(1)["decided_by"] == "near_duplicate_distance=7"
    assert len(server.asked("/file/1")) == 1
    for _ in range(2):
        world.collect("near_duplicate_distance=0")
    assert len(server.asked("/file/1")) == 2
    assert world.row(1)["status"] == "kept"


def test_a_larger_limit_lets_a_larger_file_in(world: World, server: WebServer) -> None:
    world.openverse(world.on_openverse(1, Content(picture(1))))
    for _ in range(2):
        world.collect("web.max_bytes=500")
    assert len(server.asked("/photo/1")) == 1
    assert world.row(1)["reason"].startswith("too large: ")
    world.collect()
    assert (world.row(1)["status"], world.row(1)["decided_by"]) == ("kept", "")


def test_a_host_that_is_allowed_by_now_is_asked(world: World, server: WebServer) -> None:
    with WebServer() as other:
        world.openverse(record(1, url=other.serve("/photo/1", Content(picture(1)))))
        for _ in range(2):
            world.collect()
        assert (world.row(1)["decided_by"], other.requests) == (f"hosts={server.host}", [])
        world.collect(f"hosts=[{server.host},{other.host}]")
    assert world.row(1)["status"] == "kept"


@pytest.mark.parametrize("told", [(1024, 768), (1024, 750), (None, None), (1024, None)])
def test_a_photo_of_the_shape_that_was_told(world: World, told: tuple[int | None, int | None]) -> None:
    world.openverse(world.on_openverse(1, Content(picture(1)), width=told[0], height=told[1]))
    world.collect()
    assert world.row(1)["status"] == "kept"


@pytest.mark.parametrize("told", [(1000, 600), (600, 1000)])
def test_a_turned_photo_may_be_described_as_stored(world: World, told: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = image_bytes(Image.effect_noise((200, 120), 60), exif=exif)
    world.openverse(world.on_openverse(1, Content(content), width=told[0], height=told[1]))
    world.collect()
    assert world.row(1)["status"] == "kept"


@pytest.mark.parametrize("told", [(1024, 600), (768, 1024)])
def test_a_placeholder_has_another_shape(world: World, told: tuple[int, int]) -> None:
    world.openverse(world.on_openverse(1, Content(picture(1, (500, 374))), width=told[0], height=told[1]))
    world.collect()
    assert world.files() == {}
    assert world.row(1)["reason"] == f"another picture: described as {told[0]} x {told[1]}, the file is 500 x 374"


def test_a_photo_that_was_removed_by_hand_does_not_come_back(world: World, server: WebServer) -> None:
    world.commons(*(world.on_commons(number, picture(number)) for number in range(1, 4)))
    world.collect(photos="2")
    (world.folder / "glass" / "commons_1.jpg").unlink()
    world.collect(photos="2")
    assert sorted(world.files()) == ["glass/commons_2.jpg", "glass/commons_3.jpg"]
    assert world.row(1)["reason"] == "removed by hand"
    assert "commons_1" not in world.attribution().replace("\\", "")
    assert len(server.asked("/file/1")) == 1


class Killed(BaseException):
    """In place of SIGKILL."""


def dying(steps: Iterator[int], real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that works like the real one until the steps are used up."""

    def step(*arguments: Any, **named: Any) -> Any:
        if next(steps, None) is None:
            raise Killed
        return real(*arguments, **named)

    return step


@pytest.mark.parametrize("steps", range(11))
def test_killed_anywhere_and_run_again_it_ends_as_undisturbed(
    world: World, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Three photos are kept and one is dead: four rows, the list itself, and three files, each moved twice."""
    listed = [world.on_openverse(number, Content(picture(number))) for number in range(1, 4)]
    world.openverse(*listed, world.on_openverse(9, Status(404)))
    left = iter(range(steps))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dying(left, os.replace))
        patched.setattr(CsvLedger, "append", dying(left, CsvLedger.append))
        patched.setattr(collect, "_write_lists", lambda photos: None)
        with pytest.raises(Killed):
            world.collect()
    world.collect()
    after = world.files(), world.rows(), world.attribution()
    assert not (world.folder / ".unfinished").exists()
    world.folder.rename(world.folder.with_name("killed"))
    world.collect()
    assert (world.files(), world.rows(), world.attribution()) == after


def test_ctrl_c_keeps_what_is_there_and_writes_the_lists(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.commons(world.on_commons(1, picture(1)), world.commons_page(2, Hang(20)))
    real = interrupts.check

    def pressed() -> None:
        if world.server.asked("/file/2") and (world.folder / "glass").exists():
            raise KeyboardInterrupt
        real()

    monkeypatch.setattr(interrupts, "check", pressed)
    with pytest.raises(KeyboardInterrupt):
        world.collect("web.read_timeout_s=10")
    assert [row["file"] for row in world.rows()] == ["glass/commons_1.jpg"]
    assert "commons\\_1" in world.attribution()


def test_nothing_leads_out_of_the_folder(world: World) -> None:
    world.openverse(
        world.on_openverse(1, Content(picture(1)), id="../../../evil", title="../x"),
        world.on_openverse(2, Content(picture(2)), id="C:\\evil:stream"),
        world.on_openverse(3, Content(picture(3)), id="é" * 500),
    )
    terms = write_json(world.folder.with_name("terms.yaml"), {"terms": {"...": ["x"]}})
    world.collect(materials="...", sources="openverse", config_file=str(terms))
    files = world.files()
    assert len(files) == 3
    assert all(name.startswith("_/openverse_") and len(name) < 120 for name in files), files
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-/.") for name in files), files
    assert sorted(path.name for path in world.folder.parent.iterdir()) == ["collected", "terms.yaml"]


def test_hostile_texts_stay_texts(world: World) -> None:
    title = '=cmd|"/c calc"!A1 <script>alert(1)</script>[x](javascript:alert(2)) **b** &lt;img src=x onerror=1&gt;'
    title += "\n# h www.evil.example http://e.example"
    creator = "](javascript:alert(3)) @someone"
    world.openverse(
        world.on_openverse(
            1,
            Content(picture(1)),
            title=title,
            creator=creator,
            creator_url="javascript:alert(4)",
            foreign_landing_url="https://a.example/x)>[y](<https://evil.example",
            license_url="javascript:alert(5)",
        )
    )
    world.collect()
    assert world.row(1)["title"].startswith("'=cmd")
    assert world.row(1)["creator_url"] == ""
    text = world.attribution()
    (line,) = [line for line in text.splitlines() if line.startswith("- ")]
    for bad in ("<script", "<img", "](javascript", "](<javascript", ")>[y]", "**b**", " www.evil", " http:"):
        assert bad not in line
    assert "https://creativecommons.org/licenses/by-sa/2.0/" in line


def test_what_is_a_reduced_copy_is_named_one(world: World) -> None:
    copy = {"thumburl": world.at("/thumb/2", Content(picture(2))), "thumbwidth": 160, "thumbheight": 120}
    large = {"url": world.at("/file/2", Content(b"")), "width": 4000, "height": 3000, **copy}
    world.commons(world.on_commons(1, picture(1)), file_page(2, 2, info=large))
    world.collect()
    lines = [line for line in world.attribution().splitlines() if line.startswith("- ")]
    assert [line.endswith(", a reduced copy") for line in lines] == [False, True]
    assert "unchanged" not in world.attribution()


@pytest.mark.parametrize(
    ("source", "url", "expected"),
    [
        ("commons", "https://upload.wikimedia.org/wikipedia/commons/thumb/a/ab/A.jpg/1280px-A.jpg", True),
        ("commons", "https://upload.wikimedia.org/wikipedia/commons/a/ab/A.jpg", False),
        ("openverse", "https://upload.wikimedia.org/wikipedia/commons/thumb/a/ab/A.jpg/640px-A.jpg", True),
        ("openverse", "https://live.staticflickr.com/65535/12_ab_b.jpg", True),
        ("openverse", "https://live.staticflickr.com/65535/12_ab.jpg", True),
        ("openverse", "https://farm2.staticflickr.com/65535/12_ab_o.png", False),
        ("openverse", "https://example.org/thumb/1.jpg", False),
        ("openverse", "https://[", False),
    ],
)
def test_copies_are_known_by_their_addresses(source: str, url: str, expected: bool) -> None:
    assert is_reduced_copy(source, url) == expected


def test_an_attribution_of_the_users_own_is_left_alone(world: World, server: WebServer) -> None:
    world.folder.mkdir()
    (world.folder / "ATTRIBUTION.md").write_text("# My own credits\n")
    world.commons(world.on_commons(1, picture(1)))
    with pytest.raises(DatasetError, match=r"ATTRIBUTION\.md does not begin with .*Rename it"):
        world.collect()
    assert not server.requests
    assert {path.name for path in world.folder.iterdir() if path.name[0] != "."} == {"ATTRIBUTION.md"}
    assert world.attribution() == "# My own credits\n"


def test_an_attribution_that_is_ours_is_rewritten(world: World) -> None:
    world.folder.mkdir()
    (world.folder / "ATTRIBUTION.md").write_text("\ufeff# Where these photos are from\n\nEach was.\n", encoding="utf-8")
    world.commons(world.on_commons(1, picture(1)))
    world.collect()
    assert "commons\\_1" in world.attribution()


def test_a_huge_title_is_cut(world: World) -> None:
    world.openverse(world.on_openverse(1, Content(picture(1)), title="long " * 100_000))
    world.collect()
    assert len(world.row(1)["title"]) == 200


def test_one_catalogue_that_is_down_does_not_stop_the_other(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.at(OPENVERSE, Status(500))
    world.commons(world.on_commons(1, picture(1)))
    world.collect()
    assert list(world.files()) == ["glass/commons_1.jpg"]
    assert "Warning: openverse became unavailable" in capsys.readouterr().out


def test_no_catalogue_answers(world: World) -> None:
    world.commons(world.on_commons(1, picture(1)))
    world.collect()
    before, rows = world.files(), world.rows()
    world.at(OPENVERSE, Page())
    world.at(COMMONS, Status(503))
    with pytest.raises(InputError, match=r"No catalogue can be used .*openverse.*not JSON.*commons.*503") as error:
        world.collect()
    assert error.value.exit_status == 2
    assert "\n" not in str(error.value)
    assert (world.files(), world.rows()) == (before, rows)


def test_where_no_catalogue_answers_no_lists_are_begun(world: World) -> None:
    world.at(OPENVERSE, Status(404))
    world.at(COMMONS, Status(404))
    with pytest.raises(InputError, match="No catalogue can be used"):
        world.collect()
    assert [path.name for path in world.folder.iterdir() if path.name[0] != "."] == []


def test_where_nothing_is_found_there_is_nothing_to_list(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.collect().metrics["photos"] == 0
    assert [path.name for path in world.folder.iterdir() if path.name[0] != "."] == []
    assert "glass: 0 of 10 photos" in capsys.readouterr().out


def test_repeats_of_another_splits_test_photos_are_reported(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.commons(world.on_commons(1, picture(1)))
    world.collect()
    assert "repeat val or test photos" not in capsys.readouterr().out
    shutil.copy(judged_photo(world), world.folder / "glass" / "of_an_earlier_split.jpg")
    world.collect()
    assert f"Warning: 1 photos in {world.folder} repeat val or test photos of litter; pretrain" in (
        capsys.readouterr().out
    )


def test_bad_records_are_counted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.openverse(7, record(2, url=None), world.on_openverse(1, Content(picture(1))))
    assert world.collect().metrics["bad_records"] == 2
    assert "openverse: 2 malformed records were skipped" in capsys.readouterr().out


def test_photos_at_private_addresses_are_refused(world: World) -> None:
    world.openverse(record(1, url="http://169.254.169.254/latest/1"), record(2, url="http://localhost:1/2"))
    world.collect()
    assert [row["status"] for row in world.rows()] == ["left out", "left out"]
    assert all("refused" in row["reason"] for row in world.rows())


def test_no_network(world: World) -> None:
    with pytest.raises(NoNetwork):
        world.collect("openverse.url=http://nowhere.invalid/", sources="openverse")


def test_one_catalogue_without_an_address_does_not_stop_the_other(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.commons(world.on_commons(1, picture(1)))
    world.collect("openverse.url=http://nowhere.invalid/")
    assert list(world.files()) == ["glass/commons_1.jpg"]
    assert "openverse became unavailable (nowhere.invalid: its name" in capsys.readouterr().out


def test_no_network_for_either(world: World) -> None:
    with pytest.raises(NoNetwork, match=r"No network: 'nowhere\.invalid'"):
        world.collect("openverse.url=http://nowhere.invalid/ commons.url=http://neither.invalid/")


def test_too_little_room(world: World, server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 9_500_000})())
    with pytest.raises(DatasetError, match=r"10 photos take about 10\.0 MB, .* 9\.5 MB free.*another folder\.$"):
        world.collect()
    assert not server.requests


def test_a_contact_is_required(world: World, server: WebServer) -> None:
    with pytest.raises(ConfigError, match=r"-P contact=you@example.org"):
        world.collect(contact="")
    assert not server.requests
    assert not world.folder.exists()


def test_an_unknown_material(world: World) -> None:
    with pytest.raises(ConfigError, match=r"no terms for 'glas'.* Did you mean 'glass'\?"):
        world.collect(materials="paper,glas")
    assert not world.folder.exists()


@pytest.mark.parametrize(
    "name", ["cans & bottles", "cans (drink)", "a//b", "../../glass", "failed", "left_out", "x" * 300]
)
def test_a_material_that_no_metric_can_be_named_after(world: World, server: WebServer, name: str) -> None:
    terms = write_json(world.folder.with_name("terms.yaml"), {"terms": {name: ["x"]}})
    with pytest.raises(ConfigError, match=r"^terms: '.*' cannot name a material") as error:
        world.collect(materials=name, config_file=str(terms))
    assert "\n" not in str(error.value)
    assert not server.requests
    assert not world.folder.exists()


@pytest.mark.parametrize("name", ["Gläser", "drink cans", "a.b-c: d", "a/b"])
def test_a_material_may_have_any_other_name(world: World, name: str, mlflow_takes: Callable[[str], None]) -> None:
    terms = write_json(world.folder.with_name("terms.yaml"), {"terms": {name: ["x"]}})
    world.commons(world.on_commons(1, picture(1)))
    metrics = world.collect(materials=name, config_file=str(terms)).metrics
    assert metrics[f"photos/{name}"] == 1
    for metric in metrics:
        mlflow_takes(metric)


@pytest.fixture
def mlflow_takes() -> Callable[[str], None]:
    """Return MLflow's own check of a metric's name, which raises if it refuses one."""
    validation = pytest.importorskip("mlflow.utils.validation")
    check: Callable[[str], None] = validation._validate_metric_name
    return check


def test_without_a_prepared_dataset_nobody_could_tell_test_photos(world: World) -> None:
    with pytest.raises(PreparedDatasetError, match="prepare"):
        world.collect(f"data_folder={world.folder}")
    assert not world.folder.exists()


def test_one_process_a_folder(world: World, server: WebServer) -> None:
    with alone_in(world.folder, "folder"), pytest.raises(DatasetError, match=r"Another run .*choose another folder"):
        world.collect()
    assert not server.requests


def test_a_list_that_is_not_ours_is_left_alone(world: World) -> None:
    world.folder.mkdir()
    (world.folder / "collected.csv").write_text("my,own\n1,2\n")
    with pytest.raises(DatasetError, match="another table"):
        world.collect()
    assert (world.folder / "collected.csv").read_text() == "my,own\n1,2\n"


def test_what_the_user_has_there_is_left_alone(world: World) -> None:
    world.folder.mkdir()
    (world.folder / "notes.txt").write_text("mine")
    (world.folder / "broken.jpg").write_text("no photo")
    world.commons(world.on_commons(1, picture(1)))
    world.collect()
    assert (world.folder / "notes.txt").read_text() == "mine"
    assert list(world.files()) == ["glass/commons_1.jpg"]


@pytest.mark.parametrize("place", ["../outside.jpg", "/tmp/outside.jpg", "linked/outside.jpg"])
def test_a_list_that_names_files_outside_of_the_folder_is_refused(world: World, place: str) -> None:
    world.openverse(world.on_openverse(1, Content(picture(1))))
    world.collect()
    (name,) = world.files()
    draft = world.folder / ".unfinished" / Path(name).stem
    draft.parent.mkdir()
    (world.folder / name).rename(draft)  # as after a kill
    (world.folder / "linked").symlink_to(world.folder.parent)
    listed = world.folder / "collected.csv"
    listed.write_text(listed.read_text(encoding="utf-8").replace(name, place), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"has file '.*outside\.jpg', which is not below .*Correct that cell"):
        world.collect()
    assert not list(world.folder.parent.rglob("outside.jpg"))
    listed.write_text(listed.read_text(encoding="utf-8").replace(place, name), encoding="utf-8")
    world.collect()
    assert (world.folder / name).exists()
