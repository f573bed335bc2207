"""The photo cache in shards: the same photos and the same digest as in one file, whoever writes the shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.factories import write_photo

from wastelens.data.photos import cache as photo_cache
from wastelens.data.photos import shards
from wastelens.data.photos.cache import CacheEntry, EarlierPhotos, PhotoCache, PhotoSource, earlier_photos
from wastelens.data.photos.shards import ShardedCache, cache_files, open_photos, photos_digest
from wastelens.engine.engine import LocalEngine, opened
from wastelens.engine.task import Engine
from wastelens.system.digests import file_digest

SIDE = 16
PER_SHARD = 3
BAD = (2, 3, 4, 5)  # all photos of the second shard, and the last of the first


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_PHOTOS", PER_SHARD)


@pytest.fixture
def sources(tmp_path: Path) -> list[PhotoSource]:
    """Ten photos, four of which are none."""
    found = []
    for number in range(10):
        path = write_photo(tmp_path / "raw" / f"{number}.jpg", seed=number, side=(60 + number, 40))
        if number in BAD:
            path.write_text("text")
        found.append(PhotoSource(path.name, path))
    return found


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the photos that are read."""
    names: list[str] = []
    real = photo_cache.read_photo

    def counting(path: Path) -> bytes:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(photo_cache, "read_photo", counting)
    return names


def prepared(
    folder: Path,
    sources: list[PhotoSource],
    engine: Engine | None = None,
    earlier: EarlierPhotos | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[list[CacheEntry], dict[str, Any]]:
    cache = ShardedCache(folder, SIDE, 200)
    entries = cache.fill(sources, engine=engine or LocalEngine(), workers=1, earlier=earlier, progress=progress)
    keep = np.array([row for row, entry in enumerate(entries) if not entry.problem], dtype=np.intp)
    return entries, cache.finish(keep)


def in_one_file(folder: Path, sources: list[PhotoSource]) -> PhotoCache:
    cache = PhotoCache(folder, SIDE, 200)
    entries = cache.fill(sources, workers=1)
    cache.finish(np.array([row for row, entry in enumerate(entries) if not entry.problem], dtype=np.intp))
    return cache


def test_photos_and_digest_are_those_of_one_file(tmp_path: Path, sources: list[PhotoSource]) -> None:
    entries, entry = prepared(tmp_path / "shards", sources)
    whole = in_one_file(tmp_path / "one", sources)
    # The second shard has no usable photo.
    assert cache_files(entry) == ["photos_16px_00000.npy", "photos_16px_00002.npy", "photos_16px_00003.npy"]
    photos = open_photos(tmp_path / "shards", entry)
    np.testing.assert_array_equal(photos, np.load(whole.array_path))
    assert photos.shape == (6, SIDE, SIDE, 3)
    assert entry["photos"] == 6
    assert photos_digest(tmp_path / "shards", entry) == file_digest(whole.array_path)
    assert [row for row, one in enumerate(entries) if one.problem] == list(BAD)


def test_few_photos_are_one_file_as_ever(tmp_path: Path, sources: list[PhotoSource]) -> None:
    _, entry = prepared(tmp_path / "shards", sources[:2])
    whole = in_one_file(tmp_path / "one", sources[:2])
    assert entry == {"file": "photos_16px.npy", "photos": 2, "image_side_px": SIDE}
    assert (tmp_path / "shards" / "photos_16px.npy").read_bytes() == whole.array_path.read_bytes()
    assert photos_digest(tmp_path / "shards", entry) == file_digest(whole.array_path)


def test_size_bounds_a_shard_too(tmp_path: Path, sources: list[PhotoSource], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_PHOTOS", 512)
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * SIDE * SIDE * 3)
    _, entry = prepared(tmp_path, sources[6:])
    assert [np.load(tmp_path / name).shape for name in cache_files(entry)] == [(2, SIDE, SIDE, 3)] * 2


@pytest.mark.parametrize(
    ("photos", "side_px", "shards_made", "largest_mib"),
    [
        (240, 160, 2, 16),
        (1_500, 160, 7, 16),
        (20_000, 96, 40, 14),
        (1_000_000, 160, 287, 256),
        (1_000_000, 32, 256, 12),
    ],
)
def test_a_million_photos_are_no_more_files_than_can_be_open(
    photos: int, side_px: int, shards_made: int, largest_mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_PHOTOS", 512)
    per_shard = shards.photos_per_shard(photos, side_px)
    assert -(-photos // per_shard) == shards_made
    assert per_shard * 3 * side_px**2 <= largest_mib << 20


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"no array")])
def test_a_damaged_shard_is_an_error(
    tmp_path: Path, sources: list[PhotoSource], damage: Callable[[Path], object]
) -> None:
    _, entry = prepared(tmp_path, sources)
    damage(tmp_path / cache_files(entry)[1])
    with pytest.raises((OSError, ValueError)):
        photos_digest(tmp_path, entry)


def test_one_changed_pixel_changes_the_digest(tmp_path: Path, sources: list[PhotoSource]) -> None:
    _, entry = prepared(tmp_path, sources)
    before = photos_digest(tmp_path, entry)
    file = tmp_path / cache_files(entry)[1]
    photos = np.load(file)
    photos[0, 0, 0, 0] ^= 1
    np.save(file, photos)
    assert photos_digest(tmp_path, entry) != before


def test_finished_shards_are_not_decoded_again(tmp_path: Path, sources: list[PhotoSource], decoded: list[str]) -> None:
    class KilledError(Exception):
        pass

    def stop(count: int) -> None:
        if len(decoded) > 7:
            raise KilledError

    with pytest.raises(KilledError):
        prepared(tmp_path, sources, progress=stop)
    before = set(decoded)
    decoded.clear()
    _, entry = prepared(tmp_path, sources)
    assert set(decoded) & before <= {"6.jpg", "7.jpg", "8.jpg"}  # at most of the shard in work
    assert entry["photos"] == 6


@pytest.mark.parametrize("kills", [1, 2])
def test_a_kill_while_shards_are_finished_costs_no_decoding(
    tmp_path: Path, sources: list[PhotoSource], decoded: list[str], monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    finish = PhotoCache.finish
    whole, whole_digest = prepared(tmp_path / "whole", sources)

    def dies_at_the_last(self: PhotoCache, keep_rows: Any) -> Any:
        if self.part == "_00003":
            raise KeyboardInterrupt
        return finish(self, keep_rows)

    def dies_at_the_first(self: PhotoCache, keep_rows: Any) -> Any:
        raise KeyboardInterrupt

    for death in (dies_at_the_last, dies_at_the_first)[:kills]:
        monkeypatch.setattr(PhotoCache, "finish", death)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path / "cache", sources)
    monkeypatch.setattr(PhotoCache, "finish", finish)
    decoded.clear()
    entry, digest = prepared(tmp_path / "cache", sources)
    assert {int(Path(name).stem) for name in decoded} <= set(BAD)
    assert (entry, digest) == (whole, whole_digest)


def test_unchanged_photos_are_copied_however_they_were_divided(
    tmp_path: Path, sources: list[PhotoSource], decoded: list[str]
) -> None:
    prepared(tmp_path / "before", sources[1:])
    decoded.clear()
    entries, entry = prepared(tmp_path / "after", sources, earlier=earlier_photos(tmp_path / "before", SIDE))
    assert set(decoded) == {"0.jpg", *(f"{number}.jpg" for number in BAD)}
    whole = in_one_file(tmp_path / "one", sources)
    assert photos_digest(tmp_path / "after", entry) == file_digest(whole.array_path)
    assert all(one.width for row, one in enumerate(entries) if row not in BAD)


@pytest.fixture(scope="module")
def processes() -> Iterator[Engine]:
    with opened("processes:2", retries=1) as engine:
        yield engine


def test_processes_make_the_same_digest(tmp_path: Path, sources: list[PhotoSource], processes: Engine) -> None:
    counts: list[int] = []
    _, entry = prepared(tmp_path / "shards", sources, processes, progress=counts.append)
    whole = in_one_file(tmp_path / "one", sources)
    assert photos_digest(tmp_path / "shards", entry) == file_digest(whole.array_path)
    assert sorted(counts) == [1, 3, 3, 3]
