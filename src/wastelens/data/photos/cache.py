"""The photo cache: decode every photo once, in parallel, into one memory-mapped array; resume after a kill."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wastelens.data.photos.decode import BadPhotoError, decode, read_photo
from wastelens.system.arrays import IndexArray, PhotoArray
from wastelens.system.files import reserve

_DECODER = "2"  # counted up when the decoder makes other pixels of the same file


@dataclass(frozen=True)
class PhotoSource:
    """A photo's file and its name in the dataset."""

    file_name: str
    path: Path


@dataclass(frozen=True)
class CacheEntry:
    """One photo in the cache: its upright size in pixels, or the problem it was left out for."""

    width: int
    height: int
    problem: str = ""


class EarlierPhotos:
    """Photos of finished caches, found by the state of their files.

    Args:
        lines: key → the array's file, and the photo's line in its journal.
    """

    def __init__(self, lines: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> None:
        self._lines = lines
        self._arrays: dict[Path, PhotoArray | None] = {}

    def among(self, keys: Iterable[str]) -> EarlierPhotos:
        """Return those with these keys."""
        return EarlierPhotos({key: self._lines[key] for key in keys if key in self._lines})

    def or_else(self, others: EarlierPhotos | None) -> EarlierPhotos:
        """Return these and, of other keys, the others."""
        return EarlierPhotos({**others._lines, **self._lines}) if others else self

    def find(self, key: str) -> tuple[PhotoArray, CacheEntry] | None:
        """Return a photo and its entry; None where there is none without a problem."""
        file, line = self._lines.get(key, (Path(), {"problem": "unknown"}))
        if line["problem"]:
            return None
        if file not in self._arrays:
            try:
                self._arrays[file] = load_photos(file)
            except (OSError, ValueError, EOFError):  # missing or broken: it is decoded again
                self._arrays[file] = None
        photos = self._arrays[file]
        if photos is None or line["row"] >= len(photos):
            return None
        return photos[line["row"]], CacheEntry(line["width"], line["height"])


def earlier_photos(folder: Path, side_px: int) -> EarlierPhotos:
    """Return the photos of all finished caches of this side in a folder."""
    lines = {}
    for journal in sorted(folder.glob(f"photos_{side_px}px*.jsonl")):
        if journal.with_suffix(".partial.npy").exists():  # it is about those rows, not about the finished ones
            continue
        for line in _read_journal(journal).values():
            lines[line["key"]] = (journal.with_suffix(".npy"), line)
    return EarlierPhotos(lines)


class PhotoCache:
    """Photos in one uint8 array (photos, side, side, 3), filled in parallel, resumable.

    While it is being filled, a file ``….partial.npy`` holds the pixels, and the journal gets a line once a photo's
    pixels are in place. A line's key is the photo's file, its size and its modification time. So a killed run loses
    only the photos in flight, and unchanged photos are copied from an earlier cache.
    """

    def __init__(self, folder: Path, side_px: int, max_megapixels: float, part: str = "") -> None:
        self.folder = folder
        self.side_px = side_px
        self.max_megapixels = max_megapixels
        self.part = part

    @property
    def array_path(self) -> Path:
        """The path of the finished array."""
        return self.folder / f"photos_{self.side_px}px{self.part}.npy"

    @property
    def _partial_path(self) -> Path:
        return self.folder / f"photos_{self.side_px}px{self.part}.partial.npy"

    @property
    def journal_path(self) -> Path:
        """The path of the journal: one JSON line per photo with its key, row, and size or problem."""
        return self.folder / f"photos_{self.side_px}px{self.part}.jsonl"

    def fill(
        self,
        sources: Sequence[PhotoSource],
        *,
        workers: int,
        earlier: EarlierPhotos | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[CacheEntry]:
        """Decode the photos that are not cached yet; returns one entry per source, in order.

        Args:
            sources: the photos; row i of the array is source i (rows of left-out photos stay black).
            workers: number of threads; the decoders release Python's global lock.
            earlier: finished caches to copy unchanged photos from.
            progress: called with the number of photos newly in place.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        pixels = self._open_partial(len(sources))
        entries = self._resume(sources) | self._copy_unchanged(sources, pixels, earlier)
        progress(len(entries))
        missing = [row for row in range(len(sources)) if row not in entries]
        with self.journal_path.open("a", encoding="utf-8") as journal, warnings.catch_warnings():
            # Pillow warns of broken files, whose problem is reported anyway. Set here, as threads share the filters.
            warnings.simplefilter("ignore")
            for row, entry in self._decode(sources, missing, pixels, workers):
                entries[row] = entry
                journal.write(self._journal_line(sources[row], row, entry))
                journal.flush()
                progress(1)
        pixels.flush()
        return [entries[row] for row in range(len(sources))]

    def finish(self, keep_rows: IndexArray) -> PhotoArray:
        """Keep these rows, in this order, under the final name; returns them memory-mapped."""
        pixels = np.load(self._partial_path, mmap_mode="r+")
        journal = _read_journal(self.journal_path)
        if not np.array_equal(keep_rows, np.arange(len(pixels))):
            aside = self.folder / f"photos_{self.side_px}px{self.part}.compact.npy"
            compact = _create_array(aside, (len(keep_rows), *pixels.shape[1:]))
            for new, old in enumerate(keep_rows):
                compact[new] = pixels[old]
            compact.flush()
            os.replace(aside, self._partial_path)
            pixels = compact
        kept = [{**journal[int(old)], "row": new} for new, old in enumerate(keep_rows)]
        _write_aside(self.journal_path, "".join(json.dumps(entry) + "\n" for entry in kept))
        del pixels
        os.replace(self._partial_path, self.array_path)
        return load_photos(self.array_path)

    def unchanged(self, sources: Sequence[PhotoSource]) -> tuple[PhotoArray, list[CacheEntry]] | None:
        """Return the photos, memory-mapped, and an entry per source, if a finished cache has exactly these files."""
        try:
            before = self.folder.stat()
            photos = load_photos(self.array_path)
            entries = self._known(sources, _read_journal(self.journal_path))
            same = os.path.samestat(before, self.folder.stat())  # else replaced by another process in between
        except (OSError, ValueError, EOFError, KeyError, TypeError):  # missing or broken
            return None
        fits = photos.shape == (len(sources), self.side_px, self.side_px, 3) and photos.dtype == np.uint8
        complete = same and fits and len(entries) == len(sources)
        return (photos, [entries[row] for row in range(len(sources))]) if complete else None

    def _open_partial(self, photos: int) -> np.memmap[Any, np.dtype[np.uint8]]:
        shape = (photos, self.side_px, self.side_px, 3)
        if self._partial_path.exists():
            try:
                pixels = np.load(self._partial_path, mmap_mode="r+")
            except (ValueError, OSError, EOFError):
                pixels = None
            if isinstance(pixels, np.memmap) and (pixels.shape, pixels.dtype) == (shape, np.uint8):
                reserve(self._partial_path)
                return pixels
        self.journal_path.unlink(missing_ok=True)
        return _create_array(self._partial_path, shape)

    def _resume(self, sources: Sequence[PhotoSource]) -> dict[int, CacheEntry]:
        """Return the rows that an interrupted run finished and that still belong to the same file."""
        known = _read_journal(self.journal_path)
        # Drop a line that a kill cut short: the next one would be appended to it.
        _write_aside(self.journal_path, "".join(json.dumps(line) + "\n" for line in known.values()))
        return self._known(sources, known)

    def _known(self, sources: Sequence[PhotoSource], journal: dict[int, dict[str, Any]]) -> dict[int, CacheEntry]:
        """Return the rows of a journal that still belong to the same file."""
        return {
            row: CacheEntry(found["width"], found["height"], found["problem"])
            for row, source in enumerate(sources)
            if (found := journal.get(row)) and found["key"] == self.key(source)
        }

    def _copy_unchanged(
        self, sources: Sequence[PhotoSource], pixels: PhotoArray, earlier: EarlierPhotos | None
    ) -> dict[int, CacheEntry]:
        """Copy the rows of unchanged files from finished caches of the same side."""
        if earlier is None or len(_read_journal(self.journal_path)):
            return {}
        entries = {}
        with self.journal_path.open("a", encoding="utf-8") as journal:
            for row, source in enumerate(sources):
                found = earlier.find(self.key(source))
                if found is not None:
                    pixels[row], entries[row] = found
                    journal.write(self._journal_line(source, row, entries[row]))
        return entries

    def _decode(
        self, sources: Sequence[PhotoSource], rows: list[int], pixels: PhotoArray, workers: int
    ) -> Iterator[tuple[int, CacheEntry]]:
        def decode_row(row: int) -> tuple[int, CacheEntry]:
            try:
                photo = decode(read_photo(sources[row].path), self.side_px, self.max_megapixels)
            except BadPhotoError as error:
                return row, CacheEntry(0, 0, str(error))
            pixels[row] = photo.pixels_0_255
            return row, CacheEntry(photo.width, photo.height)

        if not rows:
            return
        cv2.setNumThreads(1)  # photos are decoded in parallel; threads within each would only compete
        pool = ThreadPoolExecutor(workers)
        try:
            yield from pool.map(decode_row, rows)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def key(self, source: PhotoSource) -> str:
        """Return the file's state and how it is decoded; a decoded photo is reused only while this is the same."""
        try:
            status = source.path.stat()
        except OSError:
            return f"{source.file_name}|missing"
        # ctime too: it changes when the permissions of an unreadable photo are fixed.
        file = f"{source.path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"
        return f"{source.file_name}|{file}|{self.side_px}px|{self.max_megapixels:g}MP|{_DECODER}"

    def _journal_line(self, source: PhotoSource, row: int, entry: CacheEntry) -> str:
        return json.dumps({"key": self.key(source), "row": row, **entry.__dict__}) + "\n"


def _create_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Create a memory-mapped uint8 array in a file and reserve its disk space."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    reserve(path)
    return pixels


def load_photos(path: Path) -> PhotoArray:
    """Open a finished cache, memory-mapped: uint8 (photos, side, side, 3)."""
    return np.asanyarray(np.load(path, mmap_mode="r"))


def _read_journal(path: Path) -> dict[int, dict[str, Any]]:
    """Return the newest line of each row; a line cut short by a kill is ignored."""
    known = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            known[entry["row"]] = entry
    return known


def _write_aside(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
