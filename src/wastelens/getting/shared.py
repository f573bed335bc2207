"""Used by both download and collect: settings to log, speed, room on the disk, waiting for threads, licences."""

from __future__ import annotations

import queue
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from wastelens.config.base import flatten
from wastelens.config.web import FetchingConfig
from wastelens.errors import DatasetError
from wastelens.system import interrupts
from wastelens.system.console import Bar, table
from wastelens.web.addresses import locate
from wastelens.web.errors import Unfetchable
from wastelens.web.files import size_text

MB = 10**6
_LISTENING_S = 0.2
# Files are held in memory, and some formats are decoded whole, so only one is decoded at a time. Always by the same
# thread, as the C library keeps freed memory for each thread.
decoder = ThreadPoolExecutor(1, "decoder")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Gathered:
    """The result of ``download`` or ``collect``: the folder, its run, and the metrics logged there."""

    folder: Path
    run_id: str
    metrics: dict[str, float]


class Speed:
    """Shows beside a progress bar how fast photos come; there: bytes of one large file that were fetched before."""

    def __init__(self, bar: Bar, there: int = 0) -> None:
        self._bar = bar
        self._began = time.monotonic()
        self._photos = self._kept = self._bytes = 0
        self._there = there
        bar.advance(there // MB)

    def photo(self, size_bytes: int) -> None:
        """Count a photo and the bytes that were fetched for it."""
        self._photos += 1
        self._bytes += size_bytes
        self._bar.advance()
        self._bar.show(f"{self._rate(self._photos)} photos/s, {self._rate(self._bytes / MB)} MB/s")

    def kept(self, kept: bool) -> None:
        """Count a photo that was kept or left out; the bar is of those that were kept."""
        self._photos += 1
        self._kept += kept
        self._bar.advance(int(kept))
        self._bar.show(f"{self._kept:,} kept of {self._photos:,} examined, {self._rate(self._photos)} photos/s")

    def add(self, size_bytes: int) -> None:
        """Count more bytes of one large file."""
        before = self._there + self._bytes
        self._bytes += size_bytes
        self._bar.advance((before + size_bytes) // MB - before // MB)
        self._bar.show(f"{self._rate(self._bytes / MB)} MB/s")

    def _rate(self, count: float) -> str:
        return f"{count / (time.monotonic() - self._began):.1f}"


def logged_parameters(config: FetchingConfig) -> dict[str, object]:
    """Return the settings to log: URLs cut to host and path, as the rest may hold a key, and without the contact."""
    settings: dict[str, object] = {name: value for name, value in flatten(config).items() if name != "contact"}
    for name in [name for name in settings if name.endswith(("_url", ".url"))]:
        try:
            settings[name] = locate(str(settings[name])).shown
        except Unfetchable:  # reported when it is fetched
            del settings[name]
    return settings


def check_space(folder: Path, needed_bytes: float, what: str, setting: str) -> None:
    """Raise DatasetError if a folder's disk has no room for these files; setting: the one that chooses the folder."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise DatasetError(
            f"{what} take about {size_text(needed_bytes)}, and {folder} has {size_text(free)} free. "
            f"Free space, or choose another {setting}."
        )


def next_of(done: queue.SimpleQueue[Result]) -> Result:
    """Return the next item of a queue without delaying Ctrl-C, which an endless wait would not notice."""
    while True:
        interrupts.check()
        try:
            return done.get(timeout=_LISTENING_S)
        except queue.Empty:
            continue


def photos_by_licence(photos: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """Return licence, photos and megabytes, the most frequent first, from each photo's licence and bytes."""
    by_licence = pd.DataFrame(photos, columns=["licence", "bytes"]).groupby("licence")["bytes"]
    licences = by_licence.agg(photos="size", megabytes="sum").reset_index()
    licences["megabytes"] /= 1e6
    return licences.sort_values(["photos", "licence"], ascending=[False, True], ignore_index=True)


def report_licences(folder: Path, licences: pd.DataFrame) -> None:
    """Print the table of `photos_by_licence`."""
    rows = [
        [str(name), f"{count:,}", f"{megabytes:,.1f}"] for name, count, megabytes in licences.itertuples(index=False)
    ]
    table(f"{folder}: photos by licence", ["licence", "photos", "MB"], rows)
