"""``python -m bench.downloads``: speedup by workers against latency, and memory for large photos, on loopback."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.factories import write_dataset
from tests.getting.test_catalogues import record, results
from tests.web_server import Content, WebServer, photo

PHOTOS, LATENCY_S, WORKERS = 200, 0.1, 8
LARGE_PHOTOS = 12
LARGE = (("JPEG", 0.1), ("JPEG", 100), ("progressive JPEG", 100), ("PNG", 100), ("PNG", 20))
PROGRAM = (sys.executable, str(Path(__file__).resolve().parents[1] / "src" / "wastelens"))

# In a process of its own, as a child's peak includes the memory of the process that it was forked from.
WATCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main() -> None:
    """Measure both, and print the tables of results.md."""
    small = [photo(number) for number in range(PHOTOS)]
    print("| workers | photos/s, at 100 ms per photo | ratio |\n|---|---|---|")
    rates = [_photos_per_second(small, workers) for workers in (1, WORKERS)]
    for workers, rate in zip((1, WORKERS), rates, strict=True):
        print(f"| {workers} | {rate:.1f} | {rate / rates[0]:.1f} |", flush=True)
    head = ("megapixels", "MB per photo", "peak memory of download, MB", "of collect")
    print(f"\n| {LARGE_PHOTOS} photos, {WORKERS} workers | {' | '.join(head)} |")
    print("|---|---|---|---|---|")
    for form, megapixels in LARGE:
        content = _large(form, megapixels)
        peaks = [_peak_of_download_mb(content, megapixels), _peak_of_collect_mb(content, megapixels)]
        row = [form, str(megapixels), f"{len(content) / 1e6:.0f}", *(f"{peak:.0f}" for peak in peaks)]
        print(f"| {' | '.join(row)} |", flush=True)


def _photos_per_second(photos: list[bytes], workers: int) -> float:
    """Return the rate of the step alone, without starting Python and MLflow."""
    from tests.memory_tracking import MemoryTracker

    from wastelens.config.files import load_config
    from wastelens.steps import download

    with tempfile.TemporaryDirectory() as folder, WebServer() as server:
        settings = _serve(server, photos, folder, (320, 240), LATENCY_S)
        config = load_config("download", parameters={"workers": str(workers)}, settings=settings)
        started = time.perf_counter()
        download.run(config, MemoryTracker())  # type: ignore[arg-type]  # the step's own config
        return len(photos) / (time.perf_counter() - started)


def _peak_of_download_mb(content: bytes, megapixels: float) -> float:
    """Return the peak resident memory of ``wastelens download`` in 10⁶ bytes, MLflow included."""
    with tempfile.TemporaryDirectory() as folder, WebServer() as server:
        side = _side(megapixels)
        photos = [content + bytes([number]) for number in range(LARGE_PHOTOS)]  # otherwise they would be a placeholder
        settings = _serve(server, photos, folder, (side, side), 0.0)
        return _peak_mb(folder, "download", "--workers", str(WORKERS), "--set", settings)


def _peak_of_collect_mb(content: bytes, megapixels: float) -> float:
    """Return that of ``wastelens collect``, beside a small prepared dataset."""
    with tempfile.TemporaryDirectory() as folder, WebServer() as server:
        write_dataset(Path(folder) / "litter", side=(48, 48))
        subprocess.run((*PROGRAM, "prepare", "--dataset", "litter"), cwd=folder, check=True, capture_output=True)
        side = _side(megapixels)
        urls = [server.serve(f"/{number}", Content(content + bytes([number]))) for number in range(LARGE_PHOTOS)]
        listed = [record(number, url=url, width=side, height=side) for number, url in enumerate(urls)]
        server.serve("/openverse", results(*listed))
        settings = (
            f"hosts=[{server.host}] openverse.url={server.address}/openverse sources=[openverse] terms.glass=[bottle] "
            f"web.connections_per_host=8 web.requests_per_second=1000 workers={WORKERS}"
        )
        chosen = ("--dataset", "litter", "--materials", "glass", "--contact", "me@example.org")
        return _peak_mb(folder, "collect", *chosen, "--set", settings)


def _peak_mb(folder: str, *arguments: str) -> float:
    watched = [sys.executable, "-c", WATCHER, *PROGRAM, *arguments]
    answer = subprocess.run(watched, cwd=folder, check=True, capture_output=True, text=True)
    return int(answer.stdout) * 1024 / 1e6


def _side(megapixels: float) -> int:
    return int((megapixels * 1e6) ** 0.5)


def _large(form: str, megapixels: float) -> bytes:
    """Return a photo of noise with this many pixels; one of 100 megapixels has about 40 MB."""
    side = _side(megapixels)
    spread = 1.2 if form == "PNG" else 27  # in grey levels
    strip = 128 + np.random.default_rng(0).normal(0, spread, (max(1, side // 10), side))
    written = io.BytesIO()
    pixels = np.vstack([strip.clip(0, 255).astype(np.uint8)] * 10)[:side]
    options: dict[str, Any] = {"quality": 75, "progressive": form.startswith("progressive"), "compress_level": 1}
    Image.fromarray(pixels).save(written, form.removeprefix("progressive "), **options)
    return written.getvalue()


def _serve(server: WebServer, photos: list[bytes], folder: str, side: tuple[int, int], latency_s: float) -> str:
    """Put annotations and photos on the server; return the settings to download them."""
    images = [
        {
            "id": number,
            "file_name": f"batch_1/{number}.jpg",
            "width": side[0],
            "height": side[1],
            "flickr_url": server.serve(f"/{number}.jpg", Content(content, delay_s=latency_s)),
        }
        for number, content in enumerate(photos)
    ]
    content = {"images": images, "annotations": [], "categories": [{"id": 0, "name": "Drink can"}]}
    server.serve("/annotations.json", Content(json.dumps(content).encode(), kind="text/plain"))
    return (
        f"data_folder={folder}/data hosts=[{server.host}] annotations_url={server.address}/annotations.json "
        "web.connections_per_host=8 web.requests_per_second=1000"
    )


if __name__ == "__main__":
    main()
