"""The photo cache: each photo once, in its row; finished work survives a kill, changed photos are decoded again."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from tests.factories import write_photo

from wastelens.data.photos import cache as photo_cache
from wastelens.data.photos.cache import CacheEntry, PhotoCache, PhotoSource, earlier_photos, load_photos
from wastelens.data.photos.decode import decode
from wastelens.system.digests import file_digest

SIDE = 16


@pytest.fixture
def sources(tmp_path):
    """Write eight photos: the third is not a photo, the fourth is missing and the fifth is truncated."""
    found = []
    for number in range(8):
        path = write_photo(tmp_path / "raw" / f"{number}.jpg", seed=number, side=(60 + number, 40))
        found.append(PhotoSource(path.name, path))
    found[2].path.write_text("text")
    found[3].path.unlink()
    found[4].path.write_bytes(found[4].path.read_bytes()[:700])
    return found


@pytest.fixture
def decoded(monkeypatch):
    """Record the content of each decode."""
    calls = []
    real = photo_cache.decode

    def counting(content, *arguments):
        calls.append(content)
        return real(content, *arguments)

    monkeypatch.setattr(photo_cache, "decode", counting)
    return calls


def cache_in(folder):
    return PhotoCache(folder, SIDE, 200)


KEEP = np.array([0, 1, 5, 6, 7])


def finished(folder, sources, keep=KEEP, **options):
    cache = cache_in(folder)
    entries = cache.fill(sources, **{"workers": 1, **options})
    return entries, np.array(cache.finish(np.asarray(keep)))


def test_cache_holds_each_photo_and_reasons_for_the_rest(tmp_path, sources):
    entries, array = finished(tmp_path / "cache", sources)
    assert [(entry.width, entry.height) for entry in entries] == [
        *((60, 40), (61, 40), (0, 0), (0, 0), (0, 0)),
        *((65, 40), (66, 40), (67, 40)),
    ]
    problems = [entry.problem for entry in entries]
    assert problems[:2] + problems[5:] == [""] * 5
    assert problems[2:4] == ["not an image", "missing"]
    assert problems[4].startswith("damaged image file (")
    for row, number in enumerate(KEEP):
        np.testing.assert_array_equal(array[row], decode(sources[number].path.read_bytes(), SIDE).pixels_0_255)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["photos_16px.jsonl", "photos_16px.npy"]
    np.testing.assert_array_equal(load_photos(cache_in(tmp_path / "cache").array_path), array)


def test_parallel_fill_equals_serial(tmp_path, sources):
    counts = []
    one = finished(tmp_path / "one", sources, workers=1, progress=counts.append)
    four = finished(tmp_path / "four", sources, workers=4)
    assert one[0] == four[0]
    assert sum(counts) == len(sources)
    assert file_digest(cache_in(tmp_path / "one").array_path) == file_digest(cache_in(tmp_path / "four").array_path)


def test_fill_leaves_the_warning_filters_alone(tmp_path, sources):
    before = list(warnings.filters)
    cache_in(tmp_path / "cache").fill(sources, workers=4)
    assert warnings.filters == before


@pytest.mark.parametrize("keep", [[7, 0, 5], [1, 0, 2, 3, 4, 5, 6, 7], [5], list(range(8))])
def test_kept_rows_are_in_the_given_order(tmp_path, sources, keep):
    _, whole = finished(tmp_path / "whole", sources, keep=range(8))
    _, array = finished(tmp_path / "some", sources, keep=keep)
    np.testing.assert_array_equal(array, whole[keep])
    journal = photo_cache._read_journal(cache_in(tmp_path / "some").journal_path)
    assert [journal[row]["key"].split("|")[0] for row in range(len(keep))] == [f"{number}.jpg" for number in keep]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("workers", [1, 3])
def test_interrupted_fill_resumes(tmp_path, sources, decoded, interruption, workers):
    _, undisturbed = finished(tmp_path / "undisturbed", sources)
    cache = cache_in(tmp_path / "cache")
    done = []

    def interrupt(count):
        done.append(count)
        if sum(done) == 6:
            raise interruption

    with pytest.raises(interruption):
        cache.fill(sources, workers=workers, progress=interrupt)
    decoded.clear()
    done.clear()
    entries, array = finished(tmp_path / "cache", sources, progress=done.append)
    assert done == [6, 1, 1]
    assert decoded == [source.path.read_bytes() for source in sources[6:]]
    assert [entry.problem == "" for entry in entries] == [row in KEEP for row in range(8)]
    np.testing.assert_array_equal(array, undisturbed)


def test_crash_of_the_decoder_keeps_finished_photos(tmp_path, sources, monkeypatch, decoded):
    real = photo_cache.decode

    def dying(content, *arguments):
        if content == sources[6].path.read_bytes():
            raise AssertionError("power cut")
        return real(content, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(photo_cache, "decode", dying)
        with pytest.raises(AssertionError, match="power cut"):
            cache_in(tmp_path / "cache").fill(sources, workers=1)
    decoded.clear()
    finished(tmp_path / "cache", sources)
    assert decoded == [source.path.read_bytes() for source in sources[6:]]


@pytest.mark.parametrize(("lines", "redone"), [(8, 0), (7.5, 1), (6.5, 2)])
def test_journal_cut_within_a_line(tmp_path, sources, decoded, lines, redone):
    cache = cache_in(tmp_path / "cache")
    cache.fill(sources, workers=1)
    written = cache.journal_path.read_text().splitlines()
    whole = int(lines)
    kept = written[:whole] + [line[:40] for line in written[whole : whole + 1]]
    cache.journal_path.write_text("\n".join(kept))  # without a final newline
    decoded.clear()
    entries, array = finished(tmp_path / "cache", sources)
    assert len(decoded) == redone
    assert all(isinstance(entry, CacheEntry) for entry in entries)
    np.testing.assert_array_equal(array, finished(tmp_path / "other", sources)[1])
    journal = cache.journal_path.read_text().splitlines()
    assert len(journal) == len(KEEP)
    assert len(photo_cache._read_journal(cache.journal_path)) == len(KEEP)


def test_changed_file_is_decoded_again(tmp_path, sources, decoded):
    cache = cache_in(tmp_path / "cache")
    cache.fill(sources, workers=1)
    write_photo(sources[5].path, seed=99, side=(80, 30))
    write_photo(sources[3].path, seed=98)  # was missing
    decoded.clear()
    entries, array = finished(tmp_path / "cache", sources, keep=[3, 5])
    assert len(decoded) == 2
    assert (entries[5].width, entries[5].height, entries[3].problem) == (80, 30, "")
    np.testing.assert_array_equal(array[1], decode(sources[5].path.read_bytes(), SIDE).pixels_0_255)


def test_another_file_at_a_row_and_back_again(tmp_path, sources):
    cache = cache_in(tmp_path / "cache")
    a, b = sources[0], sources[1]
    cache.fill([a], workers=1)
    cache.fill([b], workers=1)
    cache.fill([a], workers=1)
    array = cache.finish(np.array([0]))
    np.testing.assert_array_equal(array[0], decode(a.path.read_bytes(), SIDE).pixels_0_255)


def test_another_number_of_photos_or_a_broken_array_starts_over(tmp_path, sources, decoded):
    cache = cache_in(tmp_path / "cache")
    cache.fill(sources[5:], workers=1)
    cache.fill(sources[:2], workers=1)
    assert len(decoded) == 5
    (tmp_path / "cache" / f"photos_{SIDE}px.partial.npy").write_bytes(b"\x93NUMPY broken")
    _, array = finished(tmp_path / "cache", sources[:2], keep=[0, 1])
    assert len(decoded) == 7
    np.testing.assert_array_equal(array[1], decode(sources[1].path.read_bytes(), SIDE).pixels_0_255)


def test_unchanged_photos_are_copied_from_an_earlier_cache(tmp_path, sources, decoded):
    finished(tmp_path / "earlier", sources)
    write_photo(sources[6].path, seed=99)
    new = PhotoSource("new.jpg", write_photo(tmp_path / "raw" / "new.jpg", seed=50))
    order = [new, sources[7], sources[6], sources[5], sources[2], sources[0]]
    decoded.clear()
    keep = [0, 1, 2, 3, 5]
    counts = []
    entries, array = finished(
        tmp_path / "next", order, keep=keep, earlier=earlier_photos(tmp_path / "earlier", SIDE), progress=counts.append
    )
    assert len(decoded) == 3  # the new one, the changed one, and the unusable one
    assert counts[0] == 3
    assert entries[1] == CacheEntry(67, 40)
    for row, place in enumerate(keep):
        np.testing.assert_array_equal(array[row], decode(order[place].path.read_bytes(), SIDE).pixels_0_255)


@pytest.mark.parametrize("damage", ["cut", "missing", "other side"])
def test_useless_earlier_cache_is_ignored(tmp_path, sources, decoded, damage):
    finished(tmp_path / "earlier", sources)
    path = cache_in(tmp_path / "earlier").array_path
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "missing":
        path.unlink()
    else:
        path.rename(path.with_name("photos_32px.npy"))
    decoded.clear()
    finished(tmp_path / "next", sources, earlier=earlier_photos(tmp_path / "earlier", SIDE))
    assert len(decoded) == 7  # all but the missing one


@pytest.mark.parametrize(
    "change", ["", "changed", "removed", "added", "renamed", "other order", "no array", "no journal"]
)
def test_a_finished_cache_is_unchanged_until_a_file_is(tmp_path, sources, change):
    entries, array = finished(tmp_path / "cache", sources, keep=range(8))
    cache = cache_in(tmp_path / "cache")
    if change == "changed":
        write_photo(sources[6].path, seed=99)
    elif change == "removed":
        sources.pop()
    elif change == "added":
        sources.append(PhotoSource("8.jpg", write_photo(tmp_path / "raw" / "8.jpg", seed=8)))
    elif change == "renamed":
        sources[0] = PhotoSource("other.jpg", sources[0].path)
    elif change == "other order":
        sources.reverse()
    elif change == "no array":
        cache.array_path.unlink()
    elif change == "no journal":
        cache.journal_path.unlink()
    found = cache.unchanged(sources)
    if change:
        assert found is None
    else:
        np.testing.assert_array_equal(found[0], array)
        assert found[1] == entries


def test_digest_is_blake2b_of_the_bytes(tmp_path):
    from hashlib import blake2b

    content = bytes(range(256)) * 40_000
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == blake2b(content, digest_size=16).hexdigest()
