"""Sprites and the surfaces they are made of: bodies of revolution, sheets, facets, creases and prints.

Every drawing has a canvas of its own of about 160 pixels; colours are RGB, float32, in 0–1.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wastelens.system.arrays import Float32Array, FloatArray

Image = Float32Array
Field = npt.NDArray[np.floating[Any]]  # intermediate values of a drawing, before they are cast to an Image
Colour = Float32Array
Mask = npt.NDArray[np.uint8]  # of 0 and 1, (height, width)
Random = np.random.Generator
Shape = tuple[int, ...]  # (height, width) in pixels

CANVAS_PX = 160


@dataclass(frozen=True)
class Sprite:
    """One drawn object, not yet placed; all values are in 0–1."""

    colour: Image  # RGB (height, width, 3)
    opacity: Image  # share of the ground that each pixel hides, (height, width)
    silhouette: Image  # the object's filled outline, (height, width); glass hides less than it covers


@dataclass(frozen=True)
class Body:
    """A body of revolution seen from the side: ``across`` runs from -1 to 1, ``along`` from 0 to 1."""

    across: Image
    along: Image
    mask: Image

    def band(self, start: float, end: float) -> Image:
        """Return a mask of the band between two places along the body, both exclusive."""
        return ((self.along > start) & (self.along < end)).astype(np.float32)


def rgb(hue: float, saturation: float, value: float) -> Colour:
    """Return a colour by hue, saturation and value, each in 0–1; float32, shape (3,)."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)


def any_colour(rng: Random, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """Draw a random colour of any hue, with saturation and value in these ranges."""
    return rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))


def paint(base: Colour, shade: Field) -> Image:
    """Shade a colour: (3,) and (height, width) → (height, width, 3). A shade above 1 fades to white."""
    shade = np.asarray(shade, np.float32)[..., None]
    whiter = np.clip(shade - 1, 0, 1)
    # base · shade up to 1, then linear to white
    return np.asarray(base * (np.minimum(shade, 1) - whiter) + whiter, np.float32)


def blend(below: Field, above: Field, weight: Field) -> Image:
    """Blend ``above`` over ``below``, entirely where ``weight`` (height, width) is 1."""
    return np.asarray(below + (above - below) * weight[..., None], np.float32)


def noise(rng: Random, shape: Shape, cells: float) -> Image:
    """Draw smooth noise of mean 0 and standard deviation 1, roughly, with ``cells`` bumps along the longer side."""
    height, width = shape
    pitch = max(height, width) / cells
    grid = rng.standard_normal((int(height / pitch) + 3, int(width / pitch) + 3)).astype(np.float32)
    size = (int(grid.shape[1] * pitch) + 1, int(grid.shape[0] * pitch) + 1)
    wide = cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(wide[:height, :width] * 1.3, np.float32)


def coordinates(shape: Shape) -> tuple[Image, Image]:
    """Return the coordinates of pixel centres from -1 to 1, down and across; float32, each (height, width)."""
    height, width = shape
    y = (2 * np.arange(height, dtype=np.float32) + 1) / height - 1
    x = (2 * np.arange(width, dtype=np.float32) + 1) / width - 1
    return np.repeat(y[:, None], width, axis=1), np.repeat(x[None], height, axis=0)


def body(profile: Sequence[tuple[float, float]], bend: Image | None = None) -> Body:
    """Make a body of revolution from ``profile``: (place along, half-width), both as shares of its length.

    ``bend`` (CANVAS_PX,) shifts each row sideways, in pixels.
    """
    places, halves = (np.array(column, np.float32) for column in zip(*profile, strict=True))
    along = (np.arange(CANVAS_PX, dtype=np.float32) + 0.5) / CANVAS_PX
    half_px = np.interp(along, places, halves).astype(np.float32) * (CANVAS_PX - 4)
    centre_px = np.zeros(CANVAS_PX, np.float32) if bend is None else bend
    width = int(2 * (half_px.max() + np.abs(centre_px).max())) + 6
    x = np.arange(width, dtype=np.float32)[None] - width / 2 + 0.5 - centre_px[:, None]
    mask = np.clip(half_px[:, None] - np.abs(x) + 0.5, 0, 1)
    ends = np.clip(np.minimum(along, 1 - along) * CANVAS_PX - 1, 0, 1)
    across = np.clip(x / np.maximum(half_px[:, None], 1), -1, 1)
    wide_along = np.repeat(along[:, None], width, axis=1)
    return Body(*(field.astype(np.float32) for field in (across, wide_along, mask * ends[:, None])))


def polar(angles: Field, radius: Field | float) -> FloatArray:
    """Return points (n, 2), x before y, around the origin at these angles in radians and distances."""
    points: FloatArray = np.stack([np.cos(angles), np.sin(angles)], 1) * np.reshape(radius, (-1, 1))
    return points


def outline(points: FloatArray, shape: Shape) -> Image:
    """Fill a polygon with smooth edges. Points (n, 2), x before y, in pixels → (height, width) in 0–1."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return np.asarray(mask / 255, np.float32)


def sheet(rng: Random, aspect: float, corners: int, ragged: float) -> Image:
    """Draw the mask of a sheet: with 4 ``corners`` a rough rectangle, with more a rough circle."""
    height, width = CANVAS_PX, max(int(CANVAS_PX * aspect), 24)
    if corners == 4:
        unit = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64) * 0.93
        steps = np.linspace(0, 1, 6)[:-1, None]
        unit = np.concatenate([a + (b - a) * steps for a, b in zip(unit, np.roll(unit, -1, 0), strict=True)])
    else:
        angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
        unit = polar(angles, 0.9)
    unit = np.clip(unit * (1 + rng.normal(0, ragged, (len(unit), 1))), -0.99, 0.99)
    return outline((unit + 1) / 2 * [width - 1, height - 1], (height, width))


def facets(rng: Random, shape: Shape, count: int, tilt: float) -> Image:
    """Draw the light on a crumpled surface: ``count`` flat facets, each with its own level in 0–1 and slope."""
    height, width = shape
    seeds = rng.uniform(0, 1, (count, 2)).astype(np.float32) * np.array(shape, np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    nearest = np.full(shape, np.inf, np.float32)
    light = np.zeros(shape, np.float32)
    for (row, column), level, slope in zip(
        seeds, rng.uniform(0, 1, count), rng.normal(0, tilt, (count, 2)), strict=True
    ):
        down, right = y - row, x - column
        distance = down * down + right * right
        closer = distance < nearest
        nearest[closer] = distance[closer]
        light[closer] = (level + (down * slope[0] + right * slope[1]) / 40)[closer]
    return np.clip(light, 0, 1)


def creases(rng: Random, shape: Shape, count: int, depth: float) -> Image:
    """Draw fold lines: a shade around 1 that jumps by up to ``depth`` across each of ``count`` straight folds."""
    y, x = coordinates(shape)
    shade = np.ones(shape, np.float32)
    for _ in range(count):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.6, 0.6)
        side = np.cos(angle) * x + np.sin(angle) * y - offset
        shade += np.float32(rng.uniform(0.4, 1) * depth) * np.where(side > 0, 1, -1) * np.exp(-2.5 * np.abs(side))
    return shade


def streaks(rng: Random, shape: Shape, count: int, spread: float) -> Image:
    """Draw soft, curved highlights as on film and moulded plastic, 0–1; ``spread`` is their width on the canvas."""
    y, x = coordinates(shape)
    light = np.zeros(shape, np.float32)
    for _ in range(count):
        angle, offset, curve = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8), rng.normal(0, 0.35)
        along = -np.sin(angle) * x + np.cos(angle) * y
        side = np.cos(angle) * x + np.sin(angle) * y - offset - curve * along * along
        fade = np.exp(-(((along - rng.uniform(-0.5, 0.5)) / 0.6) ** 2))
        light = np.maximum(light, np.exp(-((side / spread) ** 2)) * fade)
    return np.asarray(light, np.float32)


def text(rng: Random, shape: Shape, pitch_px: int) -> Image:
    """Draw lines of print, 1 for ink: words of uneven length on rows ``pitch_px`` apart."""
    height, width = shape
    ink = np.zeros(shape, np.float32)
    margin = max(width // 9, 3)
    for row in range(pitch_px, height - pitch_px, pitch_px):
        column = margin
        end = width - margin if rng.uniform() < 0.75 else int(width * rng.uniform(0.4, 0.85))
        while column < end:
            word = int(rng.integers(pitch_px, pitch_px * 4))
            ink[row : row + max(pitch_px // 2, 2), column : min(column + word, end)] = 1
            column += word + max(pitch_px // 3, 2)
    return ink


def lathe_light(across: Field, lamp: float) -> Image:
    """Shade a matte round body by the cosine between its normal and a lamp at ``lamp`` (-1 to 1)."""
    normal = np.sqrt(np.maximum(1 - across * across, 0))
    return np.asarray(0.35 + 0.65 * np.maximum(across * lamp + normal * np.sqrt(1 - lamp * lamp), 0), np.float32)


def glint(across: Field, place: float, width: float) -> Image:
    """Return a highlight, 0–1: a bell curve of this width around ``place``."""
    return np.asarray(np.exp(-(((across - place) / width) ** 2)), np.float32)


def metal_light(rng: Random, across: Field) -> Image:
    """Draw polished metal around a body: hard bands, as a bright sky and dark ground reflect in it."""
    places = np.array([-1, -0.82, -0.7, -0.45, -0.35, -0.1, 0.05, 0.12, 0.45, 0.55, 0.8, 0.9, 1])
    levels = np.array([0.1, 0.25, 0.95, 1.0, 0.5, 0.28, 0.2, 1.0, 1.0, 0.35, 0.15, 0.7, 0.2])
    flipped = across if rng.uniform() < 0.5 else -across
    shifted = np.clip(flipped + rng.uniform(-0.12, 0.12), -1, 1)
    return np.asarray(np.interp(shifted, places, levels), np.float32)


def smooth_rows(rng: Random, cells: float, size_px: float) -> Image:
    """Draw a smooth sideways bend of about ``size_px`` pixels, one value per row of the canvas; (CANVAS_PX,)."""
    return np.asarray(noise(rng, (CANVAS_PX, 1), cells)[:, 0] * size_px, np.float32)


def see_through(colour: Field, opacity: Field, silhouette: Image) -> Sprite:
    """Make a sprite through which the ground shows where its opacity is below 1."""
    return Sprite(np.clip(colour, 0, 1).astype(np.float32), opacity.astype(np.float32), silhouette)


def opaque(colour: Field, mask: Field) -> Sprite:
    """Make a sprite that hides everything under its mask."""
    return see_through(colour, mask, mask.astype(np.float32))
