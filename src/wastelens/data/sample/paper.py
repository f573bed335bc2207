"""Draw paper and carton: matte, pale or brown, folded, with lines of print."""

from __future__ import annotations

import cv2
import numpy as np

from wastelens.data.sample.shapes import (
    CANVAS_PX,
    Colour,
    Image,
    Random,
    Sprite,
    any_colour,
    blend,
    body,
    coordinates,
    creases,
    facets,
    lathe_light,
    noise,
    opaque,
    outline,
    paint,
    rgb,
    sheet,
    text,
)


def _white(rng: Random) -> Colour:
    """Draw a colour of white paper, yellowed or greyed."""
    return rgb(rng.uniform(0.08, 0.16), rng.uniform(0.0, 0.16), rng.uniform(0.72, 0.95))


def _kraft(rng: Random) -> Colour:
    """Draw a colour of brown carton."""
    return rgb(rng.uniform(0.07, 0.1), rng.uniform(0.35, 0.55), rng.uniform(0.55, 0.75))


def _printed(rng: Random, base: Colour, mask: Image, pitch_px: int, ink: Colour) -> Sprite:
    """Draw a folded sheet with lines of print."""
    shade = creases(rng, mask.shape, int(rng.integers(2, 5)), 0.1) - 0.06
    weight = text(rng, mask.shape, pitch_px) * 0.85
    return opaque(blend(paint(base, shade), ink, weight) * np.minimum(shade, 1)[..., None], mask)


def normal_paper(rng: Random) -> Sprite:
    mask = sheet(rng, rng.uniform(0.65, 0.9), 4, 0.04)
    return _printed(rng, _white(rng), mask, int(rng.integers(15, 20)), rgb(0.6, 0.3, rng.uniform(0.1, 0.3)))


def magazine_paper(rng: Random) -> Sprite:
    """Draw a printed page with a picture among its lines."""
    mask = sheet(rng, rng.uniform(0.7, 0.9), 4, 0.03)
    page = _printed(rng, _white(rng), mask, 16, rgb(0, 0, 0.15))
    height, width = mask.shape
    top, left = int(height * rng.uniform(0.1, 0.5)), int(width * rng.uniform(0.08, 0.3))
    picture = np.zeros_like(mask)
    picture[top : top + height // 3, left : left + width // 2] = 1
    tones = 0.7 + 0.3 * noise(rng, (height, width), 6)
    scene = paint(any_colour(rng, (0.3, 0.8), (0.4, 0.9)), np.clip(tones, 0.2, 1.4))
    return opaque(blend(page.colour, scene, picture), mask)


def tissue(rng: Random) -> Sprite:
    """Draw a crumpled tissue: white, soft-edged, with grey hollows and no print."""
    mask = sheet(rng, rng.uniform(0.7, 1.0), int(rng.integers(10, 15)), 0.1)
    folds = cv2.GaussianBlur(facets(rng, mask.shape, 40, 0.5), (0, 0), 2.0)
    return opaque(paint(_white(rng), 0.66 + 0.4 * folds), mask)


def wrapping_paper(rng: Random) -> Sprite:
    """Draw matte paper with a regular pattern of dots."""
    mask = sheet(rng, rng.uniform(0.6, 0.9), 4, 0.05)
    pattern = np.zeros_like(mask)
    for row in range(0, mask.shape[0], 20):
        for column in range(0, mask.shape[1], 20):
            cv2.circle(pattern, (column + row % 40 // 2, row), 5, 1.0, -1, cv2.LINE_AA)
    shade = creases(rng, mask.shape, 4, 0.14) - 0.05
    base = any_colour(rng, (0.15, 0.5), (0.7, 0.9))
    return opaque(blend(paint(base, shade), _white(rng), pattern), mask)


def _corrugated(rng: Random, mask: Image) -> Sprite:
    """Draw brown board with fine flutes, which show strongly in a torn band."""
    y, x = coordinates(mask.shape)
    flutes = np.sin(x * mask.shape[1] / 2 * 2 * np.pi / rng.uniform(9, 12))
    torn = np.clip(3 * (np.abs(y - rng.uniform(-0.4, 0.4)) < rng.uniform(0.2, 0.5)), 0, 1)
    shade = creases(rng, mask.shape, 2, 0.1) + flutes * (0.06 + 0.24 * torn)
    return opaque(paint(_kraft(rng), np.clip(shade, 0, 1.2).astype(np.float32)), mask)


def corrugated_carton(rng: Random) -> Sprite:
    return _corrugated(rng, sheet(rng, rng.uniform(0.55, 0.9), 4, 0.05))


def _box(rng: Random, base: Colour, ink: Colour) -> Sprite:
    """Draw a flattened box: panels and flaps with dark folds between them, and print on the panels."""
    mask = sheet(rng, rng.uniform(0.6, 0.85), 4, 0.02)
    height, width = mask.shape
    shade = creases(rng, (height, width), 1, 0.08) - 0.03
    for fold in (0.2, 0.55, 0.85):
        row = int(height * (fold + rng.normal(0, 0.02)))
        shade[row : row + 3] *= 0.55
        shade[:row] *= rng.uniform(0.9, 1.02)
    weight = text(rng, (height, width), int(rng.integers(16, 22))) * 0.8
    weight[: int(height * 0.22)] = 0
    return opaque(blend(paint(base, shade), ink, weight), mask)


def other_carton(rng: Random) -> Sprite:
    base = _white(rng) if rng.uniform() < 0.5 else any_colour(rng, (0.2, 0.6), (0.6, 0.9))
    return _box(rng, base, rgb(rng.uniform(), 0.6, 0.25))


def pizza_box(rng: Random) -> Sprite:
    return _box(rng, _kraft(rng), rgb(0.0, rng.uniform(0.5, 0.9), 0.4))


def egg_carton(rng: Random) -> Sprite:
    """Draw grey pulp with rows of cups."""
    mask = sheet(rng, 0.45, 4, 0.01)
    y, x = coordinates(mask.shape)
    bumps = np.sin((y + 1) * np.pi * 6) * np.sin((x + 1) * np.pi * 2)
    shade = 0.75 + 0.3 * bumps + 0.05 * noise(rng, mask.shape, 50)
    return opaque(paint(rgb(0.1, 0.1, rng.uniform(0.6, 0.75)), np.clip(shade, 0, 1)), mask)


def paper_cup(rng: Random) -> Sprite:
    """Draw a tapering matte cup with a rolled rim and a printed band."""
    foot = rng.uniform(0.22, 0.27)
    cup = body([(0, foot * 1.42), (0.05, foot * 1.42), (0.051, foot * 1.35), (1, foot)])
    light = lathe_light(cup.across, rng.uniform(-0.5, 0.5))
    light = light + 0.12 * (cup.along < 0.05) - 0.2 * (np.abs(cup.along - 0.06) < 0.01)
    colour = paint(_white(rng), light)
    band = text(rng, cup.mask.shape, 18) * (np.abs(cup.along - 0.5) < 0.25)
    return opaque(blend(colour, any_colour(rng, (0.5, 0.9), (0.2, 0.5)), band), cup.mask)


def paper_bag(rng: Random) -> Sprite:
    """Draw a brown bag with a saw-toothed mouth, long folds and some print."""
    height, width = CANVAS_PX, int(CANVAS_PX * rng.uniform(0.55, 0.75))
    teeth = np.arange(0, 19)
    mouth = np.stack([4 + teeth / 18 * (width - 8), 5 + 7.0 * (teeth % 2)], 1)
    mask = outline(np.concatenate([mouth, [[width - 5, height - 4], [4, height - 4]]]), (height, width))
    shade = creases(rng, (height, width), 5, 0.16) - 0.05
    side = int(width * rng.uniform(0.15, 0.25))
    shade[:, :side] *= 0.8
    weight = text(rng, (height, width), 22) * 0.7
    return opaque(blend(paint(_kraft(rng), shade), rgb(0.05, 0.5, 0.2), weight), mask)
