"""The photo cache of a dataset in shards of a bounded size, each of which any worker can write.

A dataset of one shard has it under the cache's own name; several are numbered. The digest of the photos does not
depend on how they are divided: it is that of one file with all of them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np

from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.photos.cache import CacheEntry, EarlierPhotos, PhotoCache, PhotoSource, earlier_photos, load_photos
from wastelens.engine.task import Engine, Task
from wastelens.system.arrays import IndexArray, PhotoArray
from wastelens.system.digests import file_digest

SHARD_PHOTOS, SHARD_BYTES = 512, 16 << 20  # small enough to be shared by several workers
MOST_SHARDS = 256  # each is an open file; more photos make larger shards,
LARGEST_SHARD_BYTES = 256 << 20  # up to this size
_BLOCK_PHOTOS = 64


@dataclass(frozen=True)
class _Shard:
    """A shard to fill: its cache, the photos, and which of them earlier caches have."""

    cache: PhotoCache
    sources: Sequence[PhotoSource]
    workers: int
    earlier: EarlierPhotos | None


class ShardedCache:
    """The photos of a dataset, uint8 (photos, side, side, 3), in as many shards as their number asks for."""

    def __init__(self, folder: Path, side_px: int, max_megapixels: float) -> None:
        self.folder = folder
        self.side_px = side_px
        self.max_megapixels = max_megapixels
        self._shards: list[PhotoCache] = []
        self._sizes: list[int] = []

    def fill(
        self,
        sources: Sequence[PhotoSource],
        *,
        engine: Engine,
        workers: int,
        earlier: EarlierPhotos | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[CacheEntry]:
        """Decode the photos that are not cached yet; returns one entry per source, in order.

        Args:
            sources: the photos.
            engine: to fill shards on; each is a task.
            workers: number of threads for each shard.
            earlier: finished caches to copy unchanged photos from.
            progress: called with the number of photos newly in place.
        """
        per_shard = photos_per_shard(max(len(sources), 1), self.side_px)
        parts = [sources[start : start + per_shard] for start in range(0, len(sources), per_shard)]
        self._sizes = [len(part) for part in parts]
        names = [""] if len(parts) < 2 else [f"_{number:05d}" for number in range(len(parts))]
        self._shards = [PhotoCache(self.folder, self.side_px, self.max_megapixels, name) for name in names]
        # A kill in `finish` leaves shards with some of their rows: they are filled again, from themselves.
        earlier = earlier_photos(self.folder, self.side_px).or_else(earlier)
        tasks = []
        for number, (cache, part) in enumerate(zip(self._shards, parts, strict=True)):
            keys = [cache.key(source) for source in part]
            shard = _Shard(cache, part, workers, earlier.among(keys))
            digest = blake2b("\n".join(keys).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
            # Only a task of this process can show each photo.
            told = progress if engine.is_local else None
            tasks.append(Task(f"shard {number} {digest} of {self.folder}", _fill, (number, shard, told)))
        engine.stop_others(f" of {self.folder}", {task.key for task in tasks})
        for task in tasks:
            engine.start(task)
        filled: dict[int, list[CacheEntry]] = {}
        for done in engine.finished():
            if done.error is not None:
                raise done.error
            number, entries = done.result
            filled[number] = entries
            if not engine.is_local:
                progress(len(entries))
        return [entry for number in sorted(filled) for entry in filled[number]]

    def finish(self, keep_rows: IndexArray) -> dict[str, Any]:
        """Keep these rows, in ascending order, under the final names; return the manifest's entry for the cache."""
        ends = np.cumsum(self._sizes)
        kept = []
        for cache, end, size in zip(self._shards, ends, self._sizes, strict=True):
            rows = keep_rows[(keep_rows >= end - size) & (keep_rows < end)] - (end - size)
            if len(rows) or len(self._shards) == 1:
                cache.finish(rows)
                kept.append(cache.array_path.name)
        entry = {
            "file": PhotoCache(self.folder, self.side_px, self.max_megapixels).array_path.name,
            "photos": len(keep_rows),
            "image_side_px": self.side_px,
        }
        return entry if kept == [entry["file"]] else {**entry, "shards": kept}


def photos_per_shard(photos: int, side_px: int) -> int:
    """Return how many photos a shard holds, where a cache has this number of them, 1 or more."""
    photo_bytes = 3 * side_px**2
    few = min(max(SHARD_BYTES // photo_bytes, 1), SHARD_PHOTOS)
    most = min(max(few, math.ceil(photos / MOST_SHARDS)), max(LARGEST_SHARD_BYTES // photo_bytes, 1))
    return math.ceil(photos / math.ceil(photos / most))  # of one size, for workers of one speed


def _fill(number: int, shard: _Shard, progress: Callable[[int], None] | None) -> tuple[int, list[CacheEntry]]:
    told = progress or (lambda count: None)
    return number, shard.cache.fill(shard.sources, workers=shard.workers, earlier=shard.earlier, progress=told)


def cache_files(entry: Mapping[str, Any]) -> list[str]:
    """Return the names of the files of a cache, from its entry in the manifest."""
    return list(entry.get("shards", [entry["file"]]))


def open_photos(folder: Path, entry: Mapping[str, Any]) -> PhotoArray:
    """Open a finished cache, memory-mapped: uint8 (photos, side, side, 3), or what stands for such an array."""
    arrays = [load_photos(folder / name) for name in cache_files(entry)]
    if len(arrays) == 1:
        return arrays[0]
    return cast(PhotoArray, PhotoRows([(array, np.arange(len(array))) for array in arrays]))


def photos_digest(folder: Path, entry: Mapping[str, Any]) -> str:
    """Return the digest of one file with all photos of a cache, however they are divided.

    Raises:
        OSError: a file is missing or unreadable.
        ValueError: a file is no array.
    """
    if "shards" not in entry:
        return file_digest(folder / entry["file"])
    digest = blake2b(_header((entry["photos"], entry["image_side_px"], entry["image_side_px"], 3)), digest_size=16)
    for block in _blocks(folder, entry["shards"]):
        digest.update(block)
    return digest.hexdigest()


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the bytes with which NumPy begins a file of uint8 of this shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _blocks(folder: Path, names: Sequence[str]) -> Iterator[bytes]:
    for name in names:
        photos = load_photos(folder / name)
        for start in range(0, len(photos), _BLOCK_PHOTOS):
            yield photos[start : start + _BLOCK_PHOTOS].tobytes()
