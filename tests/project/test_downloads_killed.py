"""``download`` and ``collect`` in processes of their own, killed at random moments: the result is the same."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.factories import config, write_dataset
from tests.getting.test_catalogues import file_page, pages, record, results
from tests.memory_tracking import MemoryTracker
from tests.project.running import complaint, ok, output_of, start, wait_for, wastelens
from tests.web_server import Answer, Content, Cut, Hang, Page, Status, WebServer, photo

from wastelens.steps import prepare

PHOTOS, KILLS = 40, 10
GOOD = [photo(number) for number in range(PHOTOS)]


@pytest.fixture
def server() -> Iterator[WebServer]:
    """Serve slow photos, some cut off at every other request, two that are gone, and a web page."""
    with WebServer() as running:
        images = []
        for number, content in enumerate(GOOD):
            whole, cut = (kind(content, etag=f'"{number}"', delay_s=0.15) for kind in (Content, Cut))
            answers: list[Answer] = [cut, whole] * 50 if number % 4 == 0 else [whole]
            images.append((f"batch_{number % 3}/{number}.jpg", running.serve(f"/{number}.jpg", *answers)))
        images += [(f"gone/{number}.jpg", running.serve(f"/gone{number}", Status(404))) for number in range(2)]
        images.append(("gone/page.jpg", running.serve("/page", Page())))
        named = [
            {"id": number, "file_name": name, "width": 320, "height": 240, "flickr_url": url}
            for number, (name, url) in enumerate(images)
        ]
        content = {"images": named, "annotations": [], "categories": [{"id": 0, "name": "Drink can"}]}
        running.serve("/annotations.json", Content(json.dumps(content).encode(), kind="text/plain", etag='"a"'))
        yield running


def command(server: WebServer, folder: str) -> tuple[str, ...]:
    settings = (
        f"data_folder={folder} hosts=[{server.host}] annotations_url={server.address}/annotations.json "
        "web.backoff_s=0.01 web.requests_per_second=1000"
    )
    return ("download", "--workers", "4", "--set", settings)


def content_of(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.slow
def test_a_download_killed_ten_times_ends_the_same(server: WebServer, tmp_path: Path) -> None:
    ok(wastelens(*command(server, "undisturbed"), cwd=tmp_path))
    undisturbed = content_of(tmp_path / "undisturbed" / "raw" / "taco")
    assert {name for name in undisturbed if name.startswith("batch")} == {
        f"batch_{n % 3}/{n}.jpg" for n in range(PHOTOS)
    }
    downloads = tmp_path / "killed" / "raw" / "taco"
    kill_at_random_moments(command(server, "killed"), server, tmp_path, 0.25)
    assert len(list(downloads.glob("batch_*/*.jpg"))) < PHOTOS  # or the kills have come too late
    ok(wastelens(*command(server, "killed"), cwd=tmp_path))
    assert content_of(downloads) == undisturbed


def kill_at_random_moments(arguments: tuple[str, ...], server: WebServer, cwd: Path, within_s: float) -> None:
    """Start a command ten times, and kill each within that time after its first request."""
    rng = random.Random(0)
    for _ in range(KILLS):
        asked = len(server.requests)
        process = start(*arguments, cwd=cwd)
        while len(server.requests) == asked and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, within_s))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, output_of(process)


def collecting(server: WebServer, folder: str) -> tuple[str, ...]:
    settings = (
        f"hosts=[{server.host}] openverse.url={server.address}/openverse commons.url={server.address}/commons "
        "openverse.seconds_between_requests=0 commons.seconds_between_requests=0 terms.glass=[bottle] min_side_px=100 "
        "web.backoff_s=0.01 web.requests_per_second=1000 workers=2"
    )
    chosen = ("--dataset", "litter", "--folder", folder, "--materials", "glass")
    return ("collect", *chosen, "--contact", "me@example.org", "--set", settings)


@pytest.mark.slow
def test_a_collection_killed_ten_times_ends_the_same(server: WebServer, tmp_path: Path) -> None:
    write_dataset(tmp_path / "litter", side=(48, 48))
    settings = f"image_side_px=32 data_folder={tmp_path / 'data'}"
    prepare.run(config("prepare", settings, dataset=str(tmp_path / "litter")), MemoryTracker())
    urls = [server.address + f"/{number}.jpg" for number in range(PHOTOS)]
    listed = [record(number, url=url) for number, url in enumerate(urls[::2])]
    server.serve("/openverse", results(*listed, record(98, url=f"{server.address}/gone0")))
    found = [file_page(n, n, info={"url": url, "width": 320, "height": 240}) for n, url in enumerate(urls[1::2], 1)]
    server.serve("/commons", pages(*found, file_page(99, 99, info={"url": f"{server.address}/page"})))
    ok(wastelens(*collecting(server, "undisturbed"), cwd=tmp_path))
    undisturbed = content_of(tmp_path / "undisturbed")
    kept = sum(name.startswith("glass/") for name in undisturbed)
    assert kept > PHOTOS / 2
    kill_at_random_moments(collecting(server, "killed"), server, tmp_path, 0.5)
    assert 0 < len(list((tmp_path / "killed" / "glass").iterdir())) < kept  # or the kills have come too early or late
    ok(wastelens(*collecting(server, "killed"), cwd=tmp_path))
    assert content_of(tmp_path / "killed") == undisturbed
    asked = len(server.requests)
    ok(wastelens(*collecting(server, "killed"), cwd=tmp_path))
    assert not [request for request in server.requests[asked:] if request.path.endswith(".jpg")]


def test_bad_input_is_one_line(server: WebServer, tmp_path: Path) -> None:
    server.serve("/annotations.json", Page())
    assert "cannot be used, and nothing here was changed" in complaint(
        wastelens(*command(server, "data"), cwd=tmp_path)
    )
    (tmp_path / "file").touch()
    assert "Move the file away" in complaint(wastelens(*command(server, "file"), cwd=tmp_path))


def test_ctrl_c_ends_within_seconds_and_keeps_what_is_done(server: WebServer, tmp_path: Path) -> None:
    for number in set(range(PHOTOS)) - {0, 12, 15}:  # whose names come first
        server.serve(f"/{number}.jpg", Hang(60))
    photos = tmp_path / "data" / "raw" / "taco"
    process = start(*command(server, "data"), cwd=tmp_path)
    wait_for(process, lambda: len(list(photos.glob("batch_*/*.jpg"))) == 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=8) == 130, output_of(process)  # two seconds on a machine with nothing else to do
    assert output_of(process).splitlines()[-1] == "wastelens: Interrupted. Finished work is kept."
    assert len(list(photos.glob("batch_*/*.jpg"))) == 3
