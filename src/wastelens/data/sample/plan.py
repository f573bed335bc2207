"""TACO's categories, how the sample draws them, and each photo's plan: batch, run (photos of one scene), materials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wastelens.data.sample import metal_glass_plastic, paper_remains
from wastelens.data.sample.shapes import Random, Sprite
from wastelens.system.arrays import BoolArray, FloatArray

# Supercategory: its categories in the order of their ids, which continue from line to line.
_TABLE = """\
Aluminium foil: Aluminium foil
Battery: Battery
Blister pack: Aluminium blister pack, Carded blister pack
Bottle: Other plastic bottle, Clear plastic bottle, Glass bottle
Bottle cap: Plastic bottle cap, Metal bottle cap
Broken glass: Broken glass
Can: Food Can, Aerosol, Drink can
Carton: Toilet tube, Other carton, Egg carton, Drink carton, Corrugated carton, Meal carton, Pizza box
Cup: Paper cup, Disposable plastic cup, Foam cup, Glass cup, Other plastic cup
Food waste: Food waste
Glass jar: Glass jar
Lid: Plastic lid, Metal lid
Other plastic: Other plastic
Paper: Magazine paper, Tissues, Wrapping paper, Normal paper
Paper bag: Paper bag, Plastified paper bag
Plastic bag & wrapper: Plastic film, Six pack rings, Garbage bag, Other plastic wrapper, \
Single-use carrier bag, Polypropylene bag, Crisp packet
Plastic container: Spread tub, Tupperware, Disposable food container, Foam food container, \
Other plastic container
Plastic glooves: Plastic glooves
Plastic utensils: Plastic utensils
Pop tab: Pop tab
Rope & strings: Rope & strings
Scrap metal: Scrap metal
Shoe: Shoe
Squeezable tube: Squeezable tube
Straw: Plastic straw, Paper straw
Styrofoam piece: Styrofoam piece
Unlabeled litter: Unlabeled litter
Cigarette: Cigarette
"""


_LINES = [line.split(": ") for line in _TABLE.splitlines()]

CATEGORIES = tuple((name, supercategory) for supercategory, names in _LINES for name in names.split(", "))
"""TACO's categories in the order of their ids from 0: (name, supercategory)."""

MATERIALS = ("aluminium", "glass", "other_objects", "paper", "plastic", "toxic")


@dataclass(frozen=True)
class Litter:
    """How a category is drawn."""

    category: str  # its name in TACO
    material: str  # the same in the project's mapping and the predecessor's
    draw: Callable[[Random], Sprite]  # draws one on a canvas of its own
    weight: float  # how often it occurs among its material, relative to the others
    size: tuple[float, float]  # range of its longer side, as a share of the photo's shorter side


LITTER: tuple[Litter, ...] = (
    Litter("Drink can", "aluminium", metal_glass_plastic.drink_can, 12, (0.36, 0.55)),
    Litter("Aluminium foil", "aluminium", metal_glass_plastic.foil, 8, (0.3, 0.5)),
    Litter("Metal bottle cap", "aluminium", metal_glass_plastic.metal_cap, 2, (0.2, 0.3)),
    Litter("Food Can", "aluminium", metal_glass_plastic.food_can, 3, (0.36, 0.5)),
    Litter("Scrap metal", "aluminium", metal_glass_plastic.scrap_metal, 1, (0.35, 0.55)),
    Litter("Aerosol", "aluminium", metal_glass_plastic.aerosol, 1, (0.45, 0.6)),
    Litter("Metal lid", "aluminium", metal_glass_plastic.metal_lid, 1, (0.25, 0.38)),
    Litter("Aluminium blister pack", "aluminium", metal_glass_plastic.blister_pack, 1, (0.32, 0.45)),
    Litter("Glass bottle", "glass", metal_glass_plastic.glass_bottle, 8, (0.6, 0.8)),
    Litter("Glass jar", "glass", metal_glass_plastic.glass_jar, 2, (0.4, 0.55)),
    Litter("Broken glass", "glass", metal_glass_plastic.broken_glass, 2, (0.45, 0.6)),
    Litter("Glass cup", "glass", metal_glass_plastic.glass_cup, 1, (0.4, 0.55)),
    Litter("Food waste", "other_objects", paper_remains.food_waste, 5, (0.34, 0.5)),
    Litter("Shoe", "other_objects", paper_remains.shoe, 5, (0.5, 0.7)),
    Litter("Normal paper", "paper", paper_remains.normal_paper, 9, (0.36, 0.55)),
    Litter("Other carton", "paper", paper_remains.other_carton, 8, (0.4, 0.6)),
    Litter("Corrugated carton", "paper", paper_remains.corrugated_carton, 5, (0.4, 0.6)),
    Litter("Paper cup", "paper", paper_remains.paper_cup, 3, (0.34, 0.5)),
    Litter("Tissues", "paper", paper_remains.tissue, 2, (0.3, 0.45)),
    Litter("Paper bag", "paper", paper_remains.paper_bag, 2, (0.42, 0.6)),
    Litter("Magazine paper", "paper", paper_remains.magazine_paper, 2, (0.4, 0.55)),
    Litter("Wrapping paper", "paper", paper_remains.wrapping_paper, 1, (0.36, 0.5)),
    Litter("Egg carton", "paper", paper_remains.egg_carton, 1, (0.42, 0.55)),
    Litter("Pizza box", "paper", paper_remains.pizza_box, 1, (0.45, 0.6)),
    Litter("Plastic film", "plastic", metal_glass_plastic.plastic_film, 8, (0.35, 0.55)),
    Litter("Other plastic wrapper", "plastic", metal_glass_plastic.wrapper, 7, (0.3, 0.5)),
    Litter("Clear plastic bottle", "plastic", metal_glass_plastic.clear_bottle, 7, (0.5, 0.75)),
    Litter("Plastic bottle cap", "plastic", metal_glass_plastic.bottle_cap, 5, (0.16, 0.25)),
    Litter("Plastic straw", "plastic", metal_glass_plastic.straw, 4, (0.4, 0.6)),
    Litter("Disposable plastic cup", "plastic", metal_glass_plastic.plastic_cup, 4, (0.35, 0.5)),
    Litter("Other plastic bottle", "plastic", metal_glass_plastic.other_bottle, 3, (0.4, 0.6)),
    Litter("Plastic lid", "plastic", metal_glass_plastic.plastic_lid, 3, (0.22, 0.35)),
    Litter("Single-use carrier bag", "plastic", metal_glass_plastic.carrier_bag, 3, (0.45, 0.65)),
    Litter("Crisp packet", "plastic", metal_glass_plastic.wrapper, 2, (0.38, 0.52)),
    Litter("Garbage bag", "plastic", metal_glass_plastic.garbage_bag, 2, (0.45, 0.65)),
    Litter("Plastic utensils", "plastic", metal_glass_plastic.utensil, 2, (0.42, 0.55)),
    Litter("Rope & strings", "plastic", metal_glass_plastic.rope, 2, (0.5, 0.7)),
    Litter("Spread tub", "plastic", metal_glass_plastic.spread_tub, 1, (0.35, 0.5)),
    Litter("Cigarette", "toxic", paper_remains.cigarette, 9, (0.28, 0.38)),
    Litter("Battery", "toxic", paper_remains.battery, 1, (0.32, 0.42)),
)


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
