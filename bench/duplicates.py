"""``python -m bench.duplicates``: search for near-duplicates among many hashes, and among nearly identical photos."""

from __future__ import annotations

import time

import numpy as np

from wastelens.data.duplicates.perceptual_hash import ORIENTATIONS, Hashes
from wastelens.data.duplicates.search import (
    NEAR_DUPLICATE_BITS,
    connected_groups,
    near_duplicate_links,
    near_duplicate_pairs,
)
from wastelens.system.arrays import BoolArray, IntArray, PhotoArray

PHOTOS = (10_000, 100_000)
PLANTED_SHARE = 0.01
IDENTICAL, SIDE_PX, NOISE = (1_000, 10_000), 64, 6  # numbers of photos, their side, and their noise in grey levels
_BITS = 64


def hashes_with_near_duplicates(photos: int, rng: np.random.Generator) -> tuple[Hashes, IntArray]:
    """Draw random hashes, uint64 (photos, 8), with planted pairs at most 6 bits apart in some orientation."""
    hashes = rng.integers(0, 2**_BITS, (photos, ORIENTATIONS), dtype=np.uint64)
    planted = int(photos * PLANTED_SHARE)
    pairs = rng.permutation(photos)[: 2 * planted].reshape(planted, 2)
    for original, copy in pairs:
        hashes[copy, rng.integers(ORIENTATIONS)] = hashes[original, 0] ^ few_bits(rng)
    return hashes, np.sort(pairs, axis=1)


def few_bits(rng: np.random.Generator) -> np.uint64:
    """Draw a word with 0 to 6 random bits set."""
    bits = rng.choice(_BITS, rng.integers(0, NEAR_DUPLICATE_BITS + 1), replace=False)
    return np.uint64(sum(1 << int(bit) for bit in bits))


def recall(found: IntArray, planted: IntArray, photos: int) -> float:
    """Return the share of the planted pairs that were found; both int (pairs, 2), sorted within rows."""
    codes: BoolArray = np.isin(planted @ [photos, 1], found @ [photos, 1])
    return float(codes.mean())


def identical_photos(photos: int, rng: np.random.Generator) -> PhotoArray:
    """Draw one picture with new noise each time, as from a fixed camera; uint8 (photos, side, side, 3)."""
    cell = SIDE_PX // 8
    picture = rng.integers(20, 235, (8, 8, 3)).repeat(cell, axis=0).repeat(cell, axis=1)
    noisy = np.empty((photos, SIDE_PX, SIDE_PX, 3), np.uint8)
    for photo in noisy:
        photo[:] = picture + rng.integers(-NOISE, NOISE + 1, picture.shape)
    return noisy


def search_hashes() -> None:
    """Print seconds, their ratio, and the recall of the planted pairs."""
    seconds = []
    for photos in PHOTOS:
        hashes, planted = hashes_with_near_duplicates(photos, np.random.default_rng(0))
        started = time.perf_counter()
        found = near_duplicate_pairs(hashes)
        seconds.append(time.perf_counter() - started)
        print(
            f"{photos:,} photos: {seconds[-1]:.1f} s, {len(found):,} pairs within {NEAR_DUPLICATE_BITS} bits, "
            f"{recall(found, planted, photos):.2%} of the {len(planted):,} planted ones",
            flush=True,
        )
    print(f"{PHOTOS[1] // PHOTOS[0]} × the photos take {seconds[1] / seconds[0]:.1f} × the time")


def link_identical_photos() -> None:
    """Print seconds, including hashing, and the numbers of links and groups."""
    for photos in IDENTICAL:
        pixels = identical_photos(photos, np.random.default_rng(0))
        started = time.perf_counter()
        links = near_duplicate_links(pixels)
        seconds = time.perf_counter() - started
        groups = len(np.unique(connected_groups(photos, links)))
        print(
            f"{photos:,} nearly identical photos: {seconds:.1f} s, {len(links):,} links, groups: {groups}", flush=True
        )


def main() -> None:
    """Run both benchmarks."""
    search_hashes()
    link_identical_photos()


if __name__ == "__main__":
    main()
