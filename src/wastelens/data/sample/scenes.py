"""Draw one photo by its plan: ground, clutter, litter, light and camera, and a mask of each piece of litter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from wastelens.data.sample.paper_remains import bark, flower, leaf, stone, twig
from wastelens.data.sample.plan import CATEGORIES, LITTER, Litter, PhotoPlan
from wastelens.data.sample.shapes import (
    Colour,
    Image,
    Mask,
    Random,
    Shape,
    Sprite,
    coordinates,
    noise,
    paint,
    polar,
    rgb,
)
from wastelens.system.arrays import PhotoArray

GROUND_PX = 400


def _speckle(rng: Random, share: float) -> Image:
    """Draw slightly softened grain, one value per pixel, with a standard deviation of about ``share``."""
    grain = rng.standard_normal((GROUND_PX, GROUND_PX)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(grain, (0, 0), 0.7) * share * 2, np.float32)


def _rough(rng: Random, cells: float) -> Image:
    return noise(rng, (GROUND_PX, GROUND_PX), cells)


def grass(rng: Random, base: Colour) -> Image:
    """Draw blades of grass: many short strokes of uneven tone."""
    ground = paint(base, 0.55 + 0.12 * _rough(rng, 6))
    starts = rng.uniform(0, GROUND_PX, (2600, 2))
    lean = rng.normal(-np.pi / 2, 0.6, 2600)
    tips = starts + polar(lean, rng.uniform(8, 26, (2600, 1)))
    tones = base * rng.uniform(0.4, 1.25, (2600, 1)) + rng.normal(0, 0.03, (2600, 3))
    for start, tip, tone in zip(starts.astype(int), tips.astype(int), np.clip(tones, 0, 1), strict=True):
        cv2.line(ground, start.tolist(), tip.tolist(), tone.tolist(), 1, cv2.LINE_AA)
    return ground


def asphalt(rng: Random, base: Colour) -> Image:
    """Draw a dark binder with pale chips, and a crack."""
    chips = np.clip(_speckle(rng, 0.22) - 0.12, 0, 0.5)
    ground = paint(base, 0.85 + 0.08 * _rough(rng, 4) + _speckle(rng, 0.12) + chips)
    steps = np.cumsum(rng.normal(0, 6, 41))
    path = np.stack([np.linspace(0, GROUND_PX, 41), rng.uniform(60, 340) + steps], 1).astype(np.int32)
    cv2.polylines(ground, [path], False, (base * 0.35).tolist(), 2, cv2.LINE_AA)
    return ground


def sand(rng: Random, base: Colour) -> Image:
    """Draw fine grain over wind ripples."""
    y = np.linspace(0, rng.uniform(40, 80), GROUND_PX, dtype=np.float32)[:, None]
    ripples = np.sin(y + 1.2 * _rough(rng, 4))
    return paint(base, 0.85 + 0.07 * ripples + 0.06 * _rough(rng, 5) + _speckle(rng, 0.07))


def water(rng: Random, base: Colour) -> Image:
    """Draw flat ripples with glitter on their crests."""
    flat = cv2.resize(_rough(rng, 60)[:, ::3], (GROUND_PX, GROUND_PX), interpolation=cv2.INTER_CUBIC)
    waves = 0.6 * cv2.resize(flat[:, :140], (GROUND_PX, GROUND_PX)) + 0.5 * _rough(rng, 12)
    glitter = np.clip(waves - 1.2, 0, 0.3)
    return paint(base, np.asarray(0.8 + 0.1 * waves + glitter, np.float32))


def _slabs(rng: Random, base: Colour, height_px: int, width_px: int, uneven: float) -> Image:
    """Draw slabs in running bond, each in its own tone, with dark joints."""
    ground = np.empty((GROUND_PX, GROUND_PX, 3), np.float32)
    ground[:] = base * 0.45
    for row, top in enumerate(range(-height_px // 2, GROUND_PX, height_px)):
        for left in range(-width_px + (row % 2) * width_px // 2, GROUND_PX, width_px):
            tone = np.clip(base * rng.normal(1, uneven) + rng.normal(0, uneven / 5, 3), 0, 1)
            corner = (left + width_px - 4, top + height_px - 4)
            cv2.rectangle(ground, (left, top), corner, tone.tolist(), -1)
    turn = cv2.getRotationMatrix2D((GROUND_PX / 2, GROUND_PX / 2), rng.uniform(-25, 25), 1.25)
    turned = cv2.warpAffine(ground, turn, (GROUND_PX, GROUND_PX), borderMode=cv2.BORDER_REFLECT)
    shade = 1 + 0.06 * _rough(rng, 7) + _speckle(rng, 0.07)
    return np.asarray(turned * shade[..., None], np.float32)


def paving(rng: Random, base: Colour) -> Image:
    """Draw large slabs."""
    return _slabs(rng, base, int(rng.integers(80, 130)), int(rng.integers(90, 150)), 0.05)


def brick(rng: Random, base: Colour) -> Image:
    """Draw small bricks of uneven colour."""
    return _slabs(rng, base, int(rng.integers(26, 36)), int(rng.integers(60, 80)), 0.13)


def soil(rng: Random, base: Colour) -> Image:
    """Draw crumbs of earth, strewn with needles."""
    ground = paint(base, np.clip(0.75 + 0.2 * _rough(rng, 30) + 0.12 * _rough(rng, 6) + _speckle(rng, 0.12), 0.1, 1.5))
    for _ in range(260):
        start, lean = rng.uniform(0, GROUND_PX, 2), rng.uniform(0, np.pi)
        tip = start + np.array([np.cos(lean), np.sin(lean)]) * rng.uniform(8, 24)
        tone = np.clip(base * rng.uniform(0.6, 2.0), 0, 1)
        cv2.line(ground, start.astype(int).tolist(), tip.astype(int).tolist(), tone.tolist(), 1, cv2.LINE_AA)
    return ground


def gravel(rng: Random, base: Colour) -> Image:
    """Draw pebbles side by side, each lit from above."""
    ground = paint(base, 0.5 + 0.1 * _rough(rng, 20))
    for _ in range(1500):
        centre = rng.uniform(0, GROUND_PX, 2).astype(int)
        axes = rng.uniform(4, 11, 2).astype(int)
        tone = np.clip(base * rng.uniform(0.75, 1.15) + rng.normal(0, 0.02, 3), 0, 1)
        turn, shadow = float(rng.uniform(0, 180)), centre + np.array([0, 2])
        cv2.ellipse(ground, shadow.tolist(), axes.tolist(), turn, 0, 360, (tone * 0.6).tolist(), -1)
        cv2.ellipse(ground, centre.tolist(), axes.tolist(), turn, 0, 360, tone.tolist(), -1, cv2.LINE_AA)
    return ground * (1 + _speckle(rng, 0.05)[..., None])


Ground = Callable[[Random, Colour], Image]

# Of each batch: how its ground is drawn, its colour (hue, saturation, value), and its TACO scene category.
GROUNDS: tuple[tuple[Ground, tuple[float, float, float], int], ...] = (
    (grass, (0.27, 0.60, 0.55), 5),
    (asphalt, (0.60, 0.06, 0.42), 2),
    (sand, (0.11, 0.34, 0.70), 3),
    (paving, (0.10, 0.08, 0.58), 2),
    (water, (0.53, 0.45, 0.48), 6),
    (soil, (0.07, 0.45, 0.34), 3),
    (brick, (0.03, 0.45, 0.58), 2),
    (grass, (0.17, 0.48, 0.60), 5),
    (gravel, (0.09, 0.10, 0.58), 3),
    (asphalt, (0.08, 0.08, 0.55), 2),
    (soil, (0.10, 0.35, 0.52), 3),
    (grass, (0.33, 0.55, 0.40), 5),
)


def draw_ground(rng: Random, batch: int) -> Image:
    """Draw a patch of a batch's ground, larger than a photo: float32 (GROUND_PX, GROUND_PX, 3) in 0–1."""
    draw, (hue, saturation, value), _ = GROUNDS[batch % len(GROUNDS)]
    base = rgb(hue + rng.normal(0, 0.01), saturation * rng.uniform(0.85, 1.15), value * rng.uniform(0.9, 1.1))
    return np.clip(draw(rng, base), 0, 1)


def light_photo(rng: Random, photo: Image, batch: int, sun: float) -> Image:
    """Light the photo: a gradient, the shade of trees, exposure, and the white balance of batch and shot.

    ``sun`` is the direction of the light, in radians; colours stay float32 in 0–1.
    """
    height, width = photo.shape[:2]
    y, x = coordinates((height, width))
    gradient = 1 + rng.uniform(0.05, 0.22) * (np.cos(sun) * x + np.sin(sun) * y)
    dapple = np.clip(0.5 + 1.4 * noise(rng, (height, width), rng.uniform(2, 4)), 0, 1)
    shade = gradient * (1 - rng.uniform(0, 0.3) * dapple)
    # The batch's light depends only on its number, so that all its photos share it.
    own = np.random.default_rng([batch, 77])
    warmth = own.uniform(-0.1, 0.1) + rng.normal(0, 0.06)
    balance = np.array([1 + warmth, 1 + rng.normal(0, 0.03), 1 - warmth], np.float32)
    exposure = own.uniform(0.95, 1.1) * rng.uniform(0.88, 1.2)
    lit = photo * np.asarray(shade * exposure, np.float32)[..., None] * balance
    return np.asarray(cv2.pow(np.clip(lit, 0, 1), rng.uniform(0.85, 1.15)), np.float32)


def camera(rng: Random, photo: Image) -> Image:
    """Add blur and sensor noise; colours stay float32 in 0–1."""
    sharp = cv2.GaussianBlur(photo, (0, 0), float(rng.uniform(0.35, 0.95)))
    grain = rng.standard_normal(photo.shape, dtype=np.float32)
    sharp += grain * np.float32(rng.uniform(0.008, 0.025))
    return np.asarray(np.clip(sharp, 0, 1), np.float32)


CLUTTER = (leaf, leaf, stone, twig, flower, bark)
_MOST_OBJECTS = 5
_IDS = {name: category_id for category_id, (name, _) in enumerate(CATEGORIES)}


@dataclass(frozen=True)
class Placed:
    """A warped sprite: its upper left corner relative to its centre, in pixels, and its warped layers."""

    left: int
    top: int
    premultiplied: Image  # colour times opacity, then opacity: (height, width, 4)
    silhouette: Image  # (height, width)


@dataclass(frozen=True)
class Scene:
    """A drawn photo, RGB (height, width, 3), upright."""

    pixels_0_255: PhotoArray
    category_ids: tuple[int, ...]  # the TACO category of each piece of litter
    visible: tuple[Mask, ...]  # mask of each visible piece, (height, width); no two overlap


def _warp(rng: Random, sprite: Sprite, side_px: float) -> Placed:
    """Scale the sprite to this longer side, rotate and slightly foreshorten it, with its centre at (0, 0)."""
    height, width = sprite.opacity.shape
    scale = side_px / max(height, width)
    small = (max(int(width * scale), 3), max(int(height * scale), 3))
    layers = np.dstack([sprite.colour * sprite.opacity[..., None], sprite.opacity])
    layers = cv2.resize(layers, small, interpolation=cv2.INTER_AREA)
    silhouette = cv2.resize(sprite.silhouette, small, interpolation=cv2.INTER_AREA)
    turn, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.82, 1.0)
    linear = np.array([[1, 0], [0, tilt]]) @ [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    reach = np.abs(linear) @ [small[0] / 2, small[1] / 2]
    size = np.ceil(reach).astype(int) * 2 + 3
    offset = size / 2 - 0.5 - linear @ [(small[0] - 1) / 2, (small[1] - 1) / 2]
    matrix = np.hstack([linear, offset[:, None]])
    corner = (int(size[0]), int(size[1]))
    return Placed(
        -corner[0] // 2,
        -corner[1] // 2,
        cv2.warpAffine(layers, matrix, corner),
        cv2.warpAffine(silhouette, matrix, corner),
    )


def _window(placed: Placed, centre: tuple[int, int], shape: Shape) -> tuple[slice, slice, slice, slice]:
    """Return the overlap of photo and sprite: rows and columns of the photo, rows and columns of the sprite."""
    top, left = placed.top + centre[1], placed.left + centre[0]
    height, width = placed.silhouette.shape
    rows = slice(max(top, 0), max(min(top + height, shape[0]), 0))
    columns = slice(max(left, 0), max(min(left + width, shape[1]), 0))
    inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    return rows, columns, *inner


def _lay(photo: Image, placed: Placed, centre: tuple[int, int], sun: float) -> None:
    """Draw the sprite and its soft shadow on the photo, in place."""
    for shift, is_shadow in ((4, True), (0, False)):
        at = (centre[0] - int(shift * np.cos(sun)), centre[1] - int(shift * np.sin(sun)))
        rows, columns, *inner = _window(placed, at, photo.shape[:2])
        below = photo[rows, columns]
        if is_shadow:
            soft = cv2.blur(placed.silhouette, (7, 7))[tuple(inner)]
            below *= 1 - 0.45 * soft[..., None]
        else:
            above = placed.premultiplied[tuple(inner)]
            below *= 1 - above[..., 3:]
            below += above[..., :3]


def _find_place(rng: Random, placed: Placed, taken: Mask) -> tuple[int, int]:
    """Try a few centres and return the one where the sprite covers the least of the other litter."""
    height, width = taken.shape
    best, least = (width // 2, height // 2), np.inf
    for _ in range(14):
        centre = int(width * rng.uniform(0.16, 0.84)), int(height * rng.uniform(0.16, 0.84))
        rows, columns, *inner = _window(placed, centre, (height, width))
        solid = placed.silhouette[tuple(inner)] > 0.5
        covered = int((taken[rows, columns] * solid).sum()) / max(int(solid.sum()), 1)
        if covered < least:
            best, least = centre, covered
        if covered < 0.06:
            break
    return best


def _choose_litter(rng: Random, materials: tuple[str, ...]) -> list[Litter]:
    """Choose a piece of each material, and a few more of the same materials, up to _MOST_OBJECTS."""
    # Glass is rare, and cigarettes are small and rarely found alone: a single one would hardly be seen.
    more = [rare for rare in ["toxic", "glass", "toxic"] if rare in materials]
    more += [material for material in materials if material != "plastic" and rng.uniform() < 0.6]
    more += [materials[i] for i in rng.integers(len(materials), size=int(rng.integers(0, 3)))]
    chosen = []
    for material in [*materials, *more][:_MOST_OBJECTS]:
        kinds = [litter for litter in LITTER if litter.material == material]
        weights = np.array([litter.weight for litter in kinds], float)
        chosen.append(kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))])
    return chosen


def _scatter(rng: Random, photo: Image, sun: float) -> None:
    """Draw clutter that is not annotated: leaves, stones, twigs, blossom, bark."""
    for _ in range(int(rng.integers(4, 12))):
        sprite = CLUTTER[int(rng.integers(len(CLUTTER)))](rng)
        placed = _warp(rng, sprite, min(photo.shape[:2]) * rng.uniform(0.06, 0.24))
        centre = int(rng.integers(photo.shape[1])), int(rng.integers(photo.shape[0]))
        _lay(photo, placed, centre, sun)


@lru_cache(maxsize=1)
def _scene_of_run(seed: int, run: int, batch: int) -> tuple[Image, float]:
    """Draw the ground that a run's photos share, and the direction of their sun, in radians."""
    rng = np.random.default_rng([seed, 2, run])
    return draw_ground(rng, batch), float(rng.uniform(0, 2 * np.pi))


def draw_scene(plan: PhotoPlan, seed: int) -> Scene:
    """Draw one photo, which depends on the plan and the seed alone, not on photos drawn before it."""
    rng = np.random.default_rng([seed, 3, plan.photo_id])
    ground, sun = _scene_of_run(seed, plan.run, plan.batch)
    top = int(rng.integers(GROUND_PX - plan.height_px + 1))
    left = int(rng.integers(GROUND_PX - plan.width_px + 1))
    photo = ground[top : top + plan.height_px, left : left + plan.width_px].copy()
    _scatter(rng, photo, sun)
    chosen = _choose_litter(rng, plan.materials)
    order = rng.permutation(len(chosen))
    crowd = 1.0 if len(chosen) < 4 else 0.88
    owner = np.zeros(photo.shape[:2], np.uint8)
    for number, index in enumerate(order, start=1):
        litter = chosen[int(index)]
        placed = _warp(rng, litter.draw(rng), min(photo.shape[:2]) * rng.uniform(*litter.size) * crowd)
        centre = _find_place(rng, placed, (owner > 0).astype(np.uint8))
        _lay(photo, placed, centre, sun)
        rows, columns, *inner = _window(placed, centre, owner.shape)
        owner[rows, columns][placed.silhouette[tuple(inner)] > 0.5] = number
    photo = camera(rng, light_photo(rng, photo, plan.batch, sun))
    return Scene(
        np.asarray(np.round(photo * 255), np.uint8),
        tuple(_IDS[chosen[int(index)].category] for index in order),
        tuple((owner == number).astype(np.uint8) for number in range(1, len(order) + 1)),
    )
