"""``python -m bench.downloads``: what workers gain against latency, and how much memory large photos take; loopback."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tests.web_server import Content, WebServer, photo

PHOTOS, LATENCY_S, WORKERS = 200, 0.1, 8
LARGE_PHOTOS, MEGAPIXELS = 12, 100
PROGRAM = (sys.executable, str(Path(__file__).resolve().parents[1] / "src" / "wastelens"))

# A process of its own: a child's peak begins with the memory of the process that it was forked from.
WATCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main() -> None:
    """Measure both, and print the tables of results.md."""
    small = [photo(number) for number in range(PHOTOS)]
    print("| workers | photos/s, at 100 ms a photo | ratio |\n|---|---|---|")
    rates = [_photos_per_second(small, workers) for workers in (1, WORKERS)]
    for workers, rate in zip((1, WORKERS), rates, strict=True):
        print(f"| {workers} | {rate:.1f} | {rate / rates[0]:.1f} |", flush=True)
    print(f"\n| {LARGE_PHOTOS} photos of {MEGAPIXELS} megapixels, {WORKERS} workers | MB a photo | peak memory, MB |")
    print("|---|---|---|")
    for form in ("JPEG", "PNG"):
        content = _large(form)
        print(f"| {form} | {len(content) / 1e6:.0f} | {_peak_mb(content):.0f} |", flush=True)


def _photos_per_second(photos: list[bytes], workers: int) -> float:
    """Of the step alone: starting Python and MLflow is no part of it."""
    from wastelens.config_files import load_config
    from wastelens.memory_tracking import MemoryTracker
    from wastelens.steps import download

    with tempfile.TemporaryDirectory() as folder, WebServer() as server:
        settings = _serve(server, photos, folder, (320, 240), LATENCY_S)
        config = load_config("download", parameters={"workers": str(workers)}, settings=settings)
        started = time.perf_counter()
        download.run(config, MemoryTracker())  # type: ignore[arg-type]  # the step's own config
        return len(photos) / (time.perf_counter() - started)


def _peak_mb(content: bytes) -> float:
    """Resident memory of ``wastelens download`` at its highest, in 10⁶ bytes, MLflow included."""
    with tempfile.TemporaryDirectory() as folder, WebServer() as server:
        side = int((MEGAPIXELS * 1e6) ** 0.5)
        photos = [content + bytes([number]) for number in range(LARGE_PHOTOS)]  # or they were a placeholder
        settings = _serve(server, photos, folder, (side, side), 0.0)
        command = [*PROGRAM, "download", "--workers", str(WORKERS), "--set", settings]
        watched = [sys.executable, "-c", WATCHER, *command]
        answer = subprocess.run(watched, cwd=folder, check=True, capture_output=True, text=True)
        return int(answer.stdout) * 1024 / 1e6


def _large(form: str) -> bytes:
    """A photo of noise with so many pixels; about 40 MB."""
    side = int((MEGAPIXELS * 1e6) ** 0.5)
    spread = {"JPEG": 27, "PNG": 1.2}[form]  # in grey levels
    strip = 128 + np.random.default_rng(0).normal(0, spread, (side // 10, side))
    written = io.BytesIO()
    pixels = np.vstack([strip.clip(0, 255).astype(np.uint8)] * 10)
    Image.fromarray(pixels).save(written, form, quality=75, compress_level=1)
    return written.getvalue()


def _serve(server: WebServer, photos: list[bytes], folder: str, side: tuple[int, int], latency_s: float) -> str:
    """Put annotations and photos on the server; the settings to download them."""
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
