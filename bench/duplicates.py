"""``python -m bench.duplicates``: the search for near-duplicates among many hashes, and among photos all alike."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from wastelens.data.duplicates.perceptual_hash import ORIENTATIONS, Hashes
from wastelens.data.duplicates.search import (
    NEAR_DUPLICATE_BITS,
    IntArray,
    connected_groups,
    near_duplicate_links,
    near_duplicate_pairs,
)

PHOTOS = (10_000, 100_000)
PLANTED_SHARE = 0.01
ALIKE, SIDE_PX, NOISE = (1_000, 10_000), 64, 6  # photos, and how far their pixels differ in grey levels
_BITS = 64


def hashes_with_near_duplicates(photos: int, rng: np.random.Generator) -> tuple[Hashes, IntArray]:
    """Random hashes, uint64 (photos, 8), and the pairs that were planted: at most 6 bits apart, in some orientation."""
    hashes = rng.integers(0, 2**_BITS, (photos, ORIENTATIONS), dtype=np.uint64)
    planted = int(photos * PLANTED_SHARE)
    pairs = rng.permutation(photos)[: 2 * planted].reshape(planted, 2)
    for original, copy in pairs:
        hashes[copy, rng.integers(ORIENTATIONS)] = hashes[original, 0] ^ few_bits(rng)
    return hashes, np.sort(pairs, axis=1)


def few_bits(rng: np.random.Generator) -> np.uint64:
    """A word with 0 to 6 random bits set."""
    bits = rng.choice(_BITS, rng.integers(0, NEAR_DUPLICATE_BITS + 1), replace=False)
    return np.uint64(sum(1 << int(bit) for bit in bits))


def recall(found: IntArray, planted: IntArray, photos: int) -> float:
    """The share of the planted pairs that were found; both int (pairs, 2), sorted in their rows."""
    codes: npt.NDArray[np.bool_] = np.isin(planted @ [photos, 1], found @ [photos, 1])
    return float(codes.mean())


def photos_all_alike(photos: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One picture with other noise each time, as a fixed camera gives it, uint8 (photos, side, side, 3)."""
    cell = SIDE_PX // 8
    picture = rng.integers(20, 235, (8, 8, 3)).repeat(cell, axis=0).repeat(cell, axis=1)
    noisy = np.empty((photos, SIDE_PX, SIDE_PX, 3), np.uint8)
    for photo in noisy:
        photo[:] = picture + rng.integers(-NOISE, NOISE + 1, picture.shape)
    return noisy


def search_hashes() -> None:
    """Print seconds, their ratio, and the recall of what was planted."""
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


def link_photos_all_alike() -> None:
    """Print seconds, hashing included, and how many pairs link how many groups."""
    for photos in ALIKE:
        alike = photos_all_alike(photos, np.random.default_rng(0))
        started = time.perf_counter()
        links = near_duplicate_links(alike)
        seconds = time.perf_counter() - started
        groups = len(np.unique(connected_groups(photos, links)))
        print(f"{photos:,} photos all alike: {seconds:.1f} s, {len(links):,} links, groups: {groups}", flush=True)


def main() -> None:
    """Both."""
    search_hashes()
    link_photos_all_alike()


if __name__ == "__main__":
    main()
