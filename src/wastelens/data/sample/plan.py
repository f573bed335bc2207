"""Plan the content of each photo: its batch, run (photos of one scene), materials, size and orientation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wastelens.data.sample.categories import MATERIALS
from wastelens.data.sample.shapes import Random
from wastelens.system.arrays import BoolArray, FloatArray

BATCHES = 12
PHOTOS = 240
GLASS_BATCHES = 8

# Target shares of photos in the order of MATERIALS; glass is placed in runs of two instead.
_SHARES = np.array([0.27, 0.0, 0.25, 0.28, 0.75, 0.18])
_TOLERANCE = np.array([0.035, 0.0, 0.035, 0.035, 0.04, 0.025])
_GLASS = MATERIALS.index("glass")
_PLASTIC = MATERIALS.index("plastic")
_SHAPES = ((320, 240), (320, 240), (240, 320), (320, 256), (256, 320))


@dataclass(frozen=True)
class PhotoPlan:
    """The plan of one photo."""

    photo_id: int  # in the annotations, from 0
    batch: int  # from 0; file_name counts batches from 1, as TACO does
    run: int  # number of the scene it shares with its neighbours, counted through the whole sample
    file_name: str  # as in TACO, batch_1/000006.jpg
    width_px: int  # upright
    height_px: int
    orientation: int  # its EXIF tag; 1 if it is stored upright, without a tag
    materials: tuple[str, ...]


def _batch_sizes(rng: Random) -> list[int]:
    """Draw batch sizes of 14 to 26 that sum to PHOTOS."""
    while True:
        sizes = rng.integers(14, 27, BATCHES - 1).tolist()
        last = PHOTOS - sum(sizes)
        if 14 <= last <= 26:
            return [*sizes, last]


def _run_lengths(rng: Random, photos: int) -> list[int]:
    """Draw run lengths of 2 to 4 photos that sum to ``photos``."""
    lengths: list[int] = []
    while (left := photos - sum(lengths)) > 5:
        lengths.append(int(rng.integers(2, 5)))
    return [*lengths, left] if left < 5 else [*lengths, 3, 2]


def _run_materials(rng: Random, odds: FloatArray, length: int) -> BoolArray:
    """Draw the materials of a run's photos, bool (length, materials): one draw, then a few changes per photo."""
    rows = np.tile(rng.uniform(size=len(odds)) < odds, (length, 1))
    again = rng.uniform(size=rows.shape) < 0.12
    rows[again] = (rng.uniform(size=rows.shape) < odds)[again]
    rows[~rows.any(axis=1), _PLASTIC] = True
    return rows


def _draw_materials(rng: Random, runs: list[list[int]]) -> BoolArray:
    """Draw the materials of all photos, bool (PHOTOS, materials); ``runs`` holds the run lengths of each batch."""
    with_glass = set(rng.choice(BATCHES, GLASS_BATCHES, replace=False).tolist())
    rows = []
    for batch, lengths in enumerate(runs):
        # Each batch has its own mix: the odds of each material vary.
        odds = 1 / (1 + (1 / np.clip(_SHARES, 1e-9, 1) - 1) * np.exp(rng.normal(0, 0.4, len(_SHARES))))
        # Glass is inside the batch: at its edge, neighbours by number in the next batch would predict it.
        glass_run = int(rng.integers(1, len(lengths) - 1)) if batch in with_glass else -1
        for run, length in enumerate(lengths):
            drawn = _run_materials(rng, odds, length)
            drawn[:, _GLASS] = (run == glass_run) & (np.arange(length) < 2)
            rows.append(drawn)
    return np.concatenate(rows)


def _fits(shown: BoolArray, sizes: list[int]) -> bool:
    """Return whether shares of photos are near their targets and most batches have every material."""
    near = np.abs(shown.mean(axis=0) - _SHARES) <= _TOLERANCE
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    spread = np.logical_or.reduceat(shown, starts, axis=0).sum(axis=0) >= BATCHES - 2
    return bool((near & spread)[np.arange(len(MATERIALS)) != _GLASS].all())


def plan_sample(seed: int) -> tuple[PhotoPlan, ...]:
    """Plan all photos in the order of their ids; draws until the shares of materials fit."""
    rng = np.random.default_rng([seed, 1])
    sizes = _batch_sizes(rng)
    runs = [_run_lengths(rng, size) for size in sizes]
    while not _fits(shown := _draw_materials(rng, runs), sizes):
        pass
    plans: list[PhotoPlan] = []
    run = 0
    for batch, lengths in enumerate(runs):
        first = len(plans)
        for length in lengths:
            for _ in range(length):
                photo_id = len(plans)
                name = f"batch_{batch + 1}/{photo_id - first:06d}.jpg"
                size_px = _SHAPES[int(rng.integers(len(_SHAPES)))]
                orientation = int(rng.choice([3, 6, 8])) if photo_id % 17 == 5 else 1
                materials = tuple(name for name, shows in zip(MATERIALS, shown[photo_id], strict=True) if shows)
                plans.append(PhotoPlan(photo_id, batch, run, name, *size_px, orientation, materials))
            run += 1
    return tuple(plans)
