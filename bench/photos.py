"""Photo preparation: the cache compared with full decoding by Pillow, one photo after another."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.measure import SHARED, Measurement, best_of
from wastelens.data.photos.cache import PhotoCache, PhotoSource
from wastelens.system.machine import worker_count

SIDE_PX = 160
COPIES = 4


def full_size_photos(folder: Path) -> list[Path]:
    """Return the 60 real full-size photos or, if they are absent, 24 rendered ones."""
    real = sorted((SHARED / "data" / "taco_fullsize" / "photos").glob("*/*"))
    return real or _rendered(folder)


def _rendered(folder: Path, count: int = 24) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        rough = Image.fromarray(rng.integers(0, 256, (408, 306, 3), dtype=np.uint8))
        path = folder / f"{number:06}.jpg"
        rough.resize((2448, 3264), Image.Resampling.BICUBIC).save(path, quality=85)
        paths.append(path)
    return paths


def pillow_one_by_one(paths: list[Path]) -> None:
    """Open each photo, turn it upright, convert it to RGB and resize it, as a notebook would."""
    for path in paths:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image).convert("RGB").resize((SIDE_PX, SIDE_PX))


def pillow_area_one_by_one(paths: list[Path]) -> None:
    """Do the same with Pillow's cheapest filter."""
    for path in paths:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image).convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)


def measure() -> list[Measurement]:
    """Measure photos per second both ways, with files in the page cache."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = full_size_photos(folder)
        real = SHARED in paths[0].parents
        peers = {"": pillow_one_by_one, ", box filter": pillow_area_one_by_one}
        sources = [PhotoSource(f"{copy}_{path.name}", path) for copy in range(COPIES) for path in paths]
        workers = worker_count("auto")
        runs = iter(range(1000))

        def ours() -> None:
            cache = PhotoCache(folder / f"cache{next(runs)}", SIDE_PX, 200)
            cache.fill(sources, workers=workers)

        rate = len(sources) / best_of(3, ours)
        lines = []
        for name, peer in peers.items():
            peer_rate = len(paths) / best_of(2, lambda peer=peer: peer(paths))
            lines.append(
                Measurement(
                    f"prepare: {len(paths)} {'real' if real else 'rendered'} full-size photos → {SIDE_PX} px cache, "
                    f"{workers} threads",
                    f"{rate:.0f} photos/s",
                    f"{peer_rate:.1f} photos/s (Pillow{name}, one by one)",
                    f"{rate / peer_rate:.1f}×",
                    "≥ 12×",
                    rate / peer_rate >= 12,
                )
            )
        return lines
