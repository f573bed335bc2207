"""Hashes follow rotation and mirroring, and the fast search finds the same pairs as comparing all."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from wastelens.data.duplicates import search as duplicates
from wastelens.data.duplicates.correlation import confirmed_pairs
from wastelens.data.duplicates.perceptual_hash import perceptual_hashes
from wastelens.data.duplicates.search import connected_groups, near_duplicate_links, near_duplicate_pairs
from wastelens.data.photos.shrink import area_average


def pictures(seed, photos=6, side=64):
    """Draw photos with large and small structure, uint8 (photos, side, side, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 235, (photos, 8, 8, 3)).repeat(side // 8, axis=1).repeat(side // 8, axis=2)
    return np.clip(coarse + rng.integers(-15, 15, coarse.shape), 0, 255).astype(np.uint8)


def distances(first, second):
    """Return the smallest distance of photos' hashes over the orientations of either, (photos,)."""
    one = np.bitwise_count(first[:, :1] ^ second).min(axis=1)
    return np.minimum(one, np.bitwise_count(first ^ second[:, :1]).min(axis=1))


def test_a_turned_photo_has_the_same_hashes():
    photos = pictures(0)
    hashes = perceptual_hashes(photos)
    for quarter in range(4):
        for step in (1, -1):
            turned = np.rot90(photos, quarter, axes=(1, 2))[:, :, ::step]
            again = perceptual_hashes(np.ascontiguousarray(turned))
            assert (np.sort(again, axis=1) == np.sort(hashes, axis=1)).all()
            assert (distances(again, hashes) == 0).all()


@pytest.mark.parametrize("side", [64, 100, 24])
def test_hash_is_the_median_cut_of_the_low_frequencies(side):
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    grey = area_average(photo, 32)[0] @ [0.299, 0.587, 0.114]
    low = scipy.fft.dctn(grey, norm="ortho")[:8, :8].ravel()
    bits = low > np.median(low[1:])
    word = perceptual_hashes(photo)[0, :1]
    assert (np.unpackbits(word.view(np.uint8)) == bits).all()


def test_chunks_do_not_change_hashes(tmp_path, monkeypatch):
    photos = pictures(2, photos=7)
    np.save(tmp_path / "photos.npy", photos)
    mapped = np.load(tmp_path / "photos.npy", mmap_mode="r")
    whole = perceptual_hashes(photos)
    monkeypatch.setattr("wastelens.data.photos.shrink._PIXELS_AT_ONCE", 3 * photos.shape[1] ** 2)
    assert (perceptual_hashes(mapped) == whole).all()


def test_area_average_keeps_the_mean():
    photos = pictures(3, photos=2, side=56)
    small = area_average(photos, 16)
    assert small.shape == (2, 16, 16, 3)
    np.testing.assert_allclose(small.mean(axis=(1, 2)), photos.mean(axis=(1, 2)), rtol=1e-5)


@given(st.integers(0, 10_000), st.integers(0, 15))
@settings(max_examples=30, deadline=None)
def test_pairs_equal_brute_force(seed, max_distance):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (40, 8), dtype=np.uint64)
    for k in range(20, 40):  # near-duplicates of the first ones, a few bits apart in some orientation
        flips = rng.choice(64, rng.integers(0, 18), replace=False).astype(np.uint64)
        change = np.bitwise_or.reduce(np.uint64(1) << flips, initial=np.uint64(0))
        hashes[k, rng.integers(8)] = hashes[rng.integers(20), 0] ^ change
    expected = [
        (i, j)
        for i in range(40)
        for j in range(i + 1, 40)
        if distances(hashes[i : i + 1], hashes[j : j + 1])[0] <= max_distance
    ]
    assert [tuple(pair) for pair in near_duplicate_pairs(hashes, max_distance).tolist()] == expected


def test_flat_photos_pair_only_if_equal():
    rng = np.random.default_rng(0)
    flat = np.full((5, 32, 32, 3), 128, np.uint8) + rng.integers(0, 2, (5, 32, 32, 3), dtype=np.uint8)
    flat[3] = flat[1]
    pairs = near_duplicate_pairs(perceptual_hashes(flat))
    assert pairs.tolist() == [[1, 3]]
    assert confirmed_pairs(flat, pairs).tolist() == [[1, 3]]


def test_a_turned_and_brightened_photo_is_confirmed_and_another_is_not():
    photos = pictures(4, photos=4)
    photos[2] = np.clip(np.rot90(photos[0])[:, ::-1] * 1.1, 0, 255).astype(np.uint8)
    pairs = np.array([[0, 1], [0, 2], [1, 3]])
    assert confirmed_pairs(photos, pairs).tolist() == [[0, 2]]
    assert near_duplicate_pairs(perceptual_hashes(photos)).tolist() == [[0, 2]]


def test_no_pairs_give_no_confirmed_pairs():
    assert confirmed_pairs(pictures(5), np.empty((0, 2), np.int64)).shape == (0, 2)
    assert near_duplicate_pairs(np.zeros((0, 8), np.uint64)).shape == (0, 2)
    assert near_duplicate_pairs(np.zeros((1, 8), np.uint64)).shape == (0, 2)


def alike(seed, photos):
    """Draw one picture with new noise each time, and a few other pictures among them."""
    rng = np.random.default_rng(seed)
    one = pictures(seed, photos=1).astype(np.int64) + rng.integers(-6, 7, (photos, 64, 64, 3))
    others = pictures(seed + 1, photos=8)
    return np.concatenate([np.clip(one, 0, 255).astype(np.uint8), others, others[:2, ::-1]])[
        rng.permutation(photos + 10)
    ]


@pytest.mark.parametrize("at_once", [50, 4_000_000])
@pytest.mark.parametrize("photos", [0, 5, 60])
def test_links_join_what_all_pairs_join(photos, at_once, monkeypatch):
    monkeypatch.setattr(duplicates, "_CHUNK_CANDIDATES", at_once)
    monkeypatch.setattr(duplicates, "_CHUNK_PAIRS", 20)
    all_photos = alike(photos, photos)
    everything = confirmed_pairs(all_photos, near_duplicate_pairs(perceptual_hashes(all_photos)))
    links = near_duplicate_links(all_photos)
    groups = connected_groups(len(all_photos), links)
    assert groups.tolist() == connected_groups(len(all_photos), everything).tolist()
    assert np.bincount(groups).max() == max(photos, 2)
    assert set(map(tuple, links.tolist())) <= set(map(tuple, everything.tolist()))
    if photos <= 16:
        assert links.tolist() == everything.tolist()
    else:
        assert len(links) < len(everything) / 4


def test_the_links_of_many_equal_photos_do_not_grow_with_their_square():
    assert len(near_duplicate_links(np.full((3000, 32, 32, 3), 77, np.uint8))) < 3 * 3000
    assert near_duplicate_links(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 2)


def test_distance_out_of_range_is_refused():
    with pytest.raises(ValueError, match="0 to 15"):
        near_duplicate_pairs(np.zeros((2, 8), np.uint64), 16)


def test_groups_are_named_after_their_smallest_member():
    pairs = np.array([[4, 5], [1, 4], [2, 3]])
    assert connected_groups(7, pairs).tolist() == [0, 1, 2, 2, 1, 1, 6]
    assert connected_groups(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]
