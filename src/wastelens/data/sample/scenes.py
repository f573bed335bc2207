"""Draw one photo by its plan: ground, clutter, litter and light, and a mask of each piece of litter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from wastelens.data.sample import paper_remains
from wastelens.data.sample.categories import CATEGORIES, LITTER, Litter
from wastelens.data.sample.grounds import GROUND_PX, camera, draw_ground, light_photo
from wastelens.data.sample.plan import PhotoPlan
from wastelens.data.sample.shapes import Image, Mask, Random, Shape, Sprite
from wastelens.system.arrays import PhotoArray

CLUTTER = (
    paper_remains.leaf,
    paper_remains.leaf,
    paper_remains.stone,
    paper_remains.twig,
    paper_remains.flower,
    paper_remains.bark,
)
MOST_OBJECTS = 5
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
    """Choose a piece of each material, and a few more of the same materials, up to MOST_OBJECTS."""
    # Glass is rare, and cigarettes are small and rarely found alone: a single one would hardly be seen.
    more = [rare for rare in ["toxic", "glass", "toxic"] if rare in materials]
    more += [material for material in materials if material != "plastic" and rng.uniform() < 0.6]
    more += [materials[i] for i in rng.integers(len(materials), size=int(rng.integers(0, 3)))]
    chosen = []
    for material in [*materials, *more][:MOST_OBJECTS]:
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
